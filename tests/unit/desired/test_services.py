"""What of a Service is served, and what is said about the rest."""

from __future__ import annotations

from typing import Any

import pytest

from pyagent.model.address import Network, Protocol, parse_address, parse_network
from pyagent.model.outcome import Outcome
from pyagent.model.service import RESTRICTED_SET, PolicyBit, ServicePort, ServiceType
from tests.unit.desired.objects import NODE, Cluster, endpoint_slice, ready, service, terminating, unready

WEB = "10.96.0.10"
WEB6 = "fd10::a"
SLICE = endpoint_slice(ready("10.1.0.1"))
SLICE6 = endpoint_slice(ready("fd00::1"), name="web-6", kind="IPv6")
DUAL: dict[str, Any] = {"clusterIPs": [WEB, WEB6], "ipFamilies": ["IPv4", "IPv6"]}


def only_port(cluster: Cluster) -> ServicePort:
    (port,) = cluster.ports.values()
    return port


@pytest.mark.parametrize(
    "spec",
    [
        {"cluster_ip": "None"},
        {"cluster_ip": None, "clusterIPs": ["None"]},
        {"cluster_ip": "None", "ports": []},
        {"cluster_ip": "None", "ports": [{"port": 5060, "protocol": "SCTP"}]},
        {"cluster_ip": WEB, "type": "ExternalName"},
        {"cluster_ip": None, "type": "ExternalName"},
    ],
)
def test_headless_and_external_name_services_are_not_served(spec: dict[str, Any]) -> None:
    cluster = Cluster(service(**spec), SLICE)
    assert (cluster.ports, cluster.service_addresses, cluster.told()) == ({}, {}, set())


def test_a_service_that_becomes_external_name_is_withdrawn_and_comes_back() -> None:
    cluster = Cluster(service(), SLICE)
    cluster.put(service(type="ExternalName"))
    assert cluster.dial(WEB) == "passed"
    cluster.put(service(type="ClusterIP"))
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]


def test_a_service_without_an_address_waits_and_says_so() -> None:
    cluster = Cluster(
        service(cluster_ip=None, type="NodePort", ports=[{"port": 80, "nodePort": 30080}]), SLICE
    )
    assert cluster.ports == {}
    assert "missing" in cluster.told_of("spec.clusterIP")


FAMILIES = [
    pytest.param({"cluster_ip": WEB}, [WEB], id="before dual stack: the family of clusterIP"),
    pytest.param({"cluster_ip": WEB6}, [WEB6], id="before dual stack: IPv6"),
    pytest.param({"cluster_ip": WEB, **DUAL}, [WEB, WEB6], id="dual stack"),
    pytest.param(
        {"cluster_ip": WEB6, "clusterIPs": [WEB6, WEB], "ipFamilies": ["IPv6", "IPv4"]},
        [WEB6, WEB],
        id="dual stack, IPv6 first",
    ),
    pytest.param(
        {"cluster_ip": None, "clusterIPs": [WEB], "ipFamilies": ["IPv4"]},
        [WEB],
        id="only the list of addresses",
    ),
    pytest.param({"cluster_ip": WEB, "ipFamilies": ["IPv4"]}, [WEB], id="only the single address"),
    pytest.param(
        {"cluster_ip": WEB, "clusterIPs": [WEB], "ipFamilies": ["IPv4", "IPv6"]},
        [WEB],
        id="a family without address",
    ),
    pytest.param(
        {"cluster_ip": WEB, "clusterIPs": [WEB, WEB6]}, [WEB, WEB6], id="addresses without families"
    ),
]


@pytest.mark.parametrize(("spec", "addresses"), FAMILIES)
def test_cluster_ips_by_family(spec: dict[str, Any], addresses: list[str]) -> None:
    cluster = Cluster(service(**spec), SLICE, SLICE6)
    served = {WEB: ["10.1.0.1:8080"], WEB6: ["[fd00::1]:8080"]}
    assert {a: cluster.dial(a) for a in (WEB, WEB6)} == {
        a: served[a] if a in addresses else "passed" for a in (WEB, WEB6)
    }
    assert cluster.told() == set()


