"""The order of writes, case by case; `Node` holds each single one against what clients may see."""

from __future__ import annotations

import pytest

from pyagent.datapath.draft import Plan
from pyagent.datapath.encoded import PROBE_FRONTENDS, node_port_frontend_key
from pyagent.datapath.plan import no_change
from pyagent.datapath.writes import Put, Remove, Store
from pyagent.model.address import Family, Protocol, parse_address, parse_network
from pyagent.model.outcome import Outcome
from pyagent.model.service import ANY_OTHER_NODE, CLUSTER_SET, LOCAL_SET, AddressRule, SetKey, View
from tests.property.test_plan import DIALS
from tests.unit.datapath_plan.desires import Desired, backend, dialled, node_port, port_key, service_port
from tests.unit.datapath_plan.node import Node

A, B = port_key("a"), port_key("b")
ONE, TWO, THREE = backend("10.8.0.1"), backend("10.8.0.2"), backend("10.8.0.3")
NODE_1 = SetKey(View.NODE, "n1")
OWN_ADDRESS, OTHER_ADDRESS = parse_address("192.168.0.1"), parse_address("192.168.0.2")


@pytest.fixture
def node() -> Node:
    node = Node(DIALS)
    node.change(Desired().full(), complete=True)
    return node


def move(node: Node, old: Desired, new: Desired) -> Plan:
    """Plan from one desired state to the next; afterwards nothing is left to do."""
    made = node.change(new.since(old))
    node.assert_answers(new)
    assert not node.change(new.full(), complete=True).writes
    return made


def maps_of(made: Plan) -> list[str]:
    return [write.map for write in made.writes]


def simple(*backends_: object) -> Desired:
    desired = Desired()
    desired.add(service_port(A, {CLUSTER_SET: backends_}), dialled("10.96.0.1"))  # type: ignore[dict-item]
    return desired


def test_what_is_referred_to_is_written_before_what_refers_to_it(node: Node) -> None:
    made = move(node, Desired(), simple(ONE, TWO))
    assert maps_of(made) == ["names", "backends", "slots", "sets", "config", "frontends"]


def test_a_changed_endpoint_costs_no_entry_of_a_hash_map(node: Node) -> None:
    move(node, Desired(), simple(ONE, TWO))
    made = move(node, simple(ONE, TWO), simple(ONE, THREE))
    assert maps_of(made) == ["backends", "slots", "sets"]
    assert all(isinstance(write, Store) for write in made.writes)
    assert len(made.writes[-1].data) == 8  # type: ignore[union-attr]


def test_every_switch_counts_the_generation_up(node: Node) -> None:
    generations = []
    old = Desired()
    for backends_ in ([ONE], [TWO], [ONE, TWO]):
        move(node, old, simple(*backends_))
        old = simple(*backends_)
        generations.append(node.maps.arrays["sets"][8])
    assert generations == [1, 2, 3]


def test_a_backend_that_starts_to_terminate_is_one_aligned_store(node: Node) -> None:
    leaving = backend("10.8.0.1", state=6)
    move(node, Desired(), simple(ONE, TWO))
    words = node.words()
    made = move(node, simple(ONE, TWO), simple(leaving, TWO))
    assert [(w.map, len(w.data)) for w in made.writes if isinstance(w, Store)] == [("backends", 4)]
    assert node.words() == words
    assert not made.freed


def test_a_backend_that_returns_gets_a_new_incarnation(node: Node) -> None:
    move(node, Desired(), simple(ONE, TWO))
    first = node.words()[A, ONE.address, ONE.port]
    move(node, simple(ONE, TWO), simple(TWO))
    node.end_grace_period()
    move(node, simple(TWO), simple(TWO, ONE))
    again = node.words()[A, ONE.address, ONE.port]
    assert again[0] == first[0], "the only id that was given back"
    assert again[1] > first[1]


def test_slots_of_removed_backends_go_to_new_ones(node: Node) -> None:
    move(node, Desired(), simple(ONE, TWO))
    move(node, simple(ONE, TWO), simple(THREE, TWO))
    _, candidates = node.decision(DIALS[0])
    assert [address for address, *_ in candidates] == [THREE.address, TWO.address]


def test_a_service_port_that_goes_takes_its_refusal_rule_before_its_frontend(node: Node) -> None:
    old = simple(ONE)
    old.service_addresses[parse_network("10.96.0.1/32")] = AddressRule.REFUSE_UNDEFINED_PORT
    came = move(node, Desired(), old)
    assert maps_of(came).index("frontends") < maps_of(came).index("service_addresses")
    gone = move(node, old, Desired())
    removed = [write.map for write in gone.writes if isinstance(write, Remove)]
    assert removed == ["service_addresses", "frontends", "names"]


def test_two_services_exchange_their_addresses_while_both_change(node: Node) -> None:
    old, new = Desired(), Desired()
    old.add(service_port(A, {CLUSTER_SET: [ONE]}), dialled("10.96.0.1"), dialled("203.0.113.7"))
    old.add(service_port(B, {CLUSTER_SET: [TWO]}), dialled("10.96.0.2"))
    new.add(service_port(A, {CLUSTER_SET: [THREE]}), dialled("10.96.0.2"), dialled("203.0.113.7"))
    new.add(service_port(B, {CLUSTER_SET: [TWO, ONE]}), dialled("10.96.0.1"))
    move(node, Desired(), old)
    move(node, old, new)


