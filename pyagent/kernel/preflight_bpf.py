"""Probes of the kernel's BPF: each tries the thing itself and takes it back at once."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from pyagent.datapath.layout import Capacities, MapSpec, MapType, map_specs
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import features, tc_links
from pyagent.kernel.map_create import create_map
from pyagent.kernel.preflight import Finding, State, feature_finding, refusal_finding

BTF = Path("/sys/kernel/btf/vmlinux")
STORAGE_ITERATOR = b"bpf_iter_bpf_sk_storage_map\0"
SO_COOKIE, SO_NETNS_COOKIE = 57, 71
NETLINK_SOCK_DIAG, SOCK_DESTROY = 4, 21
NLM_F_REQUEST, NLM_F_ACK = 1, 4
_NO_SUCH_FD = 0x7FFFFFFF

_SMALL = {
    spec.name: spec._replace(max_entries=min(spec.max_entries, 4096))
    for spec in map_specs(Capacities(event_bytes=4096))
}
_MAPS = {
    "hash maps": ("frontends", "3.19"),
    "LRU hash maps": ("affinity", "4.10"),
    "LPM tries": ("service_addresses", "4.11"),
    "per-CPU arrays": ("outcomes", "4.6"),
    "socket storage": ("origin", "5.3"),
    "ring buffer": ("events", "5.8"),
}


def _sock_addr() -> Iterator[Finding]:
    name, error = "socket address programs", features.sock_addr_error()
    if error is None:
        yield Finding(name, State.FOUND, True, "connect, sendmsg, recvmsg, getpeername")
    else:
        yield refusal_finding(name, True, error)


def _set_retval() -> Iterator[Finding]:
    yield _helper(
        "bpf_set_retval",
        features.has_set_retval,
        "5.18",
        "refusals are EPERM instead of ECONNREFUSED, EHOSTUNREACH and EAGAIN",
    )


def _coarse_clock() -> Iterator[Finding]:
    yield _helper(
        "bpf_ktime_get_coarse_ns", features.has_coarse_clock, "5.11", "a slower clock is read instead"
    )


def _helper(name: str, present: Callable[[], bool], since: str, without: str) -> Finding:
    error = features.sock_addr_error()
    if error is not None:
        return refusal_finding(name, False, error)
    return feature_finding(features.Feature(name, present(), False, since, without))


def _maps() -> Iterator[Finding]:
    for name, (map_name, since) in _MAPS.items():
        try:
            os.close(create_map(_SMALL[map_name]))
        except OSError as error:
            yield refusal_finding(name, True, error, f"boot Linux {since} or later with CONFIG_BPF_SYSCALL=y")
        else:
            yield Finding(name, State.FOUND, True, f"since Linux {since}")


def _shared_arrays() -> Iterator[Finding]:
    name = "arrays shared by mmap"
    try:
        fd = create_map(_SMALL["sets"])
        try:
            mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()
        finally:
            os.close(fd)
    except OSError as error:
        yield refusal_finding(name, True, error, "boot Linux 5.5 or later")
    else:
        yield Finding(name, State.FOUND, True, "since Linux 5.5")


def _batches() -> Iterator[Finding]:
    remedy = "entries are written one by one, which takes five times as long"
    hash_map = MapSpec("probe", MapType.HASH, 4, 4, 8)
    yield from _batch("batch operations on maps", hash_map, "5.6", remedy)
    yield from _batch("batch operations: LPM trie", _SMALL["service_addresses"], "5.13", remedy)


def _batch(name: str, spec: MapSpec, since: str, remedy: str) -> Iterator[Finding]:
    try:
        fd = create_map(spec)
        try:
            bpf.map_lookup_batch(fd, None, spec.key_size, spec.value_size, 8)
        finally:
            os.close(fd)
    except OSError as error:
        yield refusal_finding(name, False, error, remedy)
    else:
        yield Finding(name, State.FOUND, False, f"since Linux {since}")


def _cgroup_links() -> Iterator[Finding]:
    """A link to a cgroup that cannot exist: the kernel gets as far as looking for it, or knows no links."""
    name = "links to cgroups"
    try:
        program = bpf.program_load(
            bpf.ProgramKind(features.PROGRAM_SOCK_ADDR, features.ATTACH_CONNECT4), features.RETURN_1, "probe"
        )
        try:
            bpf.link_create(program, _NO_SUCH_FD, features.ATTACH_CONNECT4)
        finally:
            os.close(program)
    except OSError as error:
        if error.errno != errno.EBADF:
            yield refusal_finding(name, True, error, "boot Linux 5.7 or later with CONFIG_CGROUP_BPF=y")
            return
    yield Finding(name, State.FOUND, True, "since Linux 5.7")


def _packets() -> Iterator[Finding]:
    name, error = "packet programs", tc_links.program_error()
    if error is not None:
        yield refusal_finding(name, False, error, "no traffic from outside is served: run with --outside=off")
        return
    yield Finding(name, State.FOUND, False, "at network devices, for traffic from outside")
    name, error = "links at devices (tcx)", tc_links.tcx_error()
    if error is None:
        yield Finding(name, State.FOUND, False, "since Linux 6.6")
    else:
        without = "clsact filters are used instead, which others can take away: they are put back"
        yield refusal_finding(name, False, error, without)


def _type_information() -> Iterator[Finding]:
    without = "no connection table, and UDP sockets of removed backends stay; needs CONFIG_DEBUG_INFO_BTF=y"
    try:
        text = BTF.read_bytes()
    except FileNotFoundError:
        yield Finding("BTF", State.MISSING, False, f"{BTF} is not there", without)
        return
    yield Finding("BTF", State.FOUND, False, f"{BTF}, {len(text) >> 10} KiB")
    if STORAGE_ITERATOR in text:
        yield Finding("iterator over socket storage", State.FOUND, False, "since Linux 5.9")
    else:
        yield Finding("iterator over socket storage", State.MISSING, False, "not in BTF", without)


def _namespace_cookie() -> Iterator[Finding]:
    name, without = (
        "SO_NETNS_COOKIE",
        "namespaces' cookies are asked of a connect hook instead, attached to the own cgroup for a moment",
    )
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
        try:
            made.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError as error:
            yield refusal_finding(name, False, error, without)
        else:
            yield Finding(name, State.FOUND, False, "since Linux 5.14")


def _iterator_cookie() -> Iterator[Finding]:
    without = "`connections` shows no cookies, and stale sockets are named by their addresses and ports alone"
    yield feature_finding(
        features.Feature(
            "socket cookies in iterators", features.has_iterator_cookie(), False, "5.12", without
        )
    )


def _socket_destroy() -> Iterator[Finding]:
    """Ends a socket of our own, on loopback, that nobody else knows."""
    name = "ending of stale sockets"
    without = (
        "UDP sockets stay on removed backends; needs CONFIG_INET_DIAG_DESTROY=y and CONFIG_INET_UDP_DIAG"
    )
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made,
        closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)) as netlink,
    ):
        made.bind(("127.0.0.1", 0))
        made.connect(made.getsockname())
        netlink.settimeout(2.0)
        netlink.bind((0, 0))
        netlink.send(_destroy_request(made))
        code = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
    if code:
        yield refusal_finding(name, False, OSError(code, os.strerror(code)), without)
    else:
        yield Finding(name, State.FOUND, False, "SOCK_DESTROY, CONFIG_INET_DIAG_DESTROY=y")


def _destroy_request(victim: socket.socket) -> bytes:
    """struct nlmsghdr and inet_diag_req_v2 (include/uapi/linux/inet_diag.h)."""
    port = victim.getsockname()[1]
    address = socket.inet_aton("127.0.0.1")
    cookie = victim.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
    identity = struct.pack(">HH16s16s", port, port, address, address) + struct.pack("=I", 0) + cookie
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_UDP, 0, 0, 0xFFFFFFFF) + identity
    return struct.pack("=IHHII", 16 + len(body), SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body


PROBES: dict[str, Callable[[], Iterator[Finding]]] = {
    "socket address programs": _sock_addr,
    "links to cgroups": _cgroup_links,
    "maps": _maps,
    "arrays shared by mmap": _shared_arrays,
    "batch operations on maps": _batches,
    "bpf_set_retval": _set_retval,
    "bpf_ktime_get_coarse_ns": _coarse_clock,
    "packet programs": _packets,
    "BTF": _type_information,
    "socket cookies in iterators": _iterator_cookie,
    "SO_NETNS_COOKIE": _namespace_cookie,
    "ending of stale sockets": _socket_destroy,
}
"""Name -> probe; a probe may tell several findings."""
