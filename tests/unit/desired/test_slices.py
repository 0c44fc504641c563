"""EndpointSlices of one Service: merged, deduplicated, checked."""

from __future__ import annotations

from typing import Any

import pytest

from pyagent.model.address import Protocol, parse_address
from pyagent.model.outcome import Outcome
from pyagent.model.service import Backend, BackendStateBit
from tests.unit.desired.objects import (
    NODE,
    NODE_IP,
    Cluster,
    dead,
    endpoint,
    endpoint_slice,
    ready,
    service,
    terminating,
)

WEB = "10.96.0.10"


def test_two_slices_of_a_service_are_merged_in_the_order_of_addresses() -> None:
    cluster = Cluster(
        service(),
        endpoint_slice(ready("10.1.0.2"), name="web-2"),
        endpoint_slice(ready("10.1.0.3"), ready("10.1.0.1"), name="web-1"),
    )
    assert cluster.dial(WEB) == ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"]


def test_a_new_version_of_a_slice_replaces_the_old_one() -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1"), ready("10.1.0.2")))
    cluster.put(endpoint_slice(ready("10.1.0.2"), ready("10.1.0.3")))
    assert cluster.dial(WEB) == ["10.1.0.2:8080", "10.1.0.3:8080"]


def test_slices_of_other_services_and_namespaces_are_not_mixed_in() -> None:
    cluster = Cluster(
        service(),
        endpoint_slice(ready("10.1.0.1")),
        endpoint_slice(ready("10.1.0.2"), name="api-1", service="api"),
        endpoint_slice(ready("10.1.0.3"), namespace="other"),
    )
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]


@pytest.mark.parametrize("number", [None, 0])
def test_a_port_without_a_number_gives_no_endpoints(number: int | None) -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1"), ports=[{"name": "http", "port": number}]))
    assert cluster.ports[next(iter(cluster.ports))].sets[0].backends == ()
    assert cluster.told() == set()


def test_a_named_port_may_have_several_numbers() -> None:
    cluster = Cluster(
        service(),
        endpoint_slice(ready("10.1.0.1"), name="web-1"),
        endpoint_slice(ready("10.1.0.1"), name="web-2", ports=[{"name": "http", "port": 9090}]),
    )
    assert cluster.dial(WEB) == ["10.1.0.1:8080", "10.1.0.1:9090"]


def test_every_port_of_a_slice_meets_every_endpoint_of_it() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    slice_ports = [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}]
    cluster = Cluster(
        service(ports=ports), endpoint_slice(ready("10.1.0.1"), ready("10.1.0.2"), ports=slice_ports)
    )
    assert cluster.dial(WEB, 80) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    assert cluster.dial(WEB, 81) == ["10.1.0.1:8081", "10.1.0.2:8081"]


def test_a_slice_with_one_of_two_ports_leaves_the_other_alone() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    slice_ports = [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}]
    cluster = Cluster(service(ports=ports), endpoint_slice(ready("10.1.0.1"), ports=slice_ports))
    change = cluster.put(
        endpoint_slice(ready("10.1.0.2"), name="web-2", ports=[{"name": "http", "port": 8080}])
    )
    assert [key.port_name for key in change.service_ports] == ["http"]
    assert cluster.dial(WEB, 81) == ["10.1.0.1:8081"]


def test_a_port_without_name_and_protocol_is_unnamed_tcp() -> None:
    cluster = Cluster(
        service(ports=[{"port": 80}]), endpoint_slice(ready("10.1.0.1"), ports=[{"port": 8080}])
    )
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]


def test_one_number_on_two_protocols_is_two_ports() -> None:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    slice_ports = [
        {"name": "dns", "port": 1053, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 2053, "protocol": "TCP"},
    ]
    cluster = Cluster(service(ports=ports), endpoint_slice(ready("10.1.0.1"), ports=slice_ports))
    assert cluster.dial(WEB, 53, Protocol.UDP) == ["10.1.0.1:1053"]
    assert cluster.dial(WEB, 53, Protocol.TCP) == ["10.1.0.1:2053"]


DUPLICATES = [
    pytest.param([terminating, ready, terminating], id="the ready one in the middle wins"),
    pytest.param([ready, terminating], id="a later terminating one does not replace it"),
    pytest.param([terminating, ready], id="a later ready one replaces a terminating one"),
    pytest.param([ready, dead], id="a later dead one does not replace it"),
]


@pytest.mark.parametrize("kinds", DUPLICATES)
@pytest.mark.parametrize("together", [True, False], ids=["one slice", "several slices"])
def test_of_an_address_listed_twice_the_living_one_counts(kinds: list[Any], together: bool) -> None:
    duplicates = [kind("10.1.0.1") for kind in kinds]
    slices = (
        [endpoint_slice(*duplicates)]
        if together
        else [endpoint_slice(one, name=f"web-{n}") for n, one in enumerate(duplicates)]
    )
    cluster = Cluster(service(), *slices)
    (backend,) = next(iter(cluster.ports.values())).sets[0].backends
    assert backend.state & BackendStateBit.READY


