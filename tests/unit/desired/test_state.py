"""Updates of the desired state: conflicts, addresses, problems, and what is not part of a change."""

from __future__ import annotations

from typing import Any

import pytest

from pyagent.desired.state import DesiredState
from pyagent.model.address import Network, parse_address, parse_network
from pyagent.model.outcome import Outcome
from pyagent.model.service import AddressRule
from tests.unit.desired.objects import (
    NODE,
    NODE_IP,
    OTHER_IP,
    Cluster,
    endpoint_slice,
    node,
    ready,
    service,
    service_cidr,
    settings,
    terminating,
    unready,
)

WEB = "10.96.0.10"
SLICE = endpoint_slice(ready("10.1.0.1"))
OLD, YOUNG = "2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z"


def pair(first: dict[str, Any], second: dict[str, Any]) -> list[Any]:
    """Two Services, `a` with an endpoint ending in 1 and `b` with one ending in 2, and their slices."""
    return [
        service("a", first.pop("cluster_ip", "10.96.0.1"), **first),
        service("b", second.pop("cluster_ip", "10.96.0.2"), **second),
        endpoint_slice(ready("10.1.0.1"), name="a-1", service="a"),
        endpoint_slice(ready("10.1.0.2"), name="b-1", service="b"),
    ]


NODE_PORT: dict[str, Any] = {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}
PRECEDENCE = [
    pytest.param(YOUNG, OLD, "10.1.0.2:8080", id="the older wins"),
    pytest.param(OLD, YOUNG, "10.1.0.1:8080", id="whichever it is"),
    pytest.param(OLD, OLD, "10.1.0.1:8080", id="of equal age the first by name"),
    pytest.param(None, YOUNG, "10.1.0.2:8080", id="no creation time counts as youngest"),
    pytest.param(None, None, "10.1.0.1:8080", id="without times the first by name"),
    pytest.param(
        "2023-01-01T03:00:00+03:00", "2023-01-01T00:00:01Z", "10.1.0.1:8080", id="across time zones"
    ),
]
CONTESTED = [
    pytest.param({"cluster_ip": WEB}, WEB, 80, "spec.clusterIP", id="ClusterIP"),
    pytest.param({"externalIPs": ["198.51.100.9"]}, "198.51.100.9", 80, "spec.externalIPs", id="external IP"),
    pytest.param(
        {"type": "LoadBalancer", "ingress": ["203.0.113.7"]},
        "203.0.113.7",
        80,
        "status.loadBalancer.ingress",
        id="load-balancer IP",
    ),
    pytest.param(NODE_PORT, NODE_IP, 30080, "spec.ports[].nodePort", id="nodePort"),
]


@pytest.mark.parametrize(("first", "second", "winner"), PRECEDENCE)
@pytest.mark.parametrize(("spec", "address", "port", "field"), CONTESTED)
@pytest.mark.parametrize("backwards", [False, True])
def test_a_contested_address_has_one_owner_and_the_other_is_told(
    spec: dict[str, Any],
    address: str,
    port: int,
    field: str,
    first: str | None,
    second: str | None,
    winner: str,
    backwards: bool,
) -> None:
    objects = pair({**spec, "created": first}, {**spec, "created": second})
    cluster = Cluster(*(reversed(objects) if backwards else objects))
    assert cluster.dial(address, port) == [winner]
    (problem,) = cluster.problems
    assert (problem.name, problem.field) == ("a" if winner.startswith("10.1.0.2") else "b", field)
    assert f"shop/{'b' if problem.name == 'a' else 'a'}" in problem.reason


@pytest.mark.parametrize(("spec", "address", "port", "_"), CONTESTED)
def test_the_loser_takes_over_when_the_winner_goes(
    spec: dict[str, Any], address: str, port: int, _: str
) -> None:
    objects = pair({**spec, "created": OLD}, {**spec, "created": YOUNG})
    cluster = Cluster(*objects)
    cluster.delete(objects[0])
    assert (cluster.dial(address, port), cluster.told()) == (["10.1.0.2:8080"], set())
    cluster.put(objects[0])
    assert (cluster.dial(address, port), len(cluster.told())) == (["10.1.0.1:8080"], 1)


