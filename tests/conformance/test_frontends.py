"""Every address that a Service has is served, from the moment it has it until it is taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyagent.demo.children import wait_until
from tests.conformance.ground.clients import TCP, UDP
from tests.conformance.ground.nodes import SERVICE_RANGES, Cluster
from tests.conformance.ground.objects import (
    Address,
    Object,
    Port,
    balanced,
    both,
    labelled,
    service,
    slices,
)
from tests.datapath.ground.dialling import WAYS
from tests.datapath.ground.manifests import service_cidr

pytestmark = pytest.mark.kernel

WEB = Address("10.96.0.10", "fd44:10:96::10")
OTHER = Address("10.96.0.11", "fd44:10:96::11")
OUTSIDE = Address("203.0.113.10", "2001:db8::10")
LOOPBACK = Address("127.0.0.1", "::1")
NOBODY = {"ECONNREFUSED"}
BOTH_SEEN = 40
"""Dials after which one of two endpoints is still unseen with a chance of 2^-39."""
NO_ROUTE = {"ENETUNREACH"}
"""What the kernel says of an address that nobody translates."""

NODES = ("node-1", "node-2", "node-3")

# Dials that the kernel itself refuses are TCP's: it answers only a few datagrams in a second.


def test_a_node_port_is_reached_on_every_node(cluster: Cluster) -> None:
    cluster.put(service("web", WEB, both(80, node_port=30080)), slices("web", cluster["a1"], cluster["a2"]))
    assert cluster.everyone(WEB) == {"a1", "a2"}
    for node in NODES:
        assert cluster.everyone(cluster[node], 30080) == {"a1", "a2"}


def test_a_node_port_is_reached_on_the_loopback_of_the_node_alone(cluster: Cluster) -> None:
    cluster.put(service("web", WEB, both(80, node_port=30080)), slices("web", cluster["a1"], cluster["a2"]))
    for node in ("node-1", "node-2"):
        assert cluster.place(node).who(LOOPBACK, 30080) == {"a1", "a2"}
    for pod in ("client-1", "client-2"):
        assert cluster.place(pod).who(LOOPBACK, 30080, TCP) == NOBODY, "a pod's loopback is its own"


@pytest.mark.files_only("its allocator gives a nodePort to one Service")
def test_a_node_port_serves_tcp_and_udp_by_one_number(cluster: Cluster) -> None:
    cluster.put(
        service("web", WEB, [Port("tcp", 80, "TCP", 30080)]),
        slices("web", cluster["a1"], ports=[Port("tcp", 8080, "TCP")]),
        service("dns", OTHER, [Port("udp", 53, "UDP", 30080)]),
        slices("dns", cluster["a2"], ports=[Port("udp", 8081, "UDP")]),
    )
    for node in NODES:
        assert cluster.everyone(cluster[node], 30080, ways=TCP) == {"a1"}
        assert cluster.everyone(cluster[node], 30080, ways=UDP) == {"a2"}


def test_a_changed_node_port_is_followed(cluster: Cluster) -> None:
    endpoints = slices("web", cluster["a1"])
    for served, not_served in ((30080, 30081), (30081, 30080), (0, 30081)):
        cluster.put(service("web", WEB, both(80, node_port=served)), endpoints)
        for node in NODES:
            if served:
                assert cluster.everyone(cluster[node], served) == {"a1"}
            assert cluster.everyone(cluster[node], not_served, ways=TCP) == NOBODY


def test_an_external_ip_is_served_though_no_node_has_it(cluster: Cluster) -> None:
    external = [OUTSIDE.ipv4, OUTSIDE.ipv6]
    cluster.put(service("web", WEB, externalIPs=external), slices("web", cluster["a1"], cluster["a2"]))
    assert cluster.everyone(OUTSIDE) == {"a1", "a2"}
    cluster.put(service("web", WEB), slices("web", cluster["a1"], cluster["a2"]))
    assert cluster.everyone(OUTSIDE) == NO_ROUTE


def _external_name(name: str) -> Object:
    spec = {"type": "ExternalName", "externalName": "foo.example.com"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "conf"},
        "spec": spec,
    }


@pytest.mark.parametrize("node_port", [0, 30080], ids=["ClusterIP", "NodePort"])
def test_the_type_changes_between_external_name_and_a_served_one(cluster: Cluster, node_port: int) -> None:
    endpoints = slices("web", cluster["a1"], cluster["a2"])
    served = service("web", WEB, both(80, node_port=node_port))
    for web, seen in (
        (_external_name("web"), NOBODY),
        (served, {"a1", "a2"}),
        (_external_name("web"), NOBODY),
    ):
        cluster.put(web, endpoints)
        assert cluster.everyone(WEB) == seen
        if node_port:
            for node in NODES:
                assert cluster.everyone(cluster[node], node_port, ways=TCP) == seen


@pytest.mark.files_only("it keeps the nodePort that it gave")
def test_the_type_changes_between_cluster_ip_node_port_and_load_balancer(cluster: Cluster) -> None:
    endpoints = slices("web", cluster["a1"], cluster["a2"])
    plain, with_node_port = service("web", WEB), service("web", WEB, both(80, node_port=30080))
    ingress = {"ip": OUTSIDE.ipv4}, {"ip": OUTSIDE.ipv6}
    seen = {"a1", "a2"}
    left_over = {**plain, "status": {"loadBalancer": {"ingress": list(ingress)}}}
    for web, at_node, at_balancer in (
        (plain, NOBODY, NO_ROUTE),
        (with_node_port, seen, NO_ROUTE),
        (balanced(with_node_port, *ingress), seen, seen),
        (balanced(plain, *ingress), NOBODY, seen),  # allocateLoadBalancerNodePorts: false
        (left_over, NOBODY, NO_ROUTE),
    ):
        cluster.put(web, endpoints)
        assert cluster.everyone(WEB) == seen
        assert cluster.everyone(cluster["node-2"], 30080, ways=TCP) == at_node
        assert cluster.everyone(OUTSIDE) == at_balancer


@pytest.mark.parametrize(("mode", "seen"), [(None, {"a1"}), ("VIP", {"a1"}), ("Proxy", NO_ROUTE)])
def test_a_load_balancer_ip_is_served_unless_the_balancer_wants_the_traffic(
    cluster: Cluster, mode: str | None, seen: set[str]
) -> None:
    ingress: list[Object] = [{"ip": OUTSIDE.ipv4}, {"ip": OUTSIDE.ipv6}, {"hostname": "lb.example.com"}]
    for entry in ingress[:2]:
        entry |= {"ipMode": mode} if mode else {}
    cluster.put(balanced(service("web", WEB), *ingress), slices("web", cluster["a1"]))
    assert cluster.everyone(WEB) == {"a1"}
    assert cluster.everyone(OUTSIDE) == seen


def test_a_label_hands_a_service_over_to_another_proxy_and_back(cluster: Cluster) -> None:
    web, endpoints = service("web", WEB), slices("web", cluster["a1"])
    for label, seen in ((False, {"a1"}), (True, NO_ROUTE), (False, {"a1"})):
        named = labelled(web, "service.kubernetes.io/service-proxy-name", "another") if label else web
        cluster.put(named, endpoints)
        assert cluster.everyone(WEB) == seen, "untranslated while another proxy is to serve it"


def test_a_slice_with_the_headless_label_does_not_count(cluster: Cluster) -> None:
    web, endpoints = service("web", WEB), slices("web", cluster["a1"])
    for label, seen in ((False, {"a1"}), (True, NOBODY), (False, {"a1"})):
        told = [labelled(one, "service.kubernetes.io/headless") if label else one for one in endpoints]
        cluster.put(web, told)
        assert cluster.everyone(WEB) == seen


def test_a_headless_service_is_nobodys_address(cluster: Cluster) -> None:
    headless = service("web", WEB, clusterIP="None", clusterIPs=["None"])
    cluster.put(headless, slices("web", cluster["a1"]))
    assert cluster.everyone(WEB) == NOBODY


def test_other_ports_and_protocols_of_a_service_are_refused(cluster: Cluster) -> None:
    only_tcp = [Port("tcp", 80, "TCP")]
    cluster.put(service("web", WEB, only_tcp), slices("web", cluster["a1"]))
    assert cluster.everyone(WEB, 80, ways=TCP) == {"a1"}
    assert cluster.everyone(WEB, 80, ways=UDP) == NOBODY
    assert cluster.everyone(WEB, 8080) == NOBODY


def test_a_deleted_udp_port_stops_while_tcp_of_the_same_number_goes_on(cluster: Cluster) -> None:
    tcp, udp = both(80, node_port=30080)
    endpoints = slices("web", cluster["a1"], cluster["a2"])
    for ports in ([tcp, udp], [tcp], [tcp, udp]):
        cluster.put(service("web", WEB, ports), endpoints)
        assert cluster.everyone(WEB, 80, ways=TCP) == {"a1", "a2"}
        assert cluster.everyone(WEB, 80, ways=UDP) == ({"a1", "a2"} if udp in ports else NOBODY)


def test_an_sctp_service_loads_no_module_and_disturbs_no_other_port(cluster: Cluster) -> None:
    known = Path("/proc/net/protocols").read_text()
    ports = (*both(80), Port("sctp", 80, "SCTP", 30080))
    cluster.put(
        service("web", WEB, ports),
        slices("web", cluster["a1"], ports=(*both(8080), Port("sctp", 8080, "SCTP"))),
    )
    assert cluster.everyone(WEB) == {"a1"}
    assert ("SCTP" in Path("/proc/net/protocols").read_text()) == ("SCTP" in known)


def test_an_unallocated_address_of_a_service_range_is_refused(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"]))
    assert cluster.everyone(OTHER) == NOBODY


def test_a_further_service_range_is_followed_live(cluster: Cluster) -> None:
    extra = Address("10.97.0.10", "fd44:10:97::10")
    web = service("web", extra, both(80, node_port=30080))
    spare = Address("10.97.0.11", "fd44:10:97::11")
    assert cluster.everyone(spare) == NO_ROUTE
    cluster.put(
        service_cidr("10.97.0.0/24", "fd44:10:97::/112", name="extra"), web, slices("web", cluster["a2"])
    )
    assert cluster.everyone(extra) == {"a2"}
    assert cluster.everyone(cluster["node-1"], 30080) == {"a2"}
    assert cluster.everyone(spare) == NOBODY
    cluster.put(service_cidr(SERVICE_RANGES[0], name="extra"))
    assert cluster.everyone(spare) == NO_ROUTE
    cluster.put()
    assert cluster.everyone(OTHER) == NOBODY, "another object still has this range"


@pytest.mark.parametrize("families", [["IPv4"], ["IPv6"], ["IPv6", "IPv4"]], ids="-".join)
def test_a_service_is_served_in_the_families_that_it_has(cluster: Cluster, families: list[str]) -> None:
    of_family = {"IPv4": WEB.ipv4, "IPv6": WEB.ipv6}
    addresses = [of_family[family] for family in families]
    spec: dict[str, Any] = {"clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": families}
    cluster.put(
        service("web", WEB, both(80, node_port=30080), **spec), slices("web", cluster["a1"], cluster["a2"])
    )
    for way in WAYS:
        served = ("IPv6" if way.family == 6 else "IPv4") in families
        for client in cluster.clients:
            assert client.who(WEB, 80, [way], times=BOTH_SEEN) == ({"a1", "a2"} if served else NOBODY)
            if served or way in TCP:
                for node in NODES:
                    seen = client.who(cluster[node], 30080, [way], times=BOTH_SEEN)
                    assert seen == ({"a1", "a2"} if served else NOBODY)


def test_an_address_that_belongs_to_a_node_is_not_taken_over(cluster: Cluster) -> None:
    node = cluster["node-2"]
    cluster.put(
        service("thief", WEB, both(8080), externalIPs=[node.ipv4, node.ipv6]), slices("thief", cluster["a1"])
    )
    assert cluster.everyone(node, 8080) == {"node-2"}


def test_source_ranges_let_in_clients_by_the_address_of_their_pod_or_node(cluster: Cluster) -> None:
    def restricted(*names: str) -> Object:
        ranges = [
            text for name in names for text in (f"{cluster[name].ipv4}/32", f"{cluster[name].ipv6}/128")
        ]
        plain = service("web", WEB, both(80, node_port=30080), loadBalancerSourceRanges=ranges)
        return balanced(plain, {"ip": OUTSIDE.ipv4}, {"ip": OUTSIDE.ipv6})

    endpoints = slices("web", cluster["a1"])
    for allowed in (("client-1",), ("client-2", "node-1"), ("node-2",)):
        cluster.put(restricted(*allowed), endpoints)
        _await_known(cluster, *allowed)
        for client in cluster.clients:
            assert client.who(OUTSIDE) == ({"a1"} if client.pod.name in allowed else {"EHOSTUNREACH"})
    assert cluster.everyone(WEB) == {"a1"}, "ranges are for load-balancer IPs alone"
    assert cluster.everyone(cluster["node-1"], 30080) == {"a1"}
    cluster.put(restricted(), endpoints)
    assert cluster.everyone(OUTSIDE) == {"a1"}


def test_a_range_of_everything_lifts_the_restriction_of_its_family(cluster: Cluster) -> None:
    ranges = ["0.0.0.0/0", f"{cluster['client-1'].ipv6}/128", " 192.0.2.0/24 "]
    web = service("web", WEB, loadBalancerSourceRanges=ranges)
    cluster.put(balanced(web, {"ip": OUTSIDE.ipv4}, {"ip": OUTSIDE.ipv6}), slices("web", cluster["a1"]))
    _await_known(cluster, "client-1")
    for client in cluster.clients:
        for way in WAYS:
            free = way.family != 6 or client.pod.name == "client-1"
            assert client.who(OUTSIDE, 80, [way]) == ({"a1"} if free else {"EHOSTUNREACH"})


def _await_known(cluster: Cluster, *names: str) -> None:
    """The first refusal of a client whose address is not known yet has it looked up."""

    def get_in() -> bool:
        return all(cluster.place(name).who(OUTSIDE, times=1) == {"a1"} for name in names)

    assert wait_until(get_in, timeout=5.0), f"{names} are refused though the ranges have their addresses"
