"""What a hook costs before it does anything of ours: the kernel's own part of every figure in `connect`.

Two programs of a few instructions stand in for kubesock's: one that returns at once, and one that makes the
record of a socket, as every hook must that is to tell `getpeername()` later what was dialled.
"""

from __future__ import annotations

import os
import struct

from bench.lab import Lab, Programmed, Switch, measured
from bench.lanes import Client, Lane, Times
from bench.objects import OUTSIDE_NETWORK, PORT, TARGET_PORT
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, ratio_row
from pyagent.datapath.layout import Hook
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.features import PROGRAM_SOCK_ADDR
from pyagent.kernel.links import ATTACH_TYPE

SERVICES = 1000
SOCKET_OFFSET = 64  # of `sk` in struct bpf_sock_addr (include/uapi/linux/bpf.h)
SK_STORAGE_GET, F_CREATE = 107, 1


def instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction (Documentation/bpf/standardization/instruction-set.rst)."""
    return struct.pack("=BBhi", code, source << 4 | destination, offset, value)


PROCEED = instruction(0xB7, 0, value=1) + instruction(0x95)
"""return 1"""


def only_record(storage: int) -> bytes:
    """if (ctx->sk) bpf_sk_storage_get(storage, ctx->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); return 1"""
    return (
        instruction(0x79, 2, 1, SOCKET_OFFSET)
        + instruction(0x15, 2, offset=5)
        + instruction(0x18, 1, 1, value=storage)
        + instruction(0x00)
        + instruction(0xB7, 3)
        + instruction(0xB7, 4, value=F_CREATE)
        + instruction(0x85, value=SK_STORAGE_GET)
        + PROCEED
    )


def run(lab: Lab, scale: Scale) -> list[Table]:
    client = Client(lab)
    with Programmed(lab) as programmed:
        programmed.grow(SERVICES, ENDPOINTS_OF_OTHERS)
        storage = programmed.datapath.maps.fd("origin")
        kinds = {"returns at once": PROCEED, "makes the record alone": only_record(storage)}
        connects: list[tuple[str, ...]] = []
        datagrams: list[tuple[str, ...]] = []
        with Switch(programmed):
            for name, instructions in kinds.items():
                fds = {hook: _loaded(hook, instructions) for hook in programmed.datapath.hooks}
                programmed.datapath.links.point_to(fds)
                connects += _connects(client, scale, name)
                if instructions is PROCEED:
                    datagrams += _datagrams(lab, client, scale, name)
                for fd in fds.values():
                    os.close(fd)
        connects += _connects(client, scale, "kubesock, a Service", service=True)
        connects += _connects(client, scale, "kubesock, no Service")
        datagrams += _datagrams(lab, client, scale, "kubesock, no Service")
    notes = (
        "Hooked ÷ unhooked, as in the tables of `connect` and `datagrams`, with another program on the hooks",
        "in each row. Nothing that hooks connect() can be cheaper than the first; nothing that answers",
        "getpeername() with the Service can be cheaper than the second.",
    )
    return [
        Table("connect() by what the hook does", RATIO_COLUMNS, connects, notes),
        Table("sendto() + recvfrom() by what the hook does", RATIO_COLUMNS, datagrams),
    ]


def _loaded(hook: Hook, instructions: bytes) -> int:
    return bpf.program_load(bpf.ProgramKind(PROGRAM_SOCK_ADDR, ATTACH_TYPE[hook]), instructions, "floor")


def _connects(client: Client, scale: Scale, what: str, service: bool = False) -> list[tuple[str, ...]]:
    rows = []
    ten = measured("ten")
    for ipv6 in (False, True):
        if service:
            direct = Lane("direct", "connect", False, "tcp", ten.pod(0, ipv6), TARGET_PORT, ten.endpoints)
            hooked = direct._replace(
                name="hooked", hooked=True, address=ten.cluster_ips[ipv6], port=PORT, addresses=1
            )
        else:
            address = ten.pod(0, True) if ipv6 else str(OUTSIDE_NETWORK[1])
            direct = Lane("direct", "connect", False, "tcp", address, TARGET_PORT)
            hooked = direct._replace(name="hooked", hooked=True)
        times = client.run([direct, direct._replace(name="A/A"), hooked], scale.rounds)
        rows += _rows(times, f"TCP IPv{6 if ipv6 else 4}, {what}")
    return rows


def _datagrams(lab: Lab, client: Client, scale: Scale, what: str) -> list[tuple[str, ...]]:
    rows = []
    for ipv6, address in ((False, str(OUTSIDE_NETWORK[1])), (True, "::1")):
        direct = Lane("direct", "self-datagram", False, "udp", address, 0, place=lab.loopback)
        lanes = [direct, direct._replace(name="A/A"), direct._replace(name="hooked", hooked=True)]
        rows += _rows(client.run(lanes, scale.rounds), f"UDP IPv{6 if ipv6 else 4}, {what}")
    return rows


def _rows(times: Times, what: str) -> list[tuple[str, ...]]:
    reference = times.of("direct")
    return [
        ratio_row(f"{what}{', A/A' if lane == 'A/A' else ''}", times.ratio(lane, "direct"), reference)
        for lane in ("A/A", "hooked")
    ]
