"""Maps that are full: what fits is served, what does not is named, and comes when there is room."""

from __future__ import annotations

import pytest

from pyagent.datapath.layout import Capacities
from pyagent.datapath.plan import no_change
from pyagent.model.address import parse_address, parse_network
from pyagent.model.service import CLUSTER_SET, LOCAL_SET, AddressRule
from tests.unit.datapath_plan.desires import Desired, backend, dialled, port_key, service_port
from tests.unit.datapath_plan.fake_maps import SMALL
from tests.unit.datapath_plan.node import Node

A, B = port_key("a"), port_key("b")
FIRST, SECOND = dialled("10.96.0.1"), dialled("10.96.0.2")
DIALS = [(FIRST[3], 80, FIRST[1]), (SECOND[3], 80, SECOND[1])]


def many(count: int, start: int = 1) -> list[object]:
    return [backend(f"10.8.0.{start + i}") for i in range(count)]


def two_services(for_a: int, for_b: int) -> Desired:
    desired = Desired()
    desired.add(service_port(A, {CLUSTER_SET: many(for_a)}), FIRST)  # type: ignore[dict-item]
    desired.add(service_port(B, {CLUSTER_SET: many(for_b, 100)}), SECOND)  # type: ignore[dict-item]
    return desired


@pytest.mark.parametrize(
    ("capacities", "full_map"),
    [
        (SMALL._replace(backends=6), "backends"),
        (SMALL._replace(slots=20), "slots"),
        (SMALL._replace(sets=2), "sets"),
        (SMALL._replace(frontends=5), "frontends"),
        (SMALL._replace(service_ports=2), "names"),
    ],
)
def test_the_service_that_does_not_fit_is_left_out_whole_and_named(
    capacities: Capacities, full_map: str
) -> None:
    node = Node(DIALS, capacities)
    made = node.change(two_services(4, 3).full(), complete=True)
    assert [(u.subject, u.map) for u in made.unfit] == [(B, full_map)]
    assert list(node.held.service_ports) == [A]
    alone = two_services(4, 3)
    alone.remove(B)
    node.assert_answers(alone)
    assert not node.change(alone.full(), complete=True).writes

    move_away = two_services(4, 3)
    node.change(move_away.full(), complete=True)
    move_away.remove(A)
    node.change(move_away.since(two_services(4, 3)))
    node.end_grace_period()
    assert not node.change(no_change()).unfit
    assert not node.held.waiting
    node.assert_answers(move_away)


def test_an_update_that_does_not_fit_keeps_the_old_set_and_its_frontends() -> None:
    node = Node(DIALS, SMALL._replace(backends=6))
    old = two_services(2, 2)
    node.change(old.full(), complete=True)
    new = two_services(2, 2)
    new.add(service_port(A, {CLUSTER_SET: many(5)}), FIRST)  # type: ignore[dict-item]
    made = node.change(new.since(old))
    assert [(u.subject, u.map) for u in made.unfit] == [(A, "backends")]
    node.assert_answers(old)


def test_space_that_waits_for_a_grace_period_makes_no_service_unfit_for_good() -> None:
    node = Node(DIALS, SMALL._replace(backends=6))
    old, new = two_services(4, 0), two_services(0, 4)
    node.change(old.full(), complete=True)
    made = node.change(new.since(old))
    assert [u.subject for u in made.unfit] == [B]
    assert node.held.awaits_reclaim
    node.end_grace_period()
    assert not node.change(no_change()).unfit
    node.assert_answers(new)


def test_a_frontend_of_a_service_without_room_comes_when_it_fits() -> None:
    node = Node(DIALS, SMALL._replace(frontends=5))
    old = Desired()
    old.add(service_port(A, {CLUSTER_SET: many(1)}), FIRST)  # type: ignore[dict-item]
    node.change(old.full(), complete=True)
    both = old.copy()
    both.frontends[SECOND] = (A, CLUSTER_SET)
    assert [(u.subject, u.map) for u in node.change(both.since(old)).unfit] == [(A, "frontends")]
    node.assert_answers(old)
    moved = both.copy()
    del moved.frontends[FIRST]
    node.change(moved.since(both))
    node.change(no_change())
    assert not node.held.waiting
    node.assert_answers(moved)


def test_a_service_that_goes_away_no_longer_waits() -> None:
    node = Node(DIALS, SMALL._replace(backends=6))
    old = two_services(4, 3)
    node.change(old.full(), complete=True)
    assert node.held.waiting
    new = old.copy()
    new.remove(B)
    node.change(new.since(old))
    assert not node.held.waiting
    node.assert_answers(new)


def test_rules_and_addresses_of_nodes_without_room_are_named() -> None:
    node = Node([], SMALL._replace(service_addresses=1, node_addresses=1))
    desired = Desired()
    networks = [parse_network("10.96.0.1/32"), parse_network("10.96.0.2/32")]
    desired.service_addresses = dict.fromkeys(networks, AddressRule.REFUSE_UNDEFINED_PORT)
    desired.node_addresses = {parse_address("192.168.0.1"): "", parse_address("192.168.0.2"): ""}
    made = node.change(desired.full(), complete=True)
    assert [(u.subject, u.map) for u in made.unfit] == [
        (networks[1], "service_addresses"),
        (parse_address("192.168.0.2"), "node_addresses"),
    ]


def test_a_set_with_more_backends_than_its_word_can_count_is_unfit() -> None:
    node = Node([], Capacities())
    backends = [backend("10.8.0.1", port) for port in range(1, 65536)]
    backends.append(backend("10.8.0.2"))
    desired = Desired()
    desired.add(service_port(A, {CLUSTER_SET: backends, LOCAL_SET: []}))
    assert [(u.subject, u.map) for u in node.change(desired.full(), complete=True).unfit] == [(A, "slots")]


def test_a_name_that_does_not_fit_is_refused_by_name() -> None:
    node = Node([])
    long = port_key("x" * 400)
    desired = Desired()
    desired.add(service_port(long, {CLUSTER_SET: many(1)}))  # type: ignore[dict-item]
    assert [(u.subject, u.map) for u in node.change(desired.full(), complete=True).unfit] == [(long, "names")]