BAD_ADDRESSES = [
    ({"clusterIPs": [WEB, "fd10::zz"]}, "spec.clusterIPs[1]", "not an IP address"),
    (
        {"clusterIPs": [WEB, WEB6], "ipFamilies": ["IPv4"]},
        "spec.clusterIPs[1]",
        "spec.ipFamilies[1] says nothing",
    ),
    ({"clusterIPs": [WEB, WEB6], "ipFamilies": ["IPv4", "IPv5"]}, "spec.clusterIPs[1]", "says 'IPv5'"),
    ({"clusterIPs": [WEB, "10.96.0.11"]}, "spec.clusterIPs[1]", "a second IPv4 address"),
    ({"clusterIPs": [WEB, "::1"]}, "spec.clusterIPs[1]", "cannot be a ClusterIP"),
    ({"clusterIPs": [WEB, "ff02::1"]}, "spec.clusterIPs[1]", "cannot be a ClusterIP"),
    ({"clusterIPs": [WEB, "\x00" * 5000]}, "spec.clusterIPs[1]", "not an IP address"),
]


@pytest.mark.parametrize(("spec", "field", "reason"), BAD_ADDRESSES)
def test_a_bad_cluster_ip_is_reported_and_the_other_family_serves(
    spec: dict[str, Any], field: str, reason: str
) -> None:
    cluster = Cluster(service(**spec), SLICE, SLICE6)
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert reason in cluster.told_of(field)


def test_a_bad_only_cluster_ip_leaves_the_service_out() -> None:
    cluster = Cluster(service(cluster_ip="10.96.0.300"), SLICE)
    assert cluster.ports == {}
    assert "'10.96.0.300'" in cluster.told_of("spec.clusterIP")


BAD_PORTS = [
    ({"name": "x", "port": 0}, "port", "out of range: '0'; want 1 to 65535"),
    ({"name": "x", "port": 65536}, "port", "out of range"),
    ({"name": "x", "port": -80}, "port", "out of range"),
    ({"name": "x", "port": 81, "protocol": "ICMP"}, "protocol", "want TCP, UDP or SCTP"),
    ({"name": "x\x00y", "port": 81}, "name", "not a port name"),
    ({"name": "x" * 64, "port": 81}, "name", "not a port name"),
    ({"name": "x", "port": 80}, "port", "80/TCP is listed twice"),
    ({"name": "http", "port": 81}, "name", "'http' is listed twice"),
]


@pytest.mark.parametrize(("port", "field", "reason"), BAD_PORTS)
def test_a_bad_port_is_reported_and_the_others_serve(port: dict[str, Any], field: str, reason: str) -> None:
    cluster = Cluster(service(ports=[{"name": "http", "port": 80}, port]), SLICE)
    assert [key.port_name for key in cluster.ports] == ["http"]
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert reason in cluster.told_of(f"spec.ports[1].{field}")


def test_a_service_with_ten_thousand_ports_is_served() -> None:
    ports = [{"name": f"p{n}", "port": n} for n in range(1, 10_001)]
    cluster = Cluster(service(ports=ports), endpoint_slice(ready("10.1.0.1"), ports=ports))
    assert cluster.dial(WEB, 10_000) == ["10.1.0.1:10000"]


def test_ten_thousand_bad_ports_are_told_in_a_few_lines_and_the_good_one_serves() -> None:
    ports = [{"name": f"p{n}", "port": 0} for n in range(10_000)] + [{"name": "http", "port": 80}]
    cluster = Cluster(service(ports=ports), SLICE)
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert len(cluster.told()) == 21


def test_a_service_too_large_for_any_node_is_cut_off_and_reported() -> None:
    ports = [{"name": f"p{n}", "port": n} for n in range(1, 1101)]
    many = [ready(f"10.1.{n >> 8}.{n & 255}") for n in range(1000)]
    cluster = Cluster(service(ports=ports), endpoint_slice(*many, ports=ports))
    assert len(cluster.ports) == 999
    assert "split it" in cluster.told_of("spec.ports[999]")


def test_sctp_ports_are_counted_and_not_served() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "sig", "port": 80, "protocol": "SCTP"}]
    cluster = Cluster(service(ports=ports), SLICE)
    assert [key.protocol for key in cluster.ports] == [Protocol.TCP]
    assert cluster.state.views["shop", "web"].sctp_ports == 1
    assert cluster.told() == set()


