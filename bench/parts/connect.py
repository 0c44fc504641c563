"""connect() through a Service, and to everything else, against the same call without hooks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bench.lab import Lab, Programmed, measured
from bench.lanes import Client, Lane, Times
from bench.objects import OUTSIDE_NETWORK, PORT, TARGET_PORT, plans
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, duration, ratio_row
from pyagent.kernel import bpf_syscall as bpf
from pyagent.model.failures import KubesockError

SERVICE, STICKY, OTHER = 1.05, 1.06, 1.01

ON_LOOPBACK = 1000  # Services

ENDPOINTS = ("one", "ten", "hundred", "thousands")


def run(lab: Lab, scale: Scale) -> list[Table]:
    """Tables by number of Services; then of the hooks' own time."""
    client = Client(lab)
    tables = []
    with Programmed(lab) as programmed:
        programmed.attach()
        for services in scale.services:
            programmed.grow(services, ENDPOINTS_OF_OTHERS)
            tables += [_families(client, scale, services), _reach(client, scale, services)]
            if services == ON_LOOPBACK:
                tables.append(_on_loopback(lab, client, scale, services))
        tables.append(_hook_times(lab, client, scale, programmed))
    return tables


def _families(client: Client, scale: Scale, services: int) -> Table:
    rows = []
    for protocol in ("tcp", "udp"):
        for ipv6 in (False, True):
            times = client.run(_lanes(protocol, ipv6), scale.rounds)
            rows += _rows(times, f"{protocol.upper()} IPv{6 if ipv6 else 4}", protocol == "tcp")
    return Table(f"connect(), {services:,} Services", RATIO_COLUMNS, rows, _NOTES)


_NOTES = (
    "Hooked ÷ unhooked, round by round, from pod to pod over a veth pair. A/A is the reference's call a",
    "second time. `in range`: an address between those of Services.",
)


def _on_loopback(lab: Lab, client: Client, scale: Scale, services: int) -> Table:
    """The same work for the hooks, but less for the kernel: the harder measure."""
    rows = []
    for ipv6 in (False, True):
        lanes = [lane._replace(place=lab.loopback) for lane in _lanes("tcp", ipv6)]
        rows += _rows(client.run(lanes, scale.rounds), f"TCP IPv{6 if ipv6 else 4}", budgeted=True)
    notes = ("As above, but client and server in one namespace: the kernel has a third less to do.",)
    return Table(f"connect() over loopback, {services:,} Services", RATIO_COLUMNS, rows, notes)


def _lanes(protocol: str, ipv6: bool) -> list[Lane]:
    ten, sticky = measured("ten"), measured("sticky")
    direct = Lane("direct", "connect", False, protocol, ten.pod(0, ipv6), TARGET_PORT, ten.endpoints)
    service = direct._replace(hooked=True, address=ten.cluster_ips[ipv6], port=PORT, addresses=1)
    # All IPv6 addresses here are outside of the range of Services.
    name = "other" if ipv6 else "other, in range"
    lanes = [
        direct,
        direct._replace(name="A/A"),
        service._replace(name="through a Service"),
        service._replace(name="through one with affinity", address=sticky.cluster_ips[ipv6]),
        direct._replace(name=name, hooked=True),
    ]
    if ipv6:
        return lanes
    outside = direct._replace(name="direct, outside", address=str(OUTSIDE_NETWORK[1]))
    return [*lanes, outside, outside._replace(name="other", hooked=True)]


def _rows(times: Times, prefix: str, budgeted: bool) -> list[tuple[str, ...]]:
    budgets = {
        "through a Service": SERVICE,
        "through one with affinity": STICKY,
        "other": OTHER,
        "other, in range": OTHER,
    }
    rows = []
    for name in times.lanes:
        if name.startswith("direct"):
            continue
        reference = "direct, outside" if name == "other" and "direct, outside" in times.lanes else "direct"
        budget = budgets.get(name) if budgeted else None
        rows.append(ratio_row(f"{prefix}, {name}", times.ratio(name, reference), times.of(reference), budget))
    return rows


