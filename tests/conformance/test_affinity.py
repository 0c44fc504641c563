"""sessionAffinity: ClientIP keeps a client on its endpoint, for as long as it says."""

from __future__ import annotations

import time

import pytest

from tests.conformance.ground.nodes import Cluster
from tests.conformance.ground.objects import Address, Object, Pod, both, service, slices
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.dialling import WAYS, Way

pytestmark = pytest.mark.kernel

WEB = Address("10.96.0.10", "fd44:10:96::10")
OUTSIDE = Address("203.0.113.10", "2001:db8::10")
NODE_PORT = 30080

ServicePort = tuple[str, str]  # protocol, family: each has an affinity of its own
Seen = dict[str, dict[ServicePort, set[str]]]


def web(seconds: int | None, affinity: str = "ClientIP") -> Object:
    config = {} if seconds is None else {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}
    made = service("web", WEB, both(80, node_port=NODE_PORT), sessionAffinity=affinity, **config)
    made["spec"]["externalIPs"] = [OUTSIDE.ipv4, OUTSIDE.ipv6]
    return made


def endpoints(cluster: Cluster, *without: str) -> list[Object]:
    return slices("web", *(pod for name, pod in cluster.pods.items() if name not in without))


def backends(cluster: Cluster, targets: list[tuple[Address | Pod, int]], times: int = 4) -> Seen:
    """Who answered each client, by service port."""
    seen: Seen = {client.pod.name: {} for client in cluster.clients}
    for client in cluster.clients:
        for way in WAYS:
            found = seen[client.pod.name].setdefault(_service_port(way), set())
            for target, port in targets:
                answers = client.ask(way, target, port, times)
                assert all(isinstance(answer, Reply) for answer in answers), answers
                found.update(answer.pod for answer in answers if isinstance(answer, Reply))
    return seen


def _service_port(way: Way) -> ServicePort:
    return way.protocol, "IPv6" if way.family == 6 else "IPv4"


def is_held(seen: Seen) -> bool:
    return all(len(names) == 1 for by_port in seen.values() for names in by_port.values())


def test_a_client_stays_on_its_endpoint_through_every_frontend(cluster: Cluster) -> None:
    cluster.put(web(10_800), endpoints(cluster))
    targets: list[tuple[Address | Pod, int]] = [(WEB, 80), (OUTSIDE, 80)]
    targets += [(cluster[node], NODE_PORT) for node in ("node-1", "node-2", "node-3")]
    seen = backends(cluster, targets)
    assert is_held(seen)
    spread = set().union(*(names for by_port in seen.values() for names in by_port.values()))
    assert len(spread) > 1, "clients and service ports do not share a choice"


def test_without_a_timeout_the_default_holds(cluster: Cluster) -> None:
    cluster.put(web(None), endpoints(cluster))
    assert is_held(backends(cluster, [(WEB, 80)], times=16))


def test_affinity_is_switched_live(cluster: Cluster) -> None:
    for affinity in ("None", "ClientIP", "None", "ClientIP"):
        cluster.put(web(60, affinity), endpoints(cluster))
        assert is_held(backends(cluster, [(WEB, 80)], times=8)) == (affinity == "ClientIP")


def test_it_ends_when_a_client_stays_away_and_is_renewed_by_each_connection(cluster: Cluster) -> None:
    cluster.put(web(2), endpoints(cluster))
    first = backends(cluster, [(WEB, 80)], times=1)
    begun = time.monotonic()
    while time.monotonic() < begun + 3.5:
        time.sleep(0.2)
        assert backends(cluster, [(WEB, 80)], times=1) == first, "renewed all the time"
    time.sleep(3.1)
    assert backends(cluster, [(WEB, 80)], times=1) != first, "of 16 choices among 10 not one is new"


def test_only_endpoints_that_may_be_chosen_count(cluster: Cluster) -> None:
    cluster.put(web(600), endpoints(cluster))
    (name,) = backends(cluster, [(WEB, 80)])["client-1"]["TCP", "IPv4"]
    cluster.put(web(600), endpoints(cluster, name))
    seen = backends(cluster, [(WEB, 80)])
    assert is_held(seen)
    assert seen["client-1"]["TCP", "IPv4"] != {name}
    cluster.put(web(600), endpoints(cluster))
    assert backends(cluster, [(WEB, 80)]) == seen, "whoever comes back does not get its clients back"


def test_it_outlives_a_restart_of_the_agent(cluster: Cluster) -> None:
    cluster.put(web(600), endpoints(cluster))
    before = backends(cluster, [(WEB, 80)])
    cluster.stop_agent("node-1")
    assert backends(cluster, [(WEB, 80)]) == before
    cluster.start_agents()
    assert backends(cluster, [(WEB, 80)]) == before