def test_a_renamed_port_has_another_key() -> None:
    cluster = Cluster(service(), SLICE)
    change = cluster.put(service(ports=[{"name": "web", "port": 80}]))
    assert {(key.port_name, port is None) for key, port in change.service_ports.items()} == {
        ("http", True),
        ("web", False),
    }
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (None, ServiceType.CLUSTER_IP),
        ("ClusterIP", ServiceType.CLUSTER_IP),
        ("NodePort", ServiceType.NODE_PORT),
        ("LoadBalancer", ServiceType.LOAD_BALANCER),
    ],
)
def test_the_type_is_carried(text: str | None, kind: ServiceType) -> None:
    assert only_port(Cluster(service(type=text), SLICE)).service_type is kind


UNKNOWN_VALUES: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "Clustered"}, "spec.type", "ClusterIP is assumed"),
    ({"internalTrafficPolicy": "local"}, "spec.internalTrafficPolicy", "Cluster is assumed"),
    ({"externalTrafficPolicy": "Node"}, "spec.externalTrafficPolicy", "Cluster is assumed"),
    ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity", "None is assumed"),
]


@pytest.mark.parametrize(("spec", "field", "reason"), UNKNOWN_VALUES)
def test_an_unknown_value_counts_as_the_default_and_is_reported(
    spec: dict[str, Any], field: str, reason: str
) -> None:
    cluster = Cluster(service(**spec), SLICE)
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert (only_port(cluster).policy, only_port(cluster).affinity_seconds) == (0, 0)
    assert reason in cluster.told_of(field)


def affinity(seconds: int | None) -> dict[str, Any]:
    config = None if seconds is None else {"clientIP": {"timeoutSeconds": seconds}}
    return {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}, 0),
        (affinity(None), 10_800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {}}, 10_800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {}}}, 10_800),
        (affinity(1), 1),
        (affinity(86_400), 86_400),
    ],
)
def test_session_affinity_has_a_timeout(spec: dict[str, Any], seconds: int) -> None:
    assert only_port(Cluster(service(**spec), SLICE)).affinity_seconds == seconds


@pytest.mark.parametrize("seconds", [0, -1, 86_401, 2**62])
def test_an_affinity_timeout_out_of_bounds_counts_as_the_default(seconds: int) -> None:
    cluster = Cluster(service(**affinity(seconds)), SLICE)
    assert only_port(cluster).affinity_seconds == 10_800
    assert "10800 is used" in cluster.told_of("spec.sessionAffinityConfig.clientIP.timeoutSeconds")


def test_affinity_is_switched_live() -> None:
    cluster = Cluster(service(), SLICE)
    change = cluster.put(service(**affinity(60)))
    assert [port.affinity_seconds for port in change.service_ports.values() if port] == [60]
    assert change.frontends == {}


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ({"internalTrafficPolicy": "Local"}, PolicyBit.INTERNAL_LOCAL),
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, PolicyBit.EXTERNAL_LOCAL),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, PolicyBit.EXTERNAL_LOCAL),
        ({"externalIPs": ["203.0.113.1"], "externalTrafficPolicy": "Local"}, PolicyBit.EXTERNAL_LOCAL),
        ({"externalTrafficPolicy": "Local"}, 0),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, PolicyBit.SOURCE_RANGES),
    ],
)
def test_policies_are_carried_where_they_mean_something(spec: dict[str, Any], policy: int) -> None:
    assert only_port(Cluster(service(**spec), SLICE)).policy == policy


SOURCE_RANGES: list[tuple[list[str], list[str]]] = [
    (["10.1.2.0/28"], ["10.1.2.0/28"]),
    ([" 10.1.2.0/28 ", "10.1.2.0/28"], ["10.1.2.0/28"]),
    (["10.1.2.7/28"], ["10.1.2.0/28"]),
    (["fd00::/64"], []),
    (["10.1.2.0/28", "fd00::/64"], ["10.1.2.0/28"]),
    (["10.1.2.0/28", "0.0.0.0/0"], []),
    (["10.1.2.0/28", "::/0"], ["10.1.2.0/28"]),
    ([], []),
]