def test_ambiguous_duplicates_are_settled_by_the_names_of_slices_not_by_their_arrival() -> None:
    first = endpoint_slice(ready("10.1.0.1", node="node-x"), name="web-1")
    second = endpoint_slice(ready("10.1.0.1", node="node-y"), name="web-2")
    one_way, other_way = Cluster(service(), first, second), Cluster(service(), second, first)
    assert one_way.ports == other_way.ports
    (backend,) = next(iter(one_way.ports.values())).sets[0].backends
    assert backend.node == "node-y"


def test_the_hints_of_a_duplicate_go_with_it() -> None:
    gone = terminating("10.1.0.1", zones=["zone-b"])
    cluster = Cluster(service(), endpoint_slice(gone, ready("10.1.0.1"), ready("10.1.0.2", zones=["zone-a"])))
    assert cluster.dial(WEB) == ["10.1.0.1:8080", "10.1.0.2:8080"]


def test_reordered_endpoints_and_ports_are_no_change() -> None:
    ports = [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]
    slice_ports = [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}]
    cluster = Cluster(
        service(ports=ports), endpoint_slice(ready("10.1.0.1"), ready("10.1.0.2"), ports=slice_ports)
    )
    change = cluster.put(
        endpoint_slice(ready("10.1.0.2"), ready("10.1.0.1"), ports=list(reversed(slice_ports)))
    )
    assert change.service_ports == {}


def test_a_renamed_slice_port_no_longer_serves_the_service_port() -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1")))
    cluster.put(endpoint_slice(ready("10.1.0.1"), ports=[{"name": "web", "port": 8080}]))
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS


def test_only_the_first_address_of_an_endpoint_is_used() -> None:
    listed = endpoint("10.1.0.1", addresses=["10.1.0.1", "10.1.0.2"])
    assert Cluster(service(), endpoint_slice(listed)).dial(WEB) == ["10.1.0.1:8080"]


def test_an_old_notation_with_leading_zeros_is_read_as_decimal() -> None:
    cluster = Cluster(service(cluster_ip="172.30.0.041"), endpoint_slice(ready("10.180.00.001")))
    assert cluster.dial("172.30.0.41") == ["10.180.0.1:8080"]


def test_addresses_beyond_the_ordinary_networks_are_served() -> None:
    listed = ["240.0.0.9", "169.10.0.1", "10.1.0.1"]
    cluster = Cluster(service(), endpoint_slice(*map(ready, listed)))
    assert cluster.dial(WEB) == ["10.1.0.1:8080", "169.10.0.1:8080", "240.0.0.9:8080"]


def test_a_terminating_endpoint_stays_until_it_is_gone() -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1")))
    cluster.put(endpoint_slice(terminating("10.1.0.1")))
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    cluster.put(endpoint_slice())
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS


def test_backends_tell_where_they_are_and_which_pod_they_are() -> None:
    here = ready(
        "10.1.0.1", node=NODE, zone="zone-a", targetRef={"kind": "Pod", "name": "web-0", "namespace": "shop"}
    )
    cluster = Cluster(service(), endpoint_slice(here, ready("10.1.0.2", targetRef={"name": "web-1"})))
    bits = BackendStateBit
    assert next(iter(cluster.ports.values())).sets[0].backends == (
        Backend(
            parse_address("10.1.0.1"),
            8080,
            bits.READY | bits.SERVING | bits.LOCAL,
            NODE,
            "zone-a",
            "shop/web-0",
        ),
        Backend(parse_address("10.1.0.2"), 8080, bits.READY | bits.SERVING, "", "", "shop/web-1"),
    )


def test_what_is_no_pod_is_not_named_as_one() -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1", targetRef={"kind": "Node", "name": "n"})))
    assert next(iter(cluster.ports.values())).sets[0].backends[0].target == ""


def test_backends_on_the_nodes_own_address_are_marked_while_it_has_it() -> None:
    cluster = Cluster(service(), endpoint_slice(ready(NODE_IP, node=NODE), ready("10.1.0.1", node=NODE)))

    def marked() -> list[bool]:
        backends = next(iter(cluster.ports.values())).sets[0].backends
        return [bool(b.state & BackendStateBit.ON_NODE_ADDRESS) for b in backends]

    assert marked() == [False, True]
    cluster.configure(interface_addresses=frozenset({parse_address("10.1.0.1")}))
    assert marked() == [True, False]