@pytest.mark.parametrize(("spec", "address", "port", "_"), CONTESTED)
def test_a_service_made_anew_loses_its_age(spec: dict[str, Any], address: str, port: int, _: str) -> None:
    cluster = Cluster(*pair({**spec, "created": OLD}, {**spec, "created": YOUNG}))
    cluster.put(pair({**spec, "created": "2025-01-01T00:00:00Z"}, {})[0])
    assert cluster.dial(address, port) == ["10.1.0.2:8080"]
    assert {problem.name for problem in cluster.problems} == {"a"}


def test_a_service_made_anew_is_in_no_conflict_with_itself() -> None:
    cluster = Cluster(service(created=OLD, **NODE_PORT), SLICE)
    change = cluster.put(service(created=YOUNG, **NODE_PORT))
    assert (change.frontends, cluster.told()) == ({}, set())
    cluster.delete(service())
    assert cluster.frontends == {}


def test_three_claimants_wait_in_order() -> None:
    claimants = [service(name, WEB, created=f"202{n}-01-01T00:00:00Z") for n, name in enumerate("cab")]
    slices = [endpoint_slice(ready(f"10.1.0.{n}"), name=name, service=name) for n, name in enumerate("cab")]
    cluster = Cluster(*claimants, *slices)
    for n in range(3):
        assert cluster.dial(WEB) == [f"10.1.0.{n}:8080"]
        assert len(cluster.problems) == 2 - n
        cluster.delete(claimants[n])
    assert cluster.dial(WEB) == "passed"


def test_a_cluster_ip_is_never_lost_to_an_older_external_ip() -> None:
    cluster = Cluster(
        *pair({"externalIPs": ["10.96.0.2"], "created": OLD}, {"cluster_ip": "10.96.0.2", "created": YOUNG})
    )
    assert cluster.dial("10.96.0.2") == ["10.1.0.2:8080"]
    (problem,) = cluster.problems
    assert (problem.name, problem.field) == ("a", "spec.externalIPs")


def test_one_node_port_in_two_families_is_no_conflict() -> None:
    cluster = Cluster(*pair(dict(NODE_PORT), {**NODE_PORT, "cluster_ip": "fd10::2"}))
    assert cluster.told() == set()
    assert len(cluster.frontends) == 4


def test_losing_node_ports_of_other_nodes_is_told_once() -> None:
    cluster = Cluster(*pair(dict(NODE_PORT), dict(NODE_PORT)), remote_node_ports=True)
    assert len(cluster.told()) == 1


def test_services_that_share_a_cluster_ip_on_different_ports_both_serve_and_it_is_told() -> None:
    other_port = [{"name": "http", "port": 81}]
    cluster = Cluster(*pair({"cluster_ip": WEB, "created": OLD}, {"cluster_ip": WEB, "ports": other_port}))
    assert (cluster.dial(WEB, 80), cluster.dial(WEB, 81)) == (["10.1.0.1:8080"], ["10.1.0.2:8080"])
    assert "also the ClusterIP of Service shop/a" in cluster.told_of("spec.clusterIP")


# service addresses


def test_other_ports_and_protocols_of_a_cluster_ip_are_refused() -> None:
    cluster = Cluster(service(), SLICE)
    assert cluster.dial(WEB, 81) == Outcome.REFUSED_UNDEFINED_PORT
    assert cluster.service_addresses == {Network(parse_address(WEB), 128): AddressRule.REFUSE_UNDEFINED_PORT}
    change = cluster.delete(service())
    assert change.service_addresses == {Network(parse_address(WEB), 128): None}