@pytest.mark.parametrize(("listed", "carried"), SOURCE_RANGES)
def test_source_ranges_of_the_family_are_carried(listed: list[str], carried: list[str]) -> None:
    port = only_port(Cluster(service(loadBalancerSourceRanges=listed), SLICE))
    assert port.source_ranges == tuple(map(parse_network, carried))
    assert all(isinstance(network, Network) for network in port.source_ranges)


def test_a_bad_source_range_is_reported_and_the_others_restrict() -> None:
    cluster = Cluster(service(loadBalancerSourceRanges=["10.0.0.0/33", "10.2.0.0/16"]), SLICE)
    assert only_port(cluster).source_ranges == (parse_network("10.2.0.0/16"),)
    assert "prefix length out of range" in cluster.told_of("spec.loadBalancerSourceRanges[0]")


def test_a_load_balancer_ip_that_is_also_an_external_ip_stays_restricted() -> None:
    """kube-proxy's firewall is about the address, whatever else the Service calls it."""
    address = ["203.0.113.7"]
    both = service(
        type="LoadBalancer", ingress=address, externalIPs=address, loadBalancerSourceRanges=["10.0.0.0/8"]
    )
    sets = {f.address: key for f, key in only_port(Cluster(both, SLICE)).frontends}
    assert sets[parse_address("203.0.113.7")] == RESTRICTED_SET


def test_a_load_balancer_whose_restriction_cannot_be_read_is_not_opened_to_everybody() -> None:
    broken = service(type="LoadBalancer", ingress=["203.0.113.7"], loadBalancerSourceRanges=["10.0.0/8"])
    cluster = Cluster(broken, SLICE)
    assert cluster.dial("203.0.113.7") == "passed"
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]


LOAD_BALANCER: dict[str, Any] = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


def test_the_health_check_port_counts_ready_endpoints_of_this_node_once() -> None:
    two_ports = [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}]
    cluster = Cluster(
        service(healthCheckNodePort=32_000, **DUAL, **LOAD_BALANCER),
        endpoint_slice(
            ready("10.1.0.1", node=NODE),
            ready("10.1.0.2", node=NODE),
            terminating("10.1.0.3", node=NODE),
            unready("10.1.0.4", node=NODE),
            ready("10.1.0.5", node="node-b"),
            ports=two_ports,
        ),
        endpoint_slice(ready("fd00::1", node=NODE), ready("fd00::2", node=NODE), name="web-6", kind="IPv6"),
    )
    view = cluster.state.views["shop", "web"]
    assert (view.health_check_port, view.local_ready) == (32_000, 2)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "LoadBalancer", "healthCheckNodePort": 32_000},
        {"type": "NodePort", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32_000},
        {**LOAD_BALANCER, "healthCheckNodePort": 0},
        LOAD_BALANCER,
    ],
)
def test_health_checks_need_a_load_balancer_with_the_local_policy(spec: dict[str, Any]) -> None:
    cluster = Cluster(service(**spec), endpoint_slice(ready("10.1.0.1", node=NODE)))
    view = cluster.state.views["shop", "web"]
    assert (view.health_check_port, view.local_ready, cluster.told()) == (0, 0, set())


def test_a_health_check_port_out_of_range_is_reported() -> None:
    cluster = Cluster(service(healthCheckNodePort=70_000, **LOAD_BALANCER), SLICE)
    assert cluster.state.views["shop", "web"].health_check_port == 0
    assert "out of range" in cluster.told_of("spec.healthCheckNodePort")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (None, ""),
        ("2024-05-06T07:08:09Z", "2024-05-06T07:08:09Z"),
        ("2024-05-06T09:08:09+02:00", "2024-05-06T07:08:09Z"),
        ("2024-05-06 07:08:09", "2024-05-06T07:08:09Z"),
        ("yesterday", ""),
        ("0001-01-01T00:00:00+14:00", ""),
    ],
)
def test_creation_times_are_kept_in_one_notation(written: str | None, kept: str) -> None:
    cluster = Cluster(service(created=written), SLICE)
    assert cluster.state.views["shop", "web"].created == kept
    assert bool(cluster.told()) == (bool(written) and not kept)