def _reach(client: Client, scale: Scale, services: int) -> Table:
    """Of a large Service, and of all Services in turn, whose map entries are in no cache."""
    first = next(plans(1, ENDPOINTS_OF_OTHERS))
    last = services * ENDPOINTS_OF_OTHERS
    lanes = [
        Lane("direct to any", "connect", False, "tcp", first.pod(0), TARGET_PORT, last),
        Lane("A/A, any", "connect", False, "tcp", first.pod(0), TARGET_PORT, last),
        Lane("any of them", "connect", True, "tcp", first.cluster_ips[0], PORT, services),
    ]
    references = {"A/A, any": "direct to any", "any of them": "direct to any"}
    for name in ENDPOINTS:
        plan = measured(name)
        direct, label = f"direct to {plan.endpoints}", f"Service of {plan.endpoints:,}"
        lanes += [
            Lane(direct, "connect", False, "tcp", plan.pod(0), TARGET_PORT, plan.endpoints),
            Lane(label, "connect", True, "tcp", plan.cluster_ips[0], PORT),
        ]
        references[label] = direct
    times = client.run(lanes, scale.rounds)
    rows = [
        ratio_row(
            f"TCP IPv4, {name}",
            times.ratio(name, reference),
            times.of(reference),
            None if "A/A" in name else SERVICE,
        )
        for name, reference in references.items()
    ]
    notes = (
        "Each against a direct connect() to an endpoint of the same ones, drawn at random.",
        "`any of them` dials another Service each time.",
    )
    return Table(f"connect() by endpoints, {services:,} Services", RATIO_COLUMNS, rows, notes)


def _hook_times(lab: Lab, client: Client, scale: Scale, programmed: Programmed) -> Table:
    """What the kernel's own statistics say of the programs, apart from everything around them."""
    rows = []
    for label, lane in _hook_lanes():
        statistics = bpf.enable_run_statistics()
        try:
            before = programmed.program_infos()
            client.run([lane._replace(place=lab.loopback)], min(scale.rounds, 2000))
            after = programmed.program_infos()
        finally:
            os.close(statistics)
        for hook, info in after.items():
            runs = info.run_count - before[hook].run_count
            if runs > 100:
                spent = (info.run_time_ns - before[hook].run_time_ns) / runs
                rows.append(
                    (
                        f"{hook.name.lower()}, {label}",
                        duration(spent / 1e9),
                        f"{info.verified_instructions:,}",
                    )
                )
    if not rows:
        raise KubesockError("the kernel counted no run of a hook")
    notes = (
        "Mean of bpf_stats, two clock reads included, of the same call over and over: caches are as warm as",
        "they get. Ratios above that are more than this share of their reference pay for colder ones, as",
        "applications do. The same UDP socket again: no storage of a socket is allocated.",
    )
    return Table("Time in the hooks", ("what", "mean", "instructions verified"), rows, notes)


def _hook_lanes() -> Sequence[tuple[str, Lane]]:
    ten, sticky = measured("ten"), measured("sticky")
    return (
        ("no Service", Lane("x", "connect", True, "tcp", str(OUTSIDE_NETWORK[1]), TARGET_PORT)),
        ("no Service, in range", Lane("x", "connect", True, "tcp", ten.pod(0), TARGET_PORT)),
        ("a Service", Lane("x", "connect", True, "tcp", ten.cluster_ips[0], PORT)),
        ("a Service with affinity", Lane("x", "connect", True, "tcp", sticky.cluster_ips[0], PORT)),
        ("a Service, same UDP socket", Lane("x", "reconnect", True, "udp", ten.cluster_ips[0], PORT)),
        ("no Service, same UDP socket", Lane("x", "reconnect", True, "udp", ten.pod(0), TARGET_PORT)),
        ("a Service", Lane("x", "connect", True, "tcp", ten.cluster_ips[1], PORT)),
        ("no Service", Lane("x", "self-datagram", True, "udp", str(OUTSIDE_NETWORK[1]), 0)),
        ("no Service", Lane("x", "getpeername", True, "tcp", ten.pod(0), TARGET_PORT)),
        ("a Service", Lane("x", "getpeername", True, "tcp", ten.cluster_ips[0], PORT)),
    )
