"""Where a dial from this node ends up: every frontend, policy and guard."""

from __future__ import annotations

from typing import Any

import pytest

from pyagent.model.address import Protocol, parse_address, parse_network
from pyagent.model.kube_objects import Endpoint
from pyagent.model.outcome import Outcome
from pyagent.model.service import CLUSTER_SET, LOCAL_SET, SetKey, View
from tests.unit.desired.objects import (
    NODE,
    NODE_IP,
    OTHER_IP,
    Answer,
    Cluster,
    dead,
    endpoint_slice,
    node,
    ready,
    service,
    terminating,
    unready,
)

CLUSTER_IP, BALANCER, EXTERNAL = "10.96.0.10", "203.0.113.7", "198.51.100.9"
NODE_PORT = 30080
OTHER = "node-b"
HERE_END, THERE_END = "10.1.0.1", "10.2.0.1"
HERE, THERE = f"{HERE_END}:8080", f"{THERE_END}:8080"
NO_ENDPOINTS, NO_LOCAL = Outcome.REFUSED_NO_ENDPOINTS, Outcome.REFUSED_NO_LOCAL_ENDPOINTS

OUTSIDE = ("balancer", "external", "node port")


def dials(cluster: Cluster) -> dict[str, Answer]:
    return {
        "cluster ip": cluster.dial(CLUSTER_IP),
        "balancer": cluster.dial(BALANCER),
        "external": cluster.dial(EXTERNAL),
        "node port": cluster.dial(NODE_IP, NODE_PORT),
    }


def exposed(**spec: Any) -> Any:
    """A Service with every kind of frontend."""
    return service(
        cluster_ip=CLUSTER_IP,
        type="LoadBalancer",
        ports=[{"name": "http", "port": 80, "nodePort": NODE_PORT}],
        ingress=[BALANCER],
        externalIPs=[EXTERNAL],
        **spec,
    )


def policies(internal: str, external: str) -> dict[str, Any]:
    return {"internalTrafficPolicy": internal, "externalTrafficPolicy": external}


here, there = ready(HERE_END, node=NODE), ready(THERE_END, node=OTHER)

TABLE = [
    # internal, external, endpoints, via ClusterIP, via everything else
    ("Cluster", "Cluster", [here, there], [HERE, THERE], [HERE, THERE]),
    ("Cluster", "Cluster", [there], [THERE], [THERE]),
    ("Cluster", "Cluster", [], NO_ENDPOINTS, NO_ENDPOINTS),
    ("Cluster", "Cluster", [unready(HERE_END, node=NODE)], NO_ENDPOINTS, NO_ENDPOINTS),
    ("Local", "Cluster", [here, there], [HERE], [HERE, THERE]),
    ("Local", "Cluster", [there], NO_LOCAL, [THERE]),
    ("Local", "Cluster", [], NO_ENDPOINTS, NO_ENDPOINTS),
    ("Cluster", "Local", [here, there], [HERE, THERE], [HERE, THERE]),
    ("Cluster", "Local", [there], [THERE], [THERE]),
    ("Cluster", "Local", [], NO_ENDPOINTS, NO_ENDPOINTS),
    ("Local", "Local", [here, there], [HERE], [HERE, THERE]),
    ("Local", "Local", [there], NO_LOCAL, [THERE]),
    ("Local", "Local", [], NO_ENDPOINTS, NO_ENDPOINTS),
    ("Local", "Local", [terminating(THERE_END, node=OTHER)], NO_LOCAL, [THERE]),
    ("Local", "Cluster", [terminating(HERE_END, node=NODE), there], [HERE], [THERE]),
    ("Cluster", "Local", [terminating(HERE_END, node=NODE), there], [THERE], [THERE]),
    ("Local", "Local", [dead(HERE_END, node=NODE), dead(THERE_END)], NO_ENDPOINTS, NO_ENDPOINTS),
    ("Local", "Local", [unready(HERE_END, node=NODE), there], NO_LOCAL, [THERE]),
]


@pytest.mark.parametrize(("internal", "external", "endpoints", "by_cluster_ip", "by_others"), TABLE)
def test_a_client_of_this_node_gets_what_the_policies_say(
    internal: str, external: str, endpoints: list[Endpoint], by_cluster_ip: Answer, by_others: Answer
) -> None:
    cluster = Cluster(exposed(**policies(internal, external)), endpoint_slice(*endpoints))
    assert dials(cluster) == {"cluster ip": by_cluster_ip} | dict.fromkeys(OUTSIDE, by_others)


