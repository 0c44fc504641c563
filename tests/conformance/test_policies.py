"""Which endpoints a client may get: traffic policies, terminating endpoints, topology hints."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.ground.nodes import Cluster
from tests.conformance.ground.objects import (
    Address,
    Dualstack,
    Endpoint,
    Object,
    Pod,
    balanced,
    both,
    ready,
    service,
    slices,
    terminating,
    unready,
)
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.dialling import WAYS

pytestmark = pytest.mark.kernel

WEB = Address("10.96.0.10", "fd44:10:96::10")
OUTSIDE = Address("203.0.113.10", "2001:db8::10")
NOBODY = {"ECONNREFUSED"}
NONE_HERE = {"EHOSTUNREACH"}
NODE_PORT = 30080
ON_NODE_1, ON_NODE_2 = ("client-1", "node-1"), ("client-2", "node-2")


def seen(cluster: Cluster, target: Dualstack, port: int = 80) -> dict[str, set[str]]:
    """What the pod and the host of each node see, by node: both see the same."""
    by_node = {}
    for node, clients in (("node-1", ON_NODE_1), ("node-2", ON_NODE_2)):
        pod, host = (cluster.place(name).who(target, port) for name in clients)
        assert pod == host, f"pod and host of {node} differ"
        by_node[node] = pod
    return by_node


def on_nodes(first: set[str], second: set[str]) -> Mapping[str, set[str]]:
    return {"node-1": first, "node-2": second}


@pytest.mark.parametrize("server", ["a1", "node-1"], ids=["pod", "hostNetwork"])
def test_internal_policy_local_keeps_clients_on_their_node(cluster: Cluster, server: str) -> None:
    web = service("web", WEB, internalTrafficPolicy="Local")
    cluster.put(web, slices("web", cluster[server]))
    assert seen(cluster, WEB) == on_nodes({server}, NONE_HERE)
    cluster.put(web, slices("web", cluster[server], cluster["a2"], cluster["a3"]))
    assert seen(cluster, WEB) == on_nodes({server}, {"a2"})
    cluster.put(service("web", WEB), slices("web", cluster[server], cluster["a2"]))
    assert seen(cluster, WEB) == on_nodes({server, "a2"}, {server, "a2"})


def test_internal_policy_local_refuses_where_there_is_no_endpoint_at_all(cluster: Cluster) -> None:
    web = service("web", WEB, internalTrafficPolicy="Local")
    for endpoints in ((), (unready(cluster["a1"]),), (terminating(cluster["a1"], serving=False),)):
        cluster.put(web, slices("web", *endpoints))
        assert seen(cluster, WEB) == on_nodes(NOBODY, NOBODY)


def test_an_endpoint_without_a_node_is_nobodys_local_one(cluster: Cluster) -> None:
    cluster.put(
        service("web", WEB, internalTrafficPolicy="Local"), slices("web", Endpoint(cluster["a1"], node=""))
    )
    assert seen(cluster, WEB) == on_nodes(NONE_HERE, NONE_HERE)


def test_each_policy_is_about_its_own_frontends(cluster: Cluster) -> None:
    endpoints = slices("web", cluster["a2"], cluster["a3"])
    ports = both(80, node_port=NODE_PORT)
    cluster.put(service("web", WEB, ports, internalTrafficPolicy="Local"), endpoints)
    assert seen(cluster, WEB) == on_nodes(NONE_HERE, {"a2"})
    for node in ("node-1", "node-2", "node-3"):
        assert cluster.everyone(cluster[node], NODE_PORT) == {"a2", "a3"}
    cluster.put(service("web", WEB, ports, externalTrafficPolicy="Local"), endpoints)
    assert cluster.everyone(WEB) == {"a2", "a3"}


def test_external_policy_local_is_answered_by_the_dialled_nodes_own_endpoints(cluster: Cluster) -> None:
    web = service("web", WEB, both(80, node_port=NODE_PORT), externalTrafficPolicy="Local")
    cluster.put(web, slices("web", cluster["a2"], cluster["b2"]))
    both_pods = {"a2", "b2"}
    assert seen(cluster, cluster["node-2"], NODE_PORT) == on_nodes(both_pods, both_pods)
    assert seen(cluster, cluster["node-3"], NODE_PORT) == on_nodes(NONE_HERE, NONE_HERE)
    # A client on node-1 takes the short cut on its own node; to all others that node has no endpoint.
    assert seen(cluster, cluster["node-1"], NODE_PORT) == on_nodes(both_pods, NONE_HERE)
    for client in cluster.clients:
        for way in WAYS:
            (answer,) = client.ask(way, cluster["node-2"], NODE_PORT)
            assert isinstance(answer, Reply)
            own = client.pod.ipv6 if way.family == 6 else client.pod.ipv4
            assert answer.seen_client[0] == own


def test_a_changed_external_policy_is_followed(cluster: Cluster) -> None:
    endpoints = slices("web", cluster["a2"])
    for policy, at_node_3 in (("Local", NONE_HERE), ("Cluster", {"a2"}), ("Local", NONE_HERE)):
        web = service("web", WEB, both(80, node_port=NODE_PORT), externalTrafficPolicy=policy)
        cluster.put(web, endpoints)
        assert cluster.everyone(cluster["node-3"], NODE_PORT) == at_node_3
        assert cluster.everyone(cluster["node-2"], NODE_PORT) == {"a2"}


@pytest.mark.parametrize("kind", ["load balancer", "external IP"])
def test_pods_reach_a_local_policy_address_from_every_node_with_their_own_address(
    cluster: Cluster, kind: str
) -> None:
    web = service("web", WEB, both(80, node_port=NODE_PORT), externalTrafficPolicy="Local")
    if kind == "load balancer":
        web = balanced(web, {"ip": OUTSIDE.ipv4}, {"ip": OUTSIDE.ipv6})
    else:
        web["spec"]["externalIPs"] = [OUTSIDE.ipv4, OUTSIDE.ipv6]
    cluster.put(web, slices("web", cluster["a2"]))
    assert cluster.everyone(OUTSIDE) == {"a2"}
    client = cluster.place("client-1")
    for way in WAYS:
        (answer,) = client.ask(way, OUTSIDE, 80)
        assert isinstance(answer, Reply)
        assert answer.seen_client[0] == (client.pod.ipv6 if way.family == 6 else client.pod.ipv4)


def test_terminating_endpoints_serve_when_none_is_ready(cluster: Cluster) -> None:
    web = service("web", WEB, both(80, node_port=NODE_PORT))
    ending = [terminating(cluster["a1"]), terminating(cluster["a2"])]
    cluster.put(web, slices("web", *ending))
    targets: list[tuple[Address | Pod, int]] = [(WEB, 80)]
    targets += [(cluster[node], NODE_PORT) for node in ("node-1", "node-2", "node-3")]
    for target, port in targets:
        assert cluster.everyone(target, port) == {"a1", "a2"}
    cluster.put(web, slices("web", *ending, cluster["b2"]))
    for target, port in targets:
        assert cluster.everyone(target, port) == {"b2"}


def test_a_local_terminating_endpoint_serves_under_internal_policy_local(cluster: Cluster) -> None:
    web = service("web", WEB, internalTrafficPolicy="Local")
    cluster.put(web, slices("web", terminating(cluster["a1"])))
    assert seen(cluster, WEB) == on_nodes({"a1"}, NONE_HERE)
    cluster.put(web, slices("web", terminating(cluster["a1"]), cluster["a2"]))
    assert seen(cluster, WEB) == on_nodes({"a1"}, {"a2"}), "each node falls back by itself"
    cluster.put(web, slices("web", terminating(cluster["a1"]), cluster["b1"], cluster["a2"]))
    assert seen(cluster, WEB) == on_nodes({"b1"}, {"a2"})


def test_a_terminating_endpoint_serves_at_its_nodes_port_under_external_policy_local(
    cluster: Cluster,
) -> None:
    web = service("web", WEB, both(80, node_port=NODE_PORT), externalTrafficPolicy="Local")
    cluster.put(web, slices("web", terminating(cluster["a1"])))
    assert cluster.everyone(WEB) == {"a1"}
    assert seen(cluster, cluster["node-1"], NODE_PORT) == on_nodes({"a1"}, {"a1"})
    assert seen(cluster, cluster["node-2"], NODE_PORT) == on_nodes(NONE_HERE, {"a1"}), "own node: short cut"
    cluster.put(web, slices("web", terminating(cluster["a1"]), cluster["a2"]))
    assert seen(cluster, cluster["node-1"], NODE_PORT) == on_nodes({"a2"}, {"a1"})


@pytest.mark.parametrize("published", [True, False])
def test_a_terminating_endpoint_that_is_not_serving_counts_only_if_it_is_published(
    cluster: Cluster, published: bool
) -> None:
    pod = cluster["a1"]
    ending = Endpoint(pod, pod.node, ready=published, serving=False, terminating=True)
    web = service("web", WEB, both(80, node_port=NODE_PORT), publishNotReadyAddresses=published)
    cluster.put(web, slices("web", ready(pod)))
    cluster.put(web, slices("web", ending))
    for target, port in ((WEB, 80), (cluster["node-1"], NODE_PORT), (cluster["node-2"], NODE_PORT)):
        assert cluster.everyone(target, port) == ({"a1"} if published else NOBODY)


def test_an_endpoint_that_serves_but_is_neither_ready_nor_terminating_is_not_used(cluster: Cluster) -> None:
    pod = cluster["a1"]
    cluster.put(service("web", WEB), slices("web", Endpoint(pod, pod.node, ready=False, serving=True)))
    assert cluster.everyone(WEB) == NOBODY


def zoned(cluster: Cluster, **zones: tuple[str, ...]) -> list[Object]:
    return slices("web", *(ready(cluster[name], zones=hint) for name, hint in zones.items()))


def test_zone_hints_keep_traffic_in_the_zone_that_has_endpoints(cluster: Cluster) -> None:
    web = service("web", WEB, trafficDistribution="PreferSameZone")
    cluster.put(web, zoned(cluster, a1=("zone-a",), a3=("zone-c",)))
    assert seen(cluster, WEB) == on_nodes({"a1"}, {"a1", "a3"}), "zone-b has none: all serve it"
    cluster.put(web, zoned(cluster, a1=("zone-a",), a2=("zone-b",), a3=("zone-c",)))
    assert seen(cluster, WEB) == on_nodes({"a1"}, {"a2"})
    cluster.put(web, zoned(cluster, a1=("zone-a",), a3=("zone-a",), a2=("zone-a", "zone-b")))
    assert seen(cluster, WEB) == on_nodes({"a1", "a2", "a3"}, {"a2"}), "several nodes, several zones"


def test_one_ready_endpoint_without_a_hint_switches_them_off(cluster: Cluster) -> None:
    web = service("web", WEB)
    everybody = {"a1", "a2", "b2"}
    cluster.put(web, zoned(cluster, a1=("zone-a",), a2=("zone-b",), b2=()))
    assert seen(cluster, WEB) == on_nodes(everybody, everybody)
    endpoints = [
        ready(cluster["a1"], zones=("zone-a",)),
        ready(cluster["a2"], zones=("zone-b",)),
        unready(cluster["b2"]),
    ]
    cluster.put(web, slices("web", *endpoints))
    assert seen(cluster, WEB) == on_nodes({"a1"}, {"a2"}), "an unready one needs no hint"


def test_hints_are_for_ready_endpoints_and_for_cluster_policy(cluster: Cluster) -> None:
    endpoints = zoned(cluster, a1=("zone-c",), b1=("zone-a",), a2=("zone-a",), a3=("zone-c",))
    cluster.put(service("web", WEB, internalTrafficPolicy="Local"), endpoints)
    assert seen(cluster, WEB) == on_nodes({"a1", "b1"}, {"a2"}), "local endpoints whatever their hints"
    ending = [
        Endpoint(cluster[name], cluster[name].node, ready=False, terminating=True, zones=(zone,))
        for name, zone in (("a1", "zone-a"), ("a2", "zone-b"))
    ]
    cluster.put(service("web", WEB), slices("web", *ending))
    assert cluster.everyone(WEB) == {"a1", "a2"}


def test_node_hints_prefer_the_node_then_the_zone_then_all(cluster: Cluster) -> None:
    def hinted(*names: str) -> list[Object]:
        endpoints = []
        for name in names:
            pod = cluster[name]
            zone = {"node-1": "zone-a", "node-2": "zone-b", "node-3": "zone-a"}[pod.node]
            endpoints.append(ready(pod, zones=(zone,), nodes=(pod.node,)))
        return slices("web", *endpoints)

    web = service("web", WEB, both(80, node_port=NODE_PORT), trafficDistribution="PreferSameNode")
    for pods, at_node_1, at_node_2 in (
        (("a1", "a2", "a3"), {"a1"}, {"a2"}),
        (("a2", "a3"), {"a3"}, {"a2"}),  # over to the zone ...
        (("a2",), {"a2"}, {"a2"}),  # ... to whatever there is ...
        (("a1", "a2"), {"a1"}, {"a2"}),  # ... and back
        (("a1", "b1"), {"a1", "b1"}, {"a1", "b1"}),
    ):
        cluster.put(web, hinted(*pods))
        assert seen(cluster, WEB) == on_nodes(at_node_1, at_node_2)
        assert seen(cluster, cluster["node-3"], NODE_PORT) == on_nodes(at_node_1, at_node_2)


def test_a_changed_zone_of_the_node_is_followed(cluster: Cluster) -> None:
    web, endpoints = service("web", WEB), zoned(cluster, a1=("zone-a",), a2=("zone-b",))
    cluster.put(web, endpoints)
    assert seen(cluster, WEB) == on_nodes({"a1"}, {"a2"})
    cluster.describe_nodes(zones={"node-1": "zone-b"})
    cluster.put(web, endpoints)
    assert seen(cluster, WEB) == on_nodes({"a2"}, {"a2"})
    cluster.describe_nodes(zones={"node-1": ""})
    cluster.put(web, endpoints)
    assert seen(cluster, WEB) == on_nodes({"a1", "a2"}, {"a2"}), "without a zone hints say nothing"
