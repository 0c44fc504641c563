"""Metrics of what the kernel holds and counts.

Service ports have series once they were dialled on this node or have open sockets: on a node of a cluster
with thousands of Services most never are.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from pyagent.agent.kernel_counters import KernelCounters
from pyagent.agent.metric_families import Rows, counters, gauge, gauges
from pyagent.agent.traffic import TrafficCounts
from pyagent.model.outcome import Outcome
from pyagent.view.names import PortName

SERVICE_LABELS = ("namespace", "service", "port", "protocol", "ip_family")


def kernel_metrics(read: KernelCounters) -> Iterator[Metric]:
    """The families, always the same ones; those of backends are empty where nobody asked for them."""
    yield counters(
        "kubesock_outcomes_total",
        "What the hooks did, by outcome",
        ("outcome",),
        (((outcome.label,), read.outcomes.get(outcome, 0)) for outcome in Outcome),
    )
    yield counters(
        "kubesock_outside_outcomes_total",
        "New flows and refused packets from outside the cluster, by outcome",
        ("outcome",),
        (((outcome.label,), read.outside_outcomes.get(outcome, 0)) for outcome in Outcome),
    )
    yield gauges(
        "kubesock_outside_device",
        "1 while packets for Services are served at the device",
        ("device",),
        (((device,), served) for device, served in read.outside_devices.items()),
    )
    for name, text, by_map in (
        ("kubesock_map_entries", "Entries in use, by map", read.map_entries),
        ("kubesock_map_capacity", "Entries that a map has room for", read.map_capacity),
        ("kubesock_map_memory_bytes", "Kernel memory of a map, in bytes", read.map_memory),
    ):
        yield gauges(name, text, ("map",), (((map_name,), n) for map_name, n in by_map.items()))
    yield gauges(
        "kubesock_hook_effective",
        "1 while an attached hook runs for the cgroup, as the kernel's effective list says",
        ("hook",),
        (((hook,), runs) for hook, runs in read.hooks_effective.items()),
    )
    yield from _services(read.traffic)
    yield from _backends(read.traffic)
    if read.sockets is not None:
        yield gauge("kubesock_sockets", "Open sockets that were translated", read.sockets)
        yield gauge(
            "kubesock_sockets_age_seconds", "Seconds since open sockets were counted", read.sockets_age
        )


def _services(traffic: TrafficCounts) -> Iterator[Metric]:
    rows = traffic.services
    yield counters(
        "kubesock_service_chosen_total",
        "Choices of a backend for a Service since the agent started, by service port",
        SERVICE_LABELS,
        [(_labels(one.port), one.chosen) for one in rows],
    )
    yield counters(
        "kubesock_service_refused_total",
        "Refused dials of a Service, by service port",
        SERVICE_LABELS,
        [(_labels(one.port), one.refused) for one in rows],
    )
    yield gauges(
        "kubesock_service_sockets",
        "Open sockets that were translated, by service port",
        SERVICE_LABELS,
        [(_labels(one.port), one.sockets) for one in rows if one.sockets is not None],
    )


def _backends(traffic: TrafficCounts) -> Iterator[Metric]:
    labels = (*SERVICE_LABELS, "backend")
    chosen: Rows = [((*_labels(one.port), one.backend), one.chosen) for one in traffic.backends]
    sockets: Rows = [
        ((*_labels(one.port), one.backend), one.sockets)
        for one in traffic.backends
        if one.sockets is not None
    ]
    yield counters(
        "kubesock_backend_chosen_total", "Choices of a backend, with --metrics-by=backend", labels, chosen
    )
    yield gauges(
        "kubesock_backend_sockets",
        "Open sockets on a backend, with --metrics-by=backend",
        labels,
        sockets,
    )


def _labels(port: PortName) -> tuple[str, ...]:
    return (port.namespace, port.name, port.port, port.protocol, port.family)