def test_a_node_gets_endpoints_of_its_own_while_the_set_of_all_others_changes(node: Node) -> None:
    """The dial leaves ANY_OTHER's set though no entry of it moves: that set must switch last."""
    old, new = Desired(), Desired()
    for desired, members in ((old, [ONE]), (new, [TWO])):
        desired.add(
            service_port(A, {CLUSTER_SET: members, NODE_1: [THREE]}), node_port(30001, ANY_OTHER_NODE)
        )
        desired.node_addresses[OTHER_ADDRESS] = "n1"
    new.frontends[node_port(30001, "n1")] = (A, NODE_1)
    move(node, Desired(), old)
    made = move(node, old, new)
    put = next(i for i, w in enumerate(made.writes) if isinstance(w, Put) and w.map == "frontends")
    switched = max(i for i, w in enumerate(made.writes) if w.map == "sets")
    assert put < switched
    back = move(node, new, old)
    removed = next(i for i, w in enumerate(back.writes) if isinstance(w, Remove) and w.map == "frontends")
    assert min(i for i, w in enumerate(back.writes) if w.map == "sets") < removed


def test_an_address_becomes_the_nodes_only_after_its_node_ports_are_right(node: Node) -> None:
    old, new = Desired(), Desired()
    old.add(service_port(A, {CLUSTER_SET: [ONE]}), node_port(30001), node_port(30002))
    new.add(service_port(A, {CLUSTER_SET: [TWO]}), node_port(30001))
    new.node_addresses[OWN_ADDRESS] = ""
    move(node, Desired(), old)
    made = move(node, old, new)
    assert maps_of(made)[-2:] == ["node_addresses", "config"]


def test_bounds_are_widened_before_and_narrowed_after(node: Node) -> None:
    desired = simple(ONE)
    desired.add(service_port(B, {CLUSTER_SET: [TWO]}), node_port(30001))
    came = move(node, Desired(), desired)
    assert maps_of(came).index("config") < maps_of(came).index("frontends")
    gone = move(node, desired, simple(ONE))
    assert maps_of(gone).index("config") > maps_of(gone).index("frontends")


def test_a_full_plan_has_the_frontends_of_the_self_probe(node: Node) -> None:
    assert set(PROBE_FRONTENDS) <= set(node.maps.hashes["frontends"])
    for dial in DIALS[-2:]:
        assert node.decision(dial) == (Outcome.PROBED, ())


def test_a_service_cannot_take_the_self_probes_address(node: Node) -> None:
    desired = Desired()
    desired.add(service_port(A, {CLUSTER_SET: [ONE]}), dialled("192.0.0.8", 1))
    made = node.change(desired.full(), complete=True)
    assert made.unfit == (), "no larger map would have room for it"
    assert node.decision(DIALS[-2]) == (Outcome.PROBED, ())


def test_a_damaged_set_of_the_self_probe_is_repaired(node: Node) -> None:
    node.maps.arrays["slots"][8:16] = bytes(8)
    node.maps.arrays["sets"][0:8] = b"\1" * 8
    node.dials = []
    node.restart()
    node.change(Desired().full(), complete=True)
    node.dials = DIALS
    node.assert_answers(Desired())


def test_a_set_that_no_frontend_uses_any_more_is_marked_and_not_restored(node: Node) -> None:
    old, new = Desired(), Desired()
    old.add(service_port(A, {CLUSTER_SET: [ONE], LOCAL_SET: [ONE]}), dialled("10.96.0.1"))
    new.add(service_port(A, {CLUSTER_SET: [ONE]}), dialled("10.96.0.1"))
    move(node, Desired(), old)
    move(node, old, new)
    node.restart()
    assert node.held.service_ports[A].set_keys == (CLUSTER_SET,)
    assert not node.change(new.full(), complete=True).writes


def test_a_frontend_left_on_a_removed_set_goes_with_it(node: Node) -> None:
    move(node, Desired(), simple(ONE))
    change = no_change()
    change.service_ports[A] = None
    node.change(change)
    assert set(node.maps.hashes["frontends"]) == set(PROBE_FRONTENDS)


def test_affinity_seconds_and_the_answer_when_empty_are_part_of_the_block(node: Node) -> None:
    old, new = Desired(), Desired()
    old.add(service_port(A, {CLUSTER_SET: []}), dialled("10.96.0.1"))
    new.add(
        service_port(A, {CLUSTER_SET: []}, Outcome.REFUSED_NO_LOCAL_ENDPOINTS, 10800), dialled("10.96.0.1")
    )
    move(node, Desired(), old)
    made = move(node, old, new)
    assert maps_of(made) == ["slots", "sets"]


def test_a_socket_bound_to_loopback_finds_a_backend_on_the_node(node: Node) -> None:
    near = backend("192.168.0.1", state=3 | 16)
    desired = simple(ONE, near)
    move(node, Desired(), desired)
    first = int.from_bytes(node.maps.arrays["sets"][8:16], "little") >> 32
    slot = node.maps.arrays["slots"][(first + 2) * 8]
    assert slot == 1
    far = simple(ONE, backend("192.168.0.1"))
    move(node, desired, far)


def test_node_ports_of_other_nodes_use_the_id_of_the_node(node: Node) -> None:
    desired = Desired()
    desired.add(service_port(A, {NODE_1: [ONE]}), node_port(30001, "n1"), to=NODE_1)
    desired.node_addresses[OTHER_ADDRESS] = "n1"
    move(node, Desired(), desired)
    key = node_port_frontend_key(Family.IPV4, node.held.nodes["n1"], 30001, Protocol.TCP)
    assert key in node.maps.hashes["frontends"]


def test_zones_of_nodes_are_kept_in_their_names(node: Node) -> None:
    change = no_change()
    change.nodes = {"n1": "zone-a"}
    node.change(change)
    change.nodes = {"n1": "zone-b"}
    made = node.change(change)
    assert [w.map for w in made.writes] == ["names"]
    assert b"n1\0zone-b" in made.writes[0].value  # type: ignore[union-attr]
