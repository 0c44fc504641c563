"""Unconnected UDP, getpeername() and accept(): what runs most often for traffic that is no Service's."""

from __future__ import annotations

from bench.lab import Lab, Programmed, Switch, measured
from bench.lanes import Client, Lane
from bench.objects import OUTSIDE_NETWORK, PORT, TARGET_PORT
from bench.ratios import block_ratios, summarize
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, ratio_row

DATAGRAMS = 1.15
SERVICES = 1000
BLOCK = 250


def run(lab: Lab, scale: Scale) -> list[Table]:
    client = Client(lab)
    with Programmed(lab) as programmed:
        programmed.grow(SERVICES, ENDPOINTS_OF_OTHERS)
        with Switch(programmed) as switch:
            attached = _attached(client, scale, switch)
        return [attached, _hooked(client, scale), _trips(client, scale), _calls(client, scale)]


def _self(name: str, hooked: bool, ipv6: bool, in_range: bool = False) -> Lane:
    outside = "::1" if ipv6 else str(OUTSIDE_NETWORK[1])
    address = measured("ten").pod(0, ipv6) if in_range else outside
    return Lane(name, "self-datagram", hooked, "udp", address, 0)


def _attached(client: Client, scale: Scale, switch: Switch) -> Table:
    """Attached ÷ detached: a hook attached anywhere makes the kernel look for one at every call."""

    def is_on(block: int) -> bool:
        return block % 4 in (1, 2)

    rows = []
    for ipv6 in (False, True):
        lanes = [
            _self("hooked", True, ipv6),
            _self("hooked, in range", True, ipv6, in_range=True),
            _self("unhooked", False, ipv6),
        ]
        found = client.run_blocks(lanes, scale.blocks, BLOCK, lambda block: switch.turn(is_on(block)))
        pairs = range(0, scale.blocks - 1, 2)
        on = [found[i] if is_on(i) else found[i + 1] for i in pairs]
        off = [found[i + 1] if is_on(i) else found[i] for i in pairs]
        quiet = [found[i] if not is_on(i) else found[i + 1] for i in pairs]
        for name in found[0].lanes:
            reference = summarize([t for times in off for t in times.lanes[name]])
            compared = block_ratios([t.lanes[name] for t in on], [t.lanes[name] for t in off])
            budget = DATAGRAMS if name in ("hooked", "hooked, in range") else None
            rows.append(
                ratio_row(f"IPv{6 if ipv6 else 4}, {_spelt(name)}", summarize(compared), reference, budget)
            )
        neighbours = block_ratios(
            [t.lanes["hooked"] for t in quiet[1:-1:2]], [t.lanes["hooked"] for t in quiet[2::2]]
        )
        reference = summarize([t for times in off for t in times.lanes["hooked"]])
        rows.append(ratio_row(f"IPv{6 if ipv6 else 4}, A/A", summarize(neighbours), reference))
    notes = (
        f"`sendto` + `recvfrom` with names, to an address that is no Service. Blocks of {BLOCK} rounds with",
        "the hooks attached and without, in the order -++-; ratios of the medians of neighbouring blocks;",
        "A/A: of neighbouring blocks without. Others' hooks of these types on the machine would be in both.",
    )
    return Table("Datagrams that are no Service's: attached ÷ detached", RATIO_COLUMNS, rows, notes)


def _spelt(name: str) -> str:
    return name.replace("/0", ", sendto").replace("/1", ", recvfrom")


def _hooked(client: Client, scale: Scale) -> Table:
    rows = []
    for ipv6 in (False, True):
        lanes = [
            _self("direct", False, ipv6),
            _self("A/A", False, ipv6),
            _self("hooked", True, ipv6),
            _self("hooked, in range", True, ipv6, in_range=True),
        ]
        times = client.run(lanes, scale.rounds)
        for name in times.lanes:
            lane, _, column = name.partition("/") if not name.startswith("A/A") else ("A/A", "", name[4:])
            if lane == "direct":
                continue
            reference = f"direct/{column}" if column else "direct"
            rows.append(
                ratio_row(
                    f"IPv{6 if ipv6 else 4}, {_spelt(name)}",
                    times.ratio(name, reference),
                    times.of(reference),
                )
            )
    notes = ("Sockets inside and outside of the hooked cgroup, hooks attached all the time, round by round.",)
    return Table("Datagrams that are no Service's: hooked ÷ unhooked", RATIO_COLUMNS, rows, notes)


def _trips(client: Client, scale: Scale) -> Table:
    rows = []
    one = measured("one")
    for ipv6 in (False, True):
        pod = one.pod(0, ipv6)
        frontend = one.cluster_ips[ipv6]
        lanes = [
            Lane("direct", "trip", False, "udp", pod, TARGET_PORT, answerer=pod),
            Lane("A/A", "trip", False, "udp", pod, TARGET_PORT, answerer=pod),
            Lane("hooked, direct", "trip", True, "udp", pod, TARGET_PORT, answerer=pod),
            Lane("through a Service", "trip", True, "udp", frontend, PORT, answerer=pod),
        ]
        times = client.run(lanes, scale.rounds)
        rows += [
            ratio_row(
                f"IPv{6 if ipv6 else 4}, {lane.name}", times.ratio(lane.name, "direct"), times.of("direct")
            )
            for lane in lanes[1:]
        ]
    notes = ("One question and its answer over unconnected sockets; the answering socket is not hooked.",)
    return Table("UDP round trip", RATIO_COLUMNS, rows, notes)


def _calls(client: Client, scale: Scale) -> Table:
    rows = []
    one = measured("one")
    for ipv6 in (False, True):
        pod = one.pod(0, ipv6)
        for operation, port in (("getpeername", TARGET_PORT), ("accept", 0)):
            lanes = [
                Lane("direct", operation, False, "tcp", pod, port),
                Lane("A/A", operation, False, "tcp", pod, port),
                Lane("hooked", operation, True, "tcp", pod, port),
            ]
            if operation == "getpeername":
                lanes.append(
                    Lane("hooked, of a Service", operation, True, "tcp", one.cluster_ips[ipv6], PORT)
                )
            times = client.run(lanes, scale.rounds)
            prefix = f"{operation}() IPv{6 if ipv6 else 4}"
            rows += [
                ratio_row(f"{prefix}, {lane.name}", times.ratio(lane.name, "direct"), times.of("direct"))
                for lane in lanes[1:]
            ]
    return Table("getpeername() and accept()", RATIO_COLUMNS, rows)