def test_hints_narrow_every_frontend_but_the_local_one() -> None:
    ends = [ready(HERE_END, node=NODE, zones=["zone-b"]), ready(THERE_END, node=OTHER, zones=["zone-a"])]
    answers = dials(Cluster(exposed(internalTrafficPolicy="Local"), endpoint_slice(*ends)))
    assert answers == {"cluster ip": [HERE]} | {key: [THERE] for key in OUTSIDE}


def test_a_policy_that_is_changed_live_moves_only_its_frontends() -> None:
    cluster = Cluster(exposed(), endpoint_slice(here, there))
    change = cluster.put(exposed(internalTrafficPolicy="Local"))
    assert [dialled[3] for dialled in change.frontends] == [parse_address(CLUSTER_IP)]
    assert dials(cluster)["cluster ip"] == [HERE]


@pytest.mark.parametrize(
    ("spec", "keys"),
    [
        ({}, {CLUSTER_SET}),
        (policies("Cluster", "Local"), {CLUSTER_SET, LOCAL_SET}),
        (policies("Local", "Cluster"), {CLUSTER_SET, LOCAL_SET}),
    ],
)
def test_only_sets_that_a_frontend_uses_are_made(spec: dict[str, Any], keys: set[SetKey]) -> None:
    cluster = Cluster(exposed(**spec), endpoint_slice(here, there))
    assert {s.key for port in cluster.ports.values() for s in port.sets} == keys


def test_an_internal_local_service_has_no_cluster_set() -> None:
    cluster = Cluster(service(internalTrafficPolicy="Local"), endpoint_slice(here, there))
    assert [s.key for port in cluster.ports.values() for s in port.sets] == [LOCAL_SET]


@pytest.mark.parametrize(
    ("ingress", "answer"),
    [
        ({"ip": BALANCER}, [HERE]),
        ({"ip": BALANCER, "ipMode": "VIP"}, [HERE]),
        ({"ip": BALANCER, "ipMode": "Proxy"}, "passed"),
        ({"hostname": "lb.example"}, "passed"),
        ({"ip": "", "ipMode": "VIP"}, "passed"),
    ],
)
def test_a_load_balancer_ip_is_served_unless_the_balancer_is_a_proxy(
    ingress: dict[str, Any], answer: Answer
) -> None:
    cluster = Cluster(service(type="LoadBalancer", ingress=[ingress]), endpoint_slice(here))
    assert (cluster.dial(BALANCER), cluster.told()) == (answer, set())


def test_an_unknown_ip_mode_counts_as_vip_and_is_reported() -> None:
    ingress = {"ip": BALANCER, "ipMode": "vip"}
    cluster = Cluster(service(type="LoadBalancer", ingress=[ingress]), endpoint_slice(here))
    assert cluster.dial(BALANCER) == [HERE]
    assert "VIP is assumed" in cluster.told_of("status.loadBalancer.ingress[0].ipMode")


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort"])
def test_what_an_earlier_load_balancer_left_in_the_status_is_not_served(kind: str) -> None:
    cluster = Cluster(service(type=kind, ingress=[BALANCER]), endpoint_slice(here))
    assert cluster.dial(BALANCER) == "passed"


def test_external_addresses_go_by_their_own_family() -> None:
    dual: dict[str, Any] = {"clusterIPs": [CLUSTER_IP, "fd10::a"], "ipFamilies": ["IPv4", "IPv6"]}
    slices = [endpoint_slice(here), endpoint_slice(ready("fd00::1"), name="web-6", kind="IPv6")]
    addresses: dict[str, Any] = {"externalIPs": [EXTERNAL, "2001:db8::9"], "type": "LoadBalancer"}
    cluster = Cluster(service(ingress=[BALANCER, "2001:db8::7"], **addresses, **dual), *slices)
    assert cluster.dial(EXTERNAL) == cluster.dial(BALANCER) == [HERE]
    assert cluster.dial("2001:db8::9") == cluster.dial("2001:db8::7") == ["[fd00::1]:8080"]
    cluster.put(service(ingress=[BALANCER, "2001:db8::7"], **addresses))
    assert cluster.dial("2001:db8::9") == cluster.dial("2001:db8::7") == "passed"


