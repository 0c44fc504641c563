"""What Prometheus is told, against what happened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pyagent import __version__
from pyagent.agent.facts import Facts
from pyagent.agent.kernel_counters import KernelCounters
from pyagent.agent.metrics import Metrics
from pyagent.agent.traffic import BackendTraffic, ServiceTraffic, TrafficCounts
from pyagent.datapath.draft import Unfit
from pyagent.model.address import Family, Protocol
from pyagent.model.failures import KernelRefused
from pyagent.model.outcome import Outcome
from pyagent.model.service import ServicePortKey
from pyagent.model.source_events import Problem, SourceState
from pyagent.view.names import PortName

FAMILIES = ("IPv4", "IPv6")

KUBE_PROXY_SERIES = {
    *(
        f"kubeproxy_sync_{kind}proxy_rules_duration_seconds_{part}"
        for kind in ("", "full_", "partial_")
        for part in ("bucket", "count", "sum")
    ),
    *(f"kubeproxy_network_programming_duration_seconds_{part}" for part in ("bucket", "count", "sum")),
    *(f"kubeproxy_conntrack_reconciler_sync_duration_seconds_{part}" for part in ("bucket", "count", "sum")),
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "kubeproxy_sync_proxy_rules_service_changes_total",
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "kubeproxy_proxy_healthz_total",
    "kubeproxy_proxy_livez_total",
    "kubeproxy_conntrack_reconciler_deleted_entries_total",
}
"""Names of kube-proxy 1.36 (pkg/proxy/metrics) that mean the same here."""

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series_of(facts: Facts, read: Callable[[], KernelCounters] = KernelCounters) -> Series:
    return scrape(Metrics(facts, read))


def scrape(metrics: Metrics) -> Series:
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def facts(self) -> Facts:
        return Facts(monotonic=lambda: self.now, wall=lambda: self.now + 1_000_000)


def test_every_name_that_kube_proxy_has_with_the_same_meaning_is_there(clock: Clock) -> None:
    facts = clock.facts()
    facts.answered("healthz", 200)
    facts.answered("livez", 200)
    names = {name for name, _ in series_of(facts)}
    assert names >= KUBE_PROXY_SERIES
    assert {name for name in names if name.startswith("kubeproxy_")} == KUBE_PROXY_SERIES


def test_buckets_are_those_of_kube_proxy(clock: Clock) -> None:
    bounds: dict[str, list[str]] = {}
    for name, labels in series_of(clock.facts()):
        named = dict(labels)
        if name.endswith("_bucket") and named.get("ip_family", "IPv4") == "IPv4":
            bounds.setdefault(name, []).append(named["le"])
    sync = [*(f"{0.001 * 2**i:g}" for i in range(15)), "+Inf"]
    assert bounds["kubeproxy_sync_proxy_rules_duration_seconds_bucket"] == sync
    programming = bounds["kubeproxy_network_programming_duration_seconds_bucket"]
    assert programming[:4] == ["0.25", "0.5", "1", "2"]
    assert programming[60:64] == ["59", "60", "65", "70"]
    assert programming[-9:] == ["115", "120", "150", "180", "210", "240", "270", "300", "+Inf"]
    assert len(programming) == 2 + 59 + 12 + 7 + 1


def test_a_sync_is_counted_as_full_or_partial_and_once_in_the_sum_of_both(clock: Clock) -> None:
    facts = clock.facts()
    facts.applied(clock.now, duration=0.0015, full=True)
    facts.applied(clock.now, duration=0.5)
    facts.applied(clock.now, duration=0.004)
    series = series_of(facts)
    for family in FAMILIES:
        counts = {
            kind: value(series, f"kubeproxy_sync_{kind}proxy_rules_duration_seconds_count", ip_family=family)
            for kind in ("", "full_", "partial_")
        }
        assert counts == {"": 3, "full_": 1, "partial_": 2}
    name = "kubeproxy_sync_proxy_rules_duration_seconds_bucket"
    assert value(series, name, ip_family="IPv4", le="0.001") == 0
    assert value(series, name, ip_family="IPv4", le="0.002") == 1
    assert value(series, name, ip_family="IPv4", le="0.004") == 2  # a bound belongs to its bucket
    assert value(series, name, ip_family="IPv4", le="+Inf") == 3
    total = value(series, "kubeproxy_sync_proxy_rules_duration_seconds_sum", ip_family="IPv4")
    assert total == pytest.approx(0.5055)


def test_timestamps_show_an_update_that_waits(clock: Clock) -> None:
    facts = clock.facts()
    name = "kubeproxy_sync_proxy_rules_last_{}timestamp_seconds"
    before = series_of(facts)
    assert value(before, name.format(""), ip_family="IPv4") == 0
    assert value(before, name.format("queued_"), ip_family="IPv4") == 0
    facts.applied(clock.now)
    clock.now += 40
    facts.queued(clock.now)
    clock.now += 5
    after = series_of(facts)
    for family in FAMILIES:
        assert value(after, name.format(""), ip_family=family) == 1_001_000
        assert value(after, name.format("queued_"), ip_family=family) == 1_001_040


def test_pending_changes_become_counted_ones_when_the_plan_is_applied(clock: Clock) -> None:
    facts = clock.facts()
    name = "kubeproxy_sync_proxy_rules_{}_changes_{}"
    facts.queued(clock.now, services=2, endpoints=5)
    pending = series_of(facts)
    assert value(pending, name.format("service", "pending")) == 2
    assert value(pending, name.format("endpoint", "pending")) == 5
    facts.applied(clock.now, services=2, endpoints=5, writes=31)
    done = series_of(facts)
    assert value(done, name.format("service", "pending")) == 0
    assert value(done, name.format("service", "total")) == 2
    assert value(done, name.format("endpoint", "total")) == 5
    assert value(done, "kubesock_plan_writes_total") == 31


def test_a_failed_plan_is_counted_and_keeps_its_changes_pending(clock: Clock) -> None:
    facts = clock.facts()
    facts.queued(clock.now, services=1)
    facts.apply_failed(clock.now, "map frontends is full")
    series = series_of(facts)
    assert value(series, "kubesock_sync_failures_total") == 1
    assert value(series, "kubeproxy_sync_proxy_rules_service_changes_pending") == 1
    assert value(series, "kubesock_ready") == 0


def test_network_programming_latency_is_observed_for_each_slice(clock: Clock) -> None:
    facts = clock.facts()
    latencies = [(Family.IPV4, 0.2), (Family.IPV4, 0.3), (Family.IPV4, 61.0), (Family.IPV6, 3.0)]
    facts.applied(clock.now, latencies=latencies, waited=0.002)
    series = series_of(facts)
    name = "kubeproxy_network_programming_duration_seconds"
    assert value(series, f"{name}_count", ip_family="IPv4") == 3
    assert value(series, f"{name}_count", ip_family="IPv6") == 1
    assert value(series, f"{name}_bucket", ip_family="IPv4", le="0.25") == 1
    assert value(series, f"{name}_bucket", ip_family="IPv4", le="60") == 2
    assert value(series, f"{name}_bucket", ip_family="IPv4", le="65") == 3
    assert value(series, "kubesock_change_duration_seconds_bucket", le="0.002") == 1


def test_answers_of_health_pages_are_counted_by_status(clock: Clock) -> None:
    facts = clock.facts()
    for status in (200, 200, 503):
        facts.answered("healthz", status)
    facts.answered("livez", 200)
    series = series_of(facts)
    assert value(series, "kubeproxy_proxy_healthz_total", code="200") == 2
    assert value(series, "kubeproxy_proxy_healthz_total", code="503") == 1
    assert value(series, "kubeproxy_proxy_livez_total", code="200") == 1


def test_services_without_local_endpoints_and_destroyed_sockets_are_told_by_family(clock: Clock) -> None:
    facts = clock.facts()
    facts.local_endpoints({("external", Family.IPV6): 3})
    facts.sockets_destroyed({Family.IPV4: 2}, 0.01)
    facts.sockets_destroyed({Family.IPV4: 1, Family.IPV6: 4}, 0.01)
    series = series_of(facts)
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
    assert value(series, name, traffic_policy="external", ip_family="IPv6") == 3
    assert value(series, name, traffic_policy="internal", ip_family="IPv6") == 0
    name = "kubeproxy_conntrack_reconciler_deleted_entries_total"
    assert (value(series, name, ip_family="IPv4"), value(series, name, ip_family="IPv6")) == (3, 4)
    assert value(series, "kubesock_stale_sockets_destroyed_total") == 7


def test_our_own_state_is_told(clock: Clock) -> None:
    facts = clock.facts()
    key = ServicePortKey("shop", "web", "http", Protocol.TCP, Family.IPV4)
    facts.unfit([Unfit(key, "frontends")])
    facts.problem(Problem("Service", "shop", "bad", "spec.ports", "port out of range"))
    facts.hooks([("connect4", True), ("sendmsg6", False)])
    facts.repaired("connect4")
    facts.source_state(SourceState("Service", "watching"))
    facts.source_state(SourceState("Service", "disconnected", "connection refused"))
    clock.now += 12
    series = series_of(facts)
    assert value(series, "kubesock_services_unfit") == 1
    assert value(series, "kubesock_problems") == 1
    assert value(series, "kubesock_hook_attached", hook="connect4") == 1
    assert value(series, "kubesock_hook_attached", hook="sendmsg6") == 0
    assert value(series, "kubesock_repairs_total") == 1
    assert value(series, "kubesock_watch_age_seconds", resource="Service") == 12
    assert value(series, "kubesock_watch_disconnects_total", resource="Service") == 1
    (build,) = [dict(labels) for name, labels in series if name == "kubesock_build_info"]
    assert build["version"] == __version__
    assert value(series, "process_resident_memory_bytes") > 1_000_000


def test_kernel_counters_are_read_at_each_scrape(clock: Clock) -> None:
    counts = {Outcome.TRANSLATED: 7}
    read = Metrics(
        clock.facts(),
        lambda: KernelCounters(counts, map_entries={"frontends": 3}, map_capacity={"frontends": 65536}),
    )
    first = scrape(read)
    counts[Outcome.TRANSLATED] = 9
    second = scrape(read)
    name = "kubesock_outcomes_total"
    assert value(first, name, outcome="translated") == 7
    assert value(second, name, outcome="translated") == 9
    assert {dict(labels)["outcome"] for found, labels in second if found == name} == {
        o.label for o in Outcome
    }
    assert value(second, "kubesock_map_entries", map="frontends") == 3
    assert value(second, "kubesock_map_capacity", map="frontends") == 65536


def test_traffic_is_told_by_service_port_and_by_backend(clock: Clock) -> None:
    port = PortName(4, 104, "shop", "web", "http", "TCP", "IPv6", "ClusterIP", 0)
    web = {"namespace": "shop", "service": "web", "port": "http", "protocol": "TCP", "ip_family": "IPv6"}
    traffic = TrafficCounts((ServiceTraffic(port, 7, 2, 3),), (BackendTraffic(port, "[fd00::1]:80", 5, 1),))
    series = series_of(clock.facts(), lambda: KernelCounters(traffic=traffic, sockets=3, sockets_age=0.5))
    assert value(series, "kubesock_service_chosen_total", **web) == 7
    assert value(series, "kubesock_service_refused_total", **web) == 2
    assert value(series, "kubesock_service_sockets", **web) == 3
    assert value(series, "kubesock_backend_chosen_total", backend="[fd00::1]:80", **web) == 5
    assert value(series, "kubesock_backend_sockets", backend="[fd00::1]:80", **web) == 1
    assert value(series, "kubesock_sockets") == 3
    assert value(series, "kubesock_sockets_age_seconds") == 0.5


def test_sockets_that_nobody_can_list_are_not_told_as_none_open(clock: Clock) -> None:
    port = PortName(4, 104, "shop", "web", "http", "TCP", "IPv4", "ClusterIP", 0)
    traffic = TrafficCounts((ServiceTraffic(port, 7, 0, None),))
    names = {name for name, _ in series_of(clock.facts(), lambda: KernelCounters(traffic=traffic))}
    assert "kubesock_service_chosen_total" in names
    assert not {"kubesock_service_sockets", "kubesock_sockets"} & names


@pytest.mark.parametrize("error", [OSError("gone"), KernelRefused("bpf: operation not permitted")])
def test_maps_that_cannot_be_read_are_counted_and_the_rest_is_served(clock: Clock, error: Exception) -> None:
    def fail() -> KernelCounters:
        raise error

    metrics = Metrics(clock.facts(), fail)
    scrape(metrics)
    series = scrape(metrics)
    assert value(series, "kubesock_collection_errors_total") == 2
    assert "kubesock_outcomes_total" not in {name for name, _ in series}
    assert "kubesock_ready" in {name for name, _ in series}