def test_a_cluster_ip_is_known_even_if_none_of_its_ports_can_be_served() -> None:
    cluster = Cluster(service(ports=[{"port": 5060, "protocol": "SCTP"}]))
    assert cluster.dial(WEB, 5060) == Outcome.REFUSED_UNDEFINED_PORT


def test_two_holders_of_a_cluster_ip_keep_it_until_both_are_gone() -> None:
    objects = pair({"cluster_ip": WEB}, {"cluster_ip": WEB})
    cluster = Cluster(*objects)
    cluster.delete(objects[0])
    assert cluster.dial(WEB, 81) == Outcome.REFUSED_UNDEFINED_PORT
    cluster.delete(objects[1])
    assert cluster.dial(WEB, 81) == "passed"


def test_unallocated_addresses_of_a_service_range_are_refused() -> None:
    cluster = Cluster(service_cidr("kubernetes", "10.96.0.0/16", "fd10::/112"), service())
    assert cluster.dial("10.96.9.9") == Outcome.REFUSED_UNALLOCATED_ADDRESS
    assert cluster.dial("fd10::9") == Outcome.REFUSED_UNALLOCATED_ADDRESS
    assert cluster.dial(WEB, 81) == Outcome.REFUSED_UNDEFINED_PORT
    assert cluster.dial("10.97.0.1") == "passed"


def test_a_range_named_by_two_objects_goes_with_the_last() -> None:
    cluster = Cluster(service_cidr("one", "10.96.0.0/16"), service_cidr("two", "10.96.0.0/16"))
    assert cluster.delete(service_cidr("one")).service_addresses == {}
    assert cluster.dial("10.96.9.9") == Outcome.REFUSED_UNALLOCATED_ADDRESS
    cluster.delete(service_cidr("two"))
    assert cluster.dial("10.96.9.9") == "passed"


def test_a_range_of_the_settings_counts_as_that_of_an_object() -> None:
    cluster = Cluster(service_cidr("one", "10.96.0.0/16"), service_cidrs=(parse_network("10.96.0.0/16"),))
    cluster.delete(service_cidr("one"))
    assert cluster.dial("10.96.9.9") == Outcome.REFUSED_UNALLOCATED_ADDRESS


def test_a_changed_service_cidr_takes_effect_at_once() -> None:
    cluster = Cluster(service_cidr("one", "10.96.0.0/16"))
    change = cluster.put(service_cidr("one", "10.97.0.0/16"))
    assert change.service_addresses == {
        parse_network("10.96.0.0/16"): None,
        parse_network("10.97.0.0/16"): AddressRule.REFUSE_UNALLOCATED,
    }


def test_a_service_range_of_one_address_is_no_more_than_its_cluster_ip() -> None:
    cluster = Cluster(service_cidr("one", f"{WEB}/32"), service())
    assert cluster.dial(WEB, 81) == Outcome.REFUSED_UNDEFINED_PORT
    cluster.delete(service())
    assert cluster.dial(WEB, 81) == Outcome.REFUSED_UNALLOCATED_ADDRESS


BAD_RANGES = [
    ("0.0.0.0/0", "the range of all addresses"),
    ("::/0", "the range of all addresses"),
    ("0.0.0.0/1", "it contains loopback addresses"),
    ("127.0.0.0/24", "it contains loopback addresses"),
    ("::/64", "it contains loopback addresses"),
    ("10.96.0.0/33", "prefix length out of range"),
    ("10.96.0.0", "not a CIDR"),
    ("", "not a CIDR"),
]


@pytest.mark.parametrize(("text", "reason"), BAD_RANGES)
def test_a_range_that_would_cut_the_node_off_is_reported_and_not_used(text: str, reason: str) -> None:
    cluster = Cluster(service_cidr("one", text, "10.96.0.0/16"))
    assert list(cluster.service_addresses) == [parse_network("10.96.0.0/16")]
    assert reason in cluster.told_of("spec.cidrs[0]")