def test_an_address_named_twice_is_served_once() -> None:
    spec: dict[str, Any] = {"externalIPs": [BALANCER, BALANCER], "type": "LoadBalancer"}
    cluster = Cluster(service(ingress=[BALANCER], **spec), endpoint_slice(here))
    assert (cluster.dial(BALANCER), cluster.told()) == ([HERE], set())


def test_an_external_ip_that_is_the_services_own_cluster_ip_changes_nothing() -> None:
    spec = policies("Local", "Cluster")
    cluster = Cluster(service(cluster_ip=CLUSTER_IP, externalIPs=[CLUSTER_IP], **spec), endpoint_slice(there))
    assert (cluster.dial(CLUSTER_IP), cluster.told()) == (NO_LOCAL, set())


def test_external_ips_are_served_whether_or_not_somebody_has_them() -> None:
    assert Cluster(service(externalIPs=[EXTERNAL]), endpoint_slice(here)).dial(EXTERNAL) == [HERE]


NODES = [node(NODE, NODE_IP, "2001:db8::1"), node(OTHER, OTHER_IP)]
API_SERVER = "192.0.2.1"

HIJACKS = [
    ("127.0.0.1", "never a Service's"),
    ("::1", "never a Service's"),
    ("0.0.0.0", "never a Service's"),
    ("::", "never a Service's"),
    ("224.0.0.1", "never a Service's"),
    ("ff02::1", "never a Service's"),
    (NODE_IP, "the address of a node"),
    (OTHER_IP, "the address of a node"),
    ("2001:db8::1", "the address of a node"),
    ("::ffff:192.168.0.1", "the address of a node"),
    (API_SERVER, "the address of the API server"),
    ("169.254.169.254", "link-local"),
    ("fe80::1", "link-local"),
    ("203.0.113.256", "not an IP address"),
    ("\x00", "not an IP address"),
]


@pytest.mark.parametrize(("address", "reason"), HIJACKS)
@pytest.mark.parametrize("balancer", [False, True], ids=["external IP", "load-balancer IP"])
def test_nobody_can_take_over_an_address_that_others_dial(address: str, reason: str, balancer: bool) -> None:
    spec: dict[str, Any] = {"clusterIPs": [CLUSTER_IP, "fd10::a"], "ipFamilies": ["IPv4", "IPv6"]}
    if balancer:
        taker = service(type="LoadBalancer", ingress=[address, BALANCER], **spec)
    else:
        taker = service(externalIPs=[address, BALANCER], **spec)
    cluster = Cluster(
        *NODES,
        taker,
        endpoint_slice(here),
        protected_addresses=frozenset({parse_address(API_SERVER)}),
    )
    assert cluster.dial(BALANCER) == [HERE]
    field = "status.loadBalancer.ingress[0].ip" if balancer else "spec.externalIPs[0]"
    assert reason in cluster.told_of(field)
    assert len(cluster.ports) == 2
    assert all(len(port.frontends) == 2 - (port.key.family == 6) for port in cluster.ports.values())


def test_a_node_that_takes_the_address_of_a_service_wins_and_loses_it_live() -> None:
    cluster = Cluster(service(externalIPs=[EXTERNAL]), endpoint_slice(here))
    cluster.put(node(OTHER, EXTERNAL))
    assert cluster.dial(EXTERNAL) == "passed"
    cluster.delete(node(OTHER))
    assert cluster.dial(EXTERNAL) == [HERE]
    assert cluster.told() == set()


def test_a_protected_address_that_changes_takes_effect_live() -> None:
    cluster = Cluster(service(externalIPs=[EXTERNAL]), endpoint_slice(here))
    cluster.configure(protected_addresses=frozenset({parse_address(EXTERNAL)}))
    assert cluster.dial(EXTERNAL) == "passed"


def test_without_a_node_object_the_interface_addresses_are_the_nodes() -> None:
    for spec in ({"externalIPs": [NODE_IP]}, {"type": "LoadBalancer", "ingress": [NODE_IP]}):
        cluster = Cluster(service(**spec), endpoint_slice(here))
        assert cluster.dial(NODE_IP) == "passed"
        assert len(cluster.told()) == 1


