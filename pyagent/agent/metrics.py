"""Metrics for Prometheus: kube-proxy's names where the meaning is the same, ours beside them.

Nothing is counted here: all is read from `Facts` and from the kernel's maps when asked for. Not to be
imported before a scrape, see `health.exposition`.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pyagent import __version__
from pyagent.agent.facts import Facts
from pyagent.agent.facts_view import HEALTH_PAGES, View
from pyagent.agent.kernel_counters import KernelCounters
from pyagent.agent.kernel_metrics import kernel_metrics
from pyagent.agent.metric_families import counter, counters, gauge, gauges, histograms
from pyagent.model.failures import KubesockError

log = logging.getLogger(__name__)


class Metrics:
    """The exposition of one agent. Not thread-safe: one thread scrapes."""

    def __init__(self, facts: Facts, kernel_counters: Callable[[], KernelCounters]) -> None:
        """Args: kernel_counters: reads the maps; may raise KubesockError or OSError."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Agent(facts, kernel_counters))
        ProcessCollector(registry=self._registry)

    def exposition(self) -> tuple[bytes, str]:
        """Prometheus's text format and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def families(self) -> Iterator[Metric]:
        """What the exposition is made of."""
        return iter(self._registry.collect())


class _Agent(Collector):
    def __init__(self, facts: Facts, kernel_counters: Callable[[], KernelCounters]) -> None:
        self._facts = facts
        self._read_kernel = kernel_counters
        self._errors = 0

    def describe(self) -> Iterable[Metric]:
        return ()  # names are known only from collecting, which must wait for a scrape

    def collect(self) -> Iterator[Metric]:
        view = self._facts.view()
        yield from _kube_proxy_syncs(view)
        yield from _kube_proxy_changes(view)
        yield from _agent(view)
        yield from self._kernel()
        yield counter(
            "kubesock_collection_errors_total", "Scrapes that could not read the kernel's maps", self._errors
        )

    def _kernel(self) -> Iterator[Metric]:
        try:
            read = self._read_kernel()
        except (KubesockError, OSError) as error:
            self._errors += 1
            log.warning("a scrape could not read the kernel's maps: %s", error)
            return
        yield from kernel_metrics(read)


def _kube_proxy_syncs(view: View) -> Iterator[Metric]:
    # One plan serves all families; kube-proxy runs once for each, and its queries ask by family.
    families = [family.label for family in view.families]
    both = view.full_syncs.merged(view.partial_syncs)
    for kind, histogram in (("", both), ("full_", view.full_syncs), ("partial_", view.partial_syncs)):
        yield histograms(
            f"kubeproxy_sync_{kind}proxy_rules_duration_seconds",
            f"Computing and writing {kind.replace('_', '') or 'any'} plan of map writes, in seconds",
            ("ip_family",),
            {(family,): histogram for family in families},
        )
    yield gauges(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "The last time the maps were successfully written",
        ("ip_family",),
        (((f.label,), health.last_updated if view.planned else 0) for f, health in view.families.items()),
    )
    yield gauges(
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "The last time an update was queued",
        ("ip_family",),
        (((family,), view.last_queued) for family in families),
    )
    yield histograms(
        "kubeproxy_network_programming_duration_seconds",
        "From the trigger time of an EndpointSlice's change to the kernel, in seconds",
        ("ip_family",),
        {(family.label,): view.network_programming[family] for family in view.families},
    )
    yield histograms(
        "kubeproxy_conntrack_reconciler_sync_duration_seconds",
        "Looking for sockets on backends that no longer serve, in seconds",
        ("ip_family",),
        {(family,): view.reaps for family in families},
    )
    yield counters(
        "kubeproxy_conntrack_reconciler_deleted_entries_total",
        "Sockets destroyed because their backend no longer serves",
        ("ip_family",),
        (((family.label,), count) for family, count in view.sockets_destroyed.items()),
    )


def _kube_proxy_changes(view: View) -> Iterator[Metric]:
    for kind, pending, total in (
        ("endpoint", view.endpoints_pending, view.endpoint_changes),
        ("service", view.services_pending, view.service_changes),
    ):
        name = f"kubeproxy_sync_proxy_rules_{kind}_changes"
        yield gauge(f"{name}_pending", f"Pending {kind} changes", pending)
        yield counter(f"{name}_total", f"Cumulative {kind} changes", total)
    yield gauges(
        "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
        "Service ports with a Local traffic policy and no endpoint on this node",
        ("traffic_policy", "ip_family"),
        (
            ((policy, family.label), view.no_local_endpoints.get((policy, family), 0))
            for policy in ("internal", "external")
            for family in view.families
        ),
    )
    for page in HEALTH_PAGES:
        yield counters(
            f"kubeproxy_proxy_{page}_total",
            f"Answers of /{page}, by HTTP status",
            ("code",),
            (((str(code),), count) for (asked, code), count in view.answers.items() if asked == page),
        )


def _agent(view: View) -> Iterator[Metric]:
    yield gauges(
        "kubesock_build_info",
        "A metric with a constant value of 1",
        ("version", "python", "kernel"),
        [((__version__, platform.python_version(), platform.release()), 1)],
    )
    yield gauge("kubesock_ready", "1 once the node is served, as /readyz", view.ready)
    yield gauge("kubesock_observing", "1 while nothing is meant to be attached: --observe", view.observing)
    yield gauge("kubesock_problems", "Things in the objects that cannot be used", len(view.problems))
    yield gauge("kubesock_services_unfit", "Things for which a map has no room", len(view.unfit))
    yield gauges(
        "kubesock_hook_attached",
        "1 while the hook is attached, by hook",
        ("hook",),
        (((hook,), attached) for hook, attached in view.hooks.items()),
    )
    yield counter("kubesock_repairs_total", "Hooks and pins that were gone and were put back", view.repairs)
    yield gauges(
        "kubesock_watch_age_seconds",
        "Seconds since this kind's objects were last known to be current; 0 while its watch is open",
        ("resource",),
        (((kind,), watch.age) for kind, watch in view.watches.items()),
    )
    yield counters(
        "kubesock_watch_disconnects_total",
        "Times that a watch was lost, by kind",
        ("resource",),
        (((kind,), watch.disconnects) for kind, watch in view.watches.items()),
    )
    yield counter("kubesock_plan_writes_total", "Map writes carried out", view.writes)
    yield counter("kubesock_sync_failures_total", "Plans that could not be carried out", view.failures)
    yield histograms(
        "kubesock_change_duration_seconds",
        "From the arrival of a change to the kernel, in seconds",
        (),
        {(): view.changes},
    )
    yield counter(
        "kubesock_stale_sockets_destroyed_total",
        "Sockets destroyed because their backend no longer serves",
        sum(view.sockets_destroyed.values()),
    )
