"""Unconnected UDP, getpeername() and accept(): what runs most often for traffic that is no Service's."""

from __future__ import annotations

from bench.lab import Lab, Programmed, Switch, hooks_of_others, measured
from bench.lanes import Client, Lane, Times
from bench.objects import OUTSIDE_NETWORK, PORT, TARGET_PORT
from bench.ratios import block_ratios, summarize
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, ratio_row

DATAGRAMS = 1.15
SERVICES = 1000
BLOCK = 250
PARTS = ("", ", sendto", ", recvfrom")


def run(lab: Lab, scale: Scale) -> list[Table]:
    client = Client(lab)
    with Programmed(lab) as programmed:
        programmed.grow(SERVICES, ENDPOINTS_OF_OTHERS)
        with Switch(programmed) as switch:
            others = hooks_of_others(programmed)
            attached = _attached(lab, client, scale, switch, others)
        return [attached, _hooked(lab, client, scale), _trips(client, scale), _calls(lab, client, scale)]


def _lanes(lab: Lab, ipv6: bool) -> list[Lane]:
    outside = "::1" if ipv6 else str(OUTSIDE_NETWORK[1])
    direct = Lane("direct", "self-datagram", False, "udp", outside, 0, place=lab.loopback)
    within = direct._replace(name="direct, in range", address=measured("ten").pod(0, ipv6))
    return [
        direct,
        within,
        direct._replace(name="A/A"),
        direct._replace(name="hooked", hooked=True),
        within._replace(name="hooked, in range", hooked=True),
    ]


def _attached(lab: Lab, client: Client, scale: Scale, switch: Switch, others: int) -> Table:
    """Attached ÷ detached: a hook attached anywhere makes the kernel look for one at every call."""

    def is_on(block: int) -> bool:
        return block % 4 in (1, 2)

    rows = []
    for ipv6 in (False, True):
        found = client.run_blocks(
            _lanes(lab, ipv6), scale.blocks, BLOCK, lambda block: switch.turn(is_on(block))
        )
        on = [times for block, times in enumerate(found) if is_on(block)]
        off = [times for block, times in enumerate(found) if not is_on(block)]
        family = f"IPv{6 if ipv6 else 4}"
        rows.append(_blocks_row(f"{family}, A/A", off[1:-1:2], off[2::2], "hooked"))
        for lane in ("hooked", "hooked, in range"):
            rows += [
                _blocks_row(f"{family}, {lane}{part}", on, off, lane + part, None if part else DATAGRAMS)
                for part in PARTS
            ]
        rows.append(_blocks_row(f"{family}, not hooked", on, off, "direct"))
    notes: tuple[str, ...] = (
        f"`sendto` + `recvfrom` with names, to an address that is no Service. Blocks of {BLOCK} rounds with",
        "the hooks attached and without, in the order -++-; ratios of the medians of neighbouring blocks;",
        "A/A: of neighbouring blocks without.",
        "`in range`: the address lies between those of Services.",
    )
    if others:
        notes += (
            f"{others} hooks of others were attached to other cgroups: the kernel looked for hooks all the",
            "time, which hides that part of the price (`not hooked` pays it alone). Use a quiet machine.",
        )
    return Table("Datagrams that are no Service's: attached ÷ detached", RATIO_COLUMNS, rows, notes)


def _blocks_row(
    what: str, on: list[Times], off: list[Times], lane: str, budget: float | None = None
) -> tuple[str, ...]:
    pairs = min(len(on), len(off))
    compared = block_ratios(
        [times.lanes[lane] for times in on[:pairs]], [times.lanes[lane] for times in off[:pairs]]
    )
    reference = summarize([time for times in off for time in times.lanes[lane]])
    return ratio_row(what, summarize(compared), reference, budget)


def _hooked(lab: Lab, client: Client, scale: Scale) -> Table:
    rows = []
    compared = (("A/A", "direct"), ("hooked", "direct"), ("hooked, in range", "direct, in range"))
    for ipv6 in (False, True):
        times = client.run(_lanes(lab, ipv6), scale.rounds)
        rows += [
            ratio_row(
                f"IPv{6 if ipv6 else 4}, {lane}{part}",
                times.ratio(lane + part, reference + part),
                times.of(reference + part),
            )
            for lane, reference in compared
            for part in PARTS
        ]
    notes = ("Sockets inside and outside of the hooked cgroup, hooks attached all the time, round by round.",)
    return Table("Datagrams that are no Service's: hooked ÷ unhooked", RATIO_COLUMNS, rows, notes)


def _trips(client: Client, scale: Scale) -> Table:
    rows = []
    one = measured("one")
    for ipv6 in (False, True):
        pod = one.pod(0, ipv6)
        direct = Lane("direct", "trip", False, "udp", pod, TARGET_PORT, answerer=pod)
        lanes = [
            direct,
            direct._replace(name="A/A"),
            direct._replace(name="hooked, direct", hooked=True),
            direct._replace(name="through a Service", hooked=True, address=one.cluster_ips[ipv6], port=PORT),
        ]
        rows += _against_direct(client.run(lanes, scale.rounds), f"IPv{6 if ipv6 else 4}")
    notes = ("One question and its answer over unconnected sockets; the answering socket is not hooked.",)
    return Table("UDP round trip", RATIO_COLUMNS, rows, notes)


def _calls(lab: Lab, client: Client, scale: Scale) -> Table:
    rows = []
    one = measured("one")
    for ipv6 in (False, True):
        pod, frontend = one.pod(0, ipv6), one.cluster_ips[ipv6]
        peer = Lane("direct", "getpeername", False, "tcp", pod, TARGET_PORT, place=lab.loopback)
        accept = Lane("direct", "accept", False, "tcp", pod, 0, place=lab.loopback)
        service = peer._replace(name="hooked, of a Service", hooked=True, address=frontend, port=PORT)
        for direct, more in ((peer, [service]), (accept, [])):
            lanes = [direct, direct._replace(name="A/A"), direct._replace(name="hooked", hooked=True), *more]
            times = client.run(lanes, scale.rounds)
            rows += _against_direct(times, f"{direct.operation}() IPv{6 if ipv6 else 4}")
    return Table("getpeername() and accept()", RATIO_COLUMNS, rows)


def _against_direct(times: Times, prefix: str) -> list[tuple[str, ...]]:
    reference = times.of("direct")
    return [
        ratio_row(f"{prefix}, {name}", times.ratio(name, "direct"), reference)
        for name in times.lanes
        if name != "direct" and not name.endswith((", sendto", ", server", ", recvfrom"))
    ]