def test_a_load_balancer_ip_that_a_speaker_put_on_this_node_is_served() -> None:
    """As MetalLB and kube-vip do: the address is on an interface and not among the Node's."""
    interfaces = frozenset(map(parse_address, (NODE_IP, BALANCER)))
    vip = service(type="LoadBalancer", ingress=[BALANCER])
    assert Cluster(*NODES, vip, endpoint_slice(here), interface_addresses=interfaces).dial(BALANCER) == [HERE]


def test_an_external_ip_on_an_interface_needs_the_operators_word() -> None:
    interfaces = frozenset(map(parse_address, (NODE_IP, EXTERNAL)))
    cluster = Cluster(
        *NODES, service(externalIPs=[EXTERNAL]), endpoint_slice(here), interface_addresses=interfaces
    )
    assert cluster.dial(EXTERNAL) == "passed"
    assert "--external-ip-cidrs" in cluster.told_of("spec.externalIPs[0]")
    cluster.configure(external_ip_cidrs=(parse_network("198.51.100.0/24"),))
    assert cluster.dial(EXTERNAL) == [HERE]


def test_external_ips_outside_the_allowed_ranges_are_refused_and_reported() -> None:
    cluster = Cluster(exposed(), endpoint_slice(here), external_ip_cidrs=(parse_network("203.0.113.0/24"),))
    assert cluster.dial(EXTERNAL) == "passed"
    assert cluster.dial(BALANCER) == [HERE]
    assert "outside --external-ip-cidrs" in cluster.told_of("spec.externalIPs[0]")
    cluster.configure(external_ip_cidrs=None)
    assert cluster.dial(EXTERNAL) == [HERE]
    assert cluster.told() == set()


def test_no_range_allowed_means_no_external_ip() -> None:
    assert Cluster(exposed(), endpoint_slice(here), external_ip_cidrs=()).dial(EXTERNAL) == "passed"


def test_a_range_does_not_open_the_address_of_a_node() -> None:
    everything = (parse_network("0.0.0.0/0"),)
    cluster = Cluster(
        *NODES, service(externalIPs=[OTHER_IP]), endpoint_slice(here), external_ip_cidrs=everything
    )
    assert cluster.dial(OTHER_IP) == "passed"


# nodePorts


def with_node_port(**spec: Any) -> Any:
    return service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": NODE_PORT}], **spec)


def test_node_ports_answer_on_this_nodes_addresses_and_on_loopback() -> None:
    cluster = Cluster(*NODES, with_node_port(), endpoint_slice(here))
    assert cluster.dial(NODE_IP, NODE_PORT) == cluster.dial("127.0.0.1", NODE_PORT) == [HERE]
    assert cluster.dial(OTHER_IP, NODE_PORT) == "passed"
    assert cluster.dial(NODE_IP, 80) == "passed"


def test_node_ports_answer_in_the_families_of_the_service() -> None:
    slices = [endpoint_slice(here), endpoint_slice(ready("fd00::1"), name="web-6", kind="IPv6")]
    cluster = Cluster(*NODES, with_node_port(), *slices)
    assert cluster.dial("2001:db8::1", NODE_PORT) == "passed"
    cluster.put(with_node_port(clusterIPs=[CLUSTER_IP, "fd10::a"], ipFamilies=["IPv4", "IPv6"]))
    assert cluster.dial("2001:db8::1", NODE_PORT) == cluster.dial("::1", NODE_PORT) == ["[fd00::1]:8080"]
    assert cluster.dial(NODE_IP, NODE_PORT) == [HERE]


def test_one_node_port_may_serve_two_protocols() -> None:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": NODE_PORT},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": NODE_PORT},
    ]
    slice_ports = [
        {"name": "dns", "port": 1053, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 2053, "protocol": "TCP"},
    ]
    cluster = Cluster(service(type="NodePort", ports=ports), endpoint_slice(here, ports=slice_ports))
    assert cluster.dial(NODE_IP, NODE_PORT, Protocol.UDP) == ["10.1.0.1:1053"]
    assert cluster.dial(NODE_IP, NODE_PORT, Protocol.TCP) == ["10.1.0.1:2053"]


BAD_NODE_PORTS = [
    ({"type": "NodePort"}, 70_000, "out of range"),
    ({"type": "NodePort"}, -1, "out of range"),
    ({"type": "ClusterIP"}, NODE_PORT, "set type NodePort or LoadBalancer"),
    ({"type": "NodePort"}, 30081, "30081/TCP is listed twice"),
]