def test_a_range_around_this_nodes_address_is_reported_and_not_used() -> None:
    cluster = Cluster(node(NODE, NODE_IP), service_cidr("one", "192.168.0.0/16"))
    assert cluster.service_addresses == {}
    assert any(NODE_IP in line and "ServiceCIDR one" in line for line in cluster.told())
    cluster.put(node(NODE, "172.16.0.1"))
    assert cluster.dial("192.168.0.7") == Outcome.REFUSED_UNALLOCATED_ADDRESS
    assert cluster.told() == set()


def test_a_range_of_the_settings_around_this_node_is_reported_too() -> None:
    cluster = Cluster(node(NODE, NODE_IP), service_cidrs=(parse_network("192.168.0.0/16"),))
    assert cluster.service_addresses == {}
    assert any("--service-cidr" in line for line in cluster.told())


# what is part of a change


def test_an_endpoint_change_touches_no_frontend() -> None:
    cluster = Cluster(service(), SLICE)
    change = cluster.put(endpoint_slice(ready("10.1.0.1"), ready("10.1.0.2")))
    assert len(change.service_ports) == 1
    assert (change.frontends, change.service_addresses, change.node_addresses) == ({}, {}, {})


def test_what_comes_out_equal_is_no_change_and_keeps_its_objects() -> None:
    cluster = Cluster(service(), SLICE)
    held = dict(cluster.state.views)
    change = cluster.put(endpoint_slice(ready("10.1.0.1"), unready("10.1.0.2")))
    assert change.service_ports == {}
    assert cluster.state.views["shop", "web"].ports[0] is held["shop", "web"].ports[0]


def test_a_set_that_stays_equal_keeps_its_object() -> None:
    two_sets = service(
        type="NodePort",
        internalTrafficPolicy="Local",
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
    )
    cluster = Cluster(two_sets, endpoint_slice(ready("10.1.0.1", node=NODE)))
    (before,) = cluster.ports.values()
    cluster.put(endpoint_slice(ready("10.1.0.1", node=NODE), ready("10.1.0.2")))
    (after,) = cluster.ports.values()
    assert [s is t for s, t in zip(before.sets, after.sets, strict=True)] == [True, False]


def test_a_service_of_one_port_shares_its_backends_with_the_slice() -> None:
    cluster = Cluster(service(), SLICE)
    (piece,) = cluster.snapshot.slices_of(("shop", "web"))
    assert cluster.state.views["shop", "web"].ports[0].sets[0].backends is piece.endpoints.backends


def test_an_unaffected_service_is_not_computed_again() -> None:
    cluster = Cluster(*pair({}, {}))
    before = cluster.state.views["shop", "a"]
    cluster.put(endpoint_slice(ready("10.1.0.7"), name="b-1", service="b"))
    assert cluster.state.views["shop", "a"] is before


def test_a_zone_that_comes_late_moves_services_with_hints_only() -> None:
    hinted = endpoint_slice(
        ready("10.1.0.1", zones=["zone-a"]), ready("10.1.0.2", zones=["zone-b"]), name="a-1", service="a"
    )
    cluster = Cluster(*pair({}, {})[:2], hinted, zone="")
    plain = cluster.state.views["shop", "b"]
    change = cluster.put(node(NODE, zone="zone-b"))
    assert [key.name for key in change.service_ports] == ["a"]
    assert cluster.dial("10.96.0.1") == ["10.1.0.2:8080"]
    assert cluster.state.views["shop", "b"] is plain
    cluster.put(node(NODE, zone=None))
    assert len(cluster.dial("10.96.0.1")) == 2  # type: ignore[arg-type]


def test_a_new_interface_address_moves_every_service_it_concerns() -> None:
    cluster = Cluster(*pair({}, {}), service("c", "10.96.0.3", externalIPs=["198.51.100.9"]))
    addresses = map(parse_address, (NODE_IP, "10.1.0.1", "10.1.0.2", "198.51.100.9"))
    change = cluster.configure(interface_addresses=frozenset(addresses))
    assert {key.name for key in change.service_ports} == {"a", "b", "c"}