UNUSABLE_ADDRESSES = [
    ("127.0.0.1", "IPv4", "a loopback address"),
    ("127.8.0.1", "IPv4", "a loopback address"),
    ("169.254.169.254", "IPv4", "a link-local address"),
    ("224.0.0.1", "IPv4", "a multicast address"),
    ("0.0.0.0", "IPv4", "the unspecified address"),
    ("::1", "IPv6", "a loopback address"),
    ("fe80::1", "IPv6", "a link-local address"),
    ("ff02::1", "IPv6", "a multicast address"),
    ("::", "IPv6", "the unspecified address"),
    ("::ffff:10.1.0.1", "IPv6", "not IPv6"),
    ("fd00::1", "IPv4", "not IPv4"),
    ("10.1.0.1", "IPv6", "not IPv6"),
    ("10.1.0.256", "IPv4", "not an IP address"),
    ("10.1.0", "IPv4", "not an IP address"),
    ("web.example", "IPv4", "not an IP address"),
    ("10.1.0.1\x00", "IPv4", "not an IP address"),
    ("", "IPv4", "not an IP address"),
    ("9" * 100_000, "IPv4", "not an IP address"),
]


@pytest.mark.parametrize(("address", "kind", "reason"), UNUSABLE_ADDRESSES)
def test_an_unusable_endpoint_address_is_reported_and_the_others_serve(
    address: str, kind: str, reason: str
) -> None:
    good = "10.1.0.7" if kind == "IPv4" else "fd00::7"
    cluster_ip = WEB if kind == "IPv4" else "fd10::a"
    cluster = Cluster(service(cluster_ip=cluster_ip), endpoint_slice(ready(address), ready(good), kind=kind))
    assert cluster.dial(cluster_ip) == [f"{good}:8080" if kind == "IPv4" else f"[{good}]:8080"]
    told = cluster.told_of("endpoints[0].addresses[0]")
    assert reason in told
    assert len(told) < 300


@pytest.mark.parametrize("kind", ["FQDN", "", "ipv4", "x" * 1000])
def test_a_slice_of_another_address_type_is_left_out_and_reported(kind: str) -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1"), kind=kind))
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS
    assert "write IPv4 or IPv6" in cluster.told_of("addressType")


BAD_FIELDS = [
    ({"ports": [{"name": "http", "port": 70000}]}, "ports[0].port", "out of range"),
    ({"ports": [{"name": "http", "port": -1}]}, "ports[0].port", "out of range"),
    (
        {"ports": [{"name": "http", "port": 80, "protocol": "tcp"}]},
        "ports[0].protocol",
        "want TCP, UDP or SCTP",
    ),
]


@pytest.mark.parametrize(("fields", "field", "reason"), BAD_FIELDS)
def test_a_bad_port_of_a_slice_is_reported(fields: dict[str, Any], field: str, reason: str) -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1"), **fields))
    assert reason in cluster.told_of(field)


def test_a_bad_port_does_not_stop_the_next_one() -> None:
    ports = [{"name": "x", "port": 70000}, {"name": "http", "port": 8080}]
    assert Cluster(service(), endpoint_slice(ready("10.1.0.1"), ports=ports)).dial(WEB) == ["10.1.0.1:8080"]


def test_an_endpoint_without_addresses_is_reported_and_the_others_serve() -> None:
    cluster = Cluster(service(), endpoint_slice(endpoint("x", addresses=[]), ready("10.1.0.1")))
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert "list the endpoint's address" in cluster.told_of("endpoints[0].addresses")


@pytest.mark.parametrize(("field", "value"), [("nodeName", "no\x00de"), ("zone", "z" * 64)])
def test_a_place_that_is_no_name_is_reported_and_counts_as_none(field: str, value: str) -> None:
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1", **{field: value})))
    (backend,) = next(iter(cluster.ports.values())).sets[0].backends
    assert (backend.node, backend.zone) == ("", "")
    assert cluster.told_of(f"endpoints[0].{field}")


def test_sctp_ports_of_a_slice_are_no_problem() -> None:
    ports = [{"name": "sig", "port": 5060, "protocol": "SCTP"}, {"name": "http", "port": 8080}]
    cluster = Cluster(service(), endpoint_slice(ready("10.1.0.1"), ports=ports))
    assert (cluster.dial(WEB), cluster.told()) == (["10.1.0.1:8080"], set())


def test_a_slice_of_ten_thousand_ports_and_one_service_port_is_served() -> None:
    ports = [{"name": f"p{n}", "port": n + 1} for n in range(10_000)]
    cluster = Cluster(
        service(ports=[{"name": "p9999", "port": 80}]), endpoint_slice(ready("10.1.0.1"), ports=ports)
    )
    assert cluster.dial(WEB) == ["10.1.0.1:10000"]


def test_more_endpoints_than_a_set_can_hold_are_cut_off_and_reported() -> None:
    many = [ready(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") for n in range(65_540)]
    cluster = Cluster(service(), endpoint_slice(*many))
    assert len(cluster.dial(WEB)) == 65_535  # type: ignore[arg-type]
    assert "more than 65535 endpoints" in cluster.told_of("spec.ports[0]")


def test_many_bad_endpoints_are_told_in_a_few_lines() -> None:
    cluster = Cluster(service(), endpoint_slice(*[ready("bad") for _ in range(1000)], ready("10.1.0.1")))
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]
    assert len(cluster.told()) == 21
    assert any("980 more problems" in line for line in cluster.told())