@pytest.mark.parametrize(("spec", "number", "reason"), BAD_NODE_PORTS)
def test_a_bad_node_port_is_reported_and_the_port_serves_otherwise(
    spec: dict[str, Any], number: int, reason: str
) -> None:
    first = {"name": "first", "port": 81} | ({"nodePort": 30081} if spec["type"] == "NodePort" else {})
    ports = [first, {"name": "http", "port": 80, "nodePort": number}]
    cluster = Cluster(service(ports=ports, **spec), endpoint_slice(here))
    assert cluster.dial(CLUSTER_IP, 80) == [HERE]
    assert reason in cluster.told_of("spec.ports[1].nodePort")


def test_a_load_balancer_without_node_ports_is_served_on_its_ip() -> None:
    cluster = Cluster(
        service(type="LoadBalancer", ingress=[BALANCER], ports=[{"name": "http", "port": 80, "nodePort": 0}]),
        endpoint_slice(here),
    )
    assert (cluster.dial(BALANCER), cluster.told()) == ([HERE], set())


OWN_NODE = node(NODE, NODE_IP, "192.168.1.1", "2001:db8::1")
INTERFACES = frozenset(
    map(
        parse_address,
        (NODE_IP, "192.168.1.1", "172.17.0.1", "2001:db8::1", "2001:db8::2", "127.0.0.1", "::1"),
    )
)

ANSWERING = [
    pytest.param(None, {NODE_IP, "2001:db8::1", "127.0.0.1", "::1"}, id="primary: the first of each family"),
    pytest.param(["192.168.1.0/24", "2001:db8::2/128"], {"192.168.1.1", "2001:db8::2"}, id="ranges"),
    pytest.param(
        ["192.168.1.0/24"],
        {"192.168.1.1", "2001:db8::1", "2001:db8::2", "::1"},
        id="a family without a range answers everywhere",
    ),
    pytest.param(
        ["10.0.0.0/8", "fd00::/8"], set(), id="ranges without a match answer nowhere, not everywhere"
    ),
    pytest.param(
        ["0.0.0.0/0", "2001:db8::2/128"],
        {NODE_IP, "192.168.1.1", "172.17.0.1", "127.0.0.1", "2001:db8::2"},
        id="everything of one family, a range of the other",
    ),
    pytest.param(["127.0.0.0/8", "::1/128"], {"127.0.0.1", "::1"}, id="loopback only"),
]


@pytest.mark.parametrize(("ranges", "expected"), ANSWERING)
def test_node_ports_answer_where_the_operator_says(ranges: list[str] | None, expected: set[str]) -> None:
    cluster = Cluster(
        OWN_NODE,
        interface_addresses=INTERFACES,
        node_port_ranges=None if ranges is None else tuple(map(parse_network, ranges)),
    )
    assert cluster.node_addresses == dict.fromkeys(map(parse_address, expected), "")


def test_a_family_that_the_node_lacks_answers_on_loopback_alone() -> None:
    """And not on every address of that family, as kube-proxy's `primary` does."""
    cluster = Cluster(node(NODE, NODE_IP), interface_addresses=INTERFACES)
    assert set(cluster.node_addresses) == set(map(parse_address, (NODE_IP, "127.0.0.1", "::1")))


def test_the_bind_address_is_the_primary_one_of_its_family() -> None:
    """As kube-proxy's `--bind-address`; without a Node object the node has no other."""
    cluster = Cluster(OWN_NODE, interface_addresses=INTERFACES, bind_address=parse_address("192.168.1.1"))
    expected = "192.168.1.1", "2001:db8::1", "127.0.0.1", "::1"
    assert set(cluster.node_addresses) == set(map(parse_address, expected))
    cluster.configure(bind_address=parse_address("0.0.0.0"))
    assert parse_address(NODE_IP) in cluster.node_addresses
    alone = Cluster(interface_addresses=INTERFACES, bind_address=parse_address("192.168.1.1"))
    assert set(alone.node_addresses) == set(map(parse_address, ("192.168.1.1", "127.0.0.1", "::1")))


def test_node_addresses_are_followed_live() -> None:
    cluster = Cluster(node(NODE, NODE_IP))
    change = cluster.put(node(NODE, "192.168.0.9"))
    assert change.node_addresses == {parse_address(NODE_IP): None, parse_address("192.168.0.9"): ""}