def test_the_nodes_that_backends_name_are_named_with_their_zones() -> None:
    cluster = Cluster(node("node-b", OTHER_IP, zone="zone-b"))
    cluster.snapshot.put("Service", service())
    backends = [
        ready("10.1.0.1", node="node-b", zone="stale"),
        ready("10.1.0.2", node="node-c", zone="zone-c"),
    ]
    change = cluster.put(endpoint_slice(*backends, ready("10.1.0.3")))
    assert change.nodes == {"node-b": "zone-b", "node-c": "zone-c"}
    assert cluster.state.full().nodes == {NODE: "zone-a", "node-b": "zone-b", "node-c": "zone-c"}
    assert cluster.put(node("node-b", OTHER_IP, zone="zone-x")).nodes["node-b"] == "zone-x"


def test_the_full_change_brings_an_empty_follower_up_to_date() -> None:
    objects = pair(dict(NODE_PORT), {"cluster_ip": WEB, "internalTrafficPolicy": "Local"})
    cluster = Cluster(*objects, node(NODE, NODE_IP), service_cidr("one", "10.96.0.0/16"), service("bad", "x"))
    follower = Cluster()
    follower.node_addresses.clear()
    follower.follow(cluster.state.full())
    assert (follower.ports, follower.frontends) == (cluster.ports, cluster.frontends)
    assert follower.service_addresses == cluster.service_addresses
    assert follower.node_addresses == cluster.node_addresses
    assert follower.problems == cluster.problems


def test_everything_also_forgets_what_went_since_the_last_look() -> None:
    cluster = Cluster(service(), SLICE, service("bad", "x"))
    cluster.snapshot.delete("Service", "shop", "web")
    cluster.snapshot.delete("Service", "shop", "bad")
    cluster.follow(cluster.state.update(cluster.snapshot, cluster.snapshot.everything()))
    assert (cluster.ports, cluster.told()) == ({}, set())


def test_an_update_without_news_is_empty() -> None:
    cluster = Cluster(service(), SLICE, node(NODE, NODE_IP))
    change = cluster.update()
    assert not any(getattr(change, field) for field in change.__struct_fields__)


# problems


def test_a_problem_is_told_once_and_cleared_when_mended() -> None:
    cluster = Cluster()
    bad = service(ports=[{"name": "http", "port": 80}, {"name": "x", "port": 0}])
    assert len(cluster.put(bad).new_problems) == 1
    assert cluster.put(endpoint_slice(ready("10.1.0.1"))).new_problems == ()
    assert cluster.put(endpoint_slice(terminating("10.1.0.1"))).new_problems == ()
    assert len(cluster.state.problems) == 1
    change = cluster.put(service())
    assert len(change.cleared_problems) == 1
    assert not cluster.state.problems


def test_the_problems_of_a_deleted_service_are_cleared() -> None:
    cluster = Cluster(service("bad", "x"))
    assert len(cluster.told()) == 1
    cluster.delete(service("bad"))
    assert cluster.told() == set()


def test_what_stays_wrong_is_not_told_again_when_something_else_is_mended() -> None:
    cluster = Cluster(service("a", WEB, created=OLD), service("b", WEB, created=OLD), service("c", WEB))
    told = cluster.told()
    change = cluster.delete(service("c"))
    assert len(change.cleared_problems) == 1
    assert change.new_problems == ()
    assert cluster.told() < told


def test_a_state_made_from_scratch_tells_the_same_problems() -> None:
    cluster = Cluster(service("bad", "x"), *pair({"cluster_ip": WEB}, {"cluster_ip": WEB}))
    anew = DesiredState(settings())
    change = anew.update(cluster.snapshot, cluster.snapshot.everything())
    assert set(change.new_problems) == cluster.problems