def test_node_ports_of_other_nodes_are_translated_here_when_wanted() -> None:
    cluster = Cluster(*NODES, with_node_port(), endpoint_slice(here, there), remote_node_ports=True)
    assert cluster.dial(OTHER_IP, NODE_PORT) == [HERE, THERE]
    assert cluster.dial(NODE_IP, NODE_PORT) == [HERE, THERE]
    cluster.configure(remote_node_ports=False)
    assert cluster.dial(OTHER_IP, NODE_PORT) == "passed"


def test_other_nodes_are_taken_to_have_our_ranges_for_node_ports() -> None:
    ranges = parse_network("10.200.0.0/16"), parse_network("2001:db8::/32")
    cluster = Cluster(*NODES, remote_node_ports=True, node_port_ranges=ranges)
    assert parse_address(OTHER_IP) not in cluster.node_addresses
    cluster.configure(node_port_ranges=(parse_network(f"{OTHER_IP}/32"),))
    assert cluster.node_addresses[parse_address(OTHER_IP)] == OTHER
    assert not cluster.problems


THIRD_IP = "192.168.0.3"
LOCAL_ELSEWHERE = [
    pytest.param([here, there], [THERE], NO_LOCAL, id="only the endpoints of that node"),
    pytest.param([here], NO_LOCAL, NO_LOCAL, id="none there"),
    pytest.param([terminating(THERE_END, node=OTHER), here], [THERE], NO_LOCAL, id="terminating there"),
    pytest.param([unready(THERE_END, node=OTHER), here], NO_LOCAL, NO_LOCAL, id="unready there"),
    pytest.param([], NO_ENDPOINTS, NO_ENDPOINTS, id="none anywhere"),
    pytest.param([unready(THERE_END, node=OTHER)], NO_ENDPOINTS, NO_ENDPOINTS, id="none usable"),
]


@pytest.mark.parametrize(("endpoints", "other", "third"), LOCAL_ELSEWHERE)
def test_a_node_port_with_local_policy_on_another_node_gives_that_nodes_endpoints(
    endpoints: list[Endpoint], other: Answer, third: Answer
) -> None:
    cluster = Cluster(
        *NODES,
        node("node-c", THIRD_IP),
        with_node_port(externalTrafficPolicy="Local"),
        endpoint_slice(*endpoints),
        remote_node_ports=True,
    )
    assert cluster.dial(OTHER_IP, NODE_PORT) == other
    assert cluster.dial(THIRD_IP, NODE_PORT) == third


def test_nodes_without_endpoints_share_one_frontend() -> None:
    cluster = Cluster(
        with_node_port(externalTrafficPolicy="Local"), endpoint_slice(here, there), remote_node_ports=True
    )
    (port,) = cluster.ports.values()
    elsewhere = [SetKey(View.NODE, OTHER), SetKey(View.NODE, "*")]
    assert [s.key for s in port.sets] == [CLUSTER_SET, *elsewhere, LOCAL_SET]


def test_an_address_of_two_nodes_goes_to_one_of_them_and_is_reported() -> None:
    cluster = Cluster(node("node-c", OTHER_IP), node("node-b", OTHER_IP), remote_node_ports=True)
    assert cluster.node_addresses[parse_address(OTHER_IP)] == "node-b"
    assert "Node node-b" in cluster.told_of("status.addresses")
    cluster.delete(node("node-b"))
    assert cluster.node_addresses[parse_address(OTHER_IP)] == "node-c"
    assert cluster.told() == set()


def test_this_nodes_addresses_are_its_own_whoever_else_claims_them() -> None:
    cluster = Cluster(*NODES, node("node-c", NODE_IP), remote_node_ports=True)
    assert cluster.node_addresses[parse_address(NODE_IP)] == ""
    assert "this node" in cluster.told_of("status.addresses")


def test_wrong_node_addresses_are_reported_and_the_others_count() -> None:
    cluster = Cluster(node(NODE, "bad", "127.0.0.1", NODE_IP))
    assert cluster.dial(NODE_IP, NODE_PORT) == "passed"
    assert cluster.node_addresses[parse_address(NODE_IP)] == ""
    assert {problem.field for problem in cluster.problems} == {
        "status.addresses[0].address",
        "status.addresses[1].address",
    }
