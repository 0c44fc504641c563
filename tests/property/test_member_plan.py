"""Backends that come and go lead to the same maps, whether or not the whole set is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import example, given
from hypothesis import strategies as st

from pyagent.datapath import member_plan
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import Capacities
from pyagent.datapath.member_index import MemberIndexes
from pyagent.datapath.plan import Plan, plan
from pyagent.model.difference import difference
from pyagent.model.service import CLUSTER_SET, Backend
from tests.unit.datapath_plan.desires import Desired, backend, dialled, port_key, service_port

SIZES = Capacities(backends=96, slots=256, sets=16, service_ports=16, frontends=32)
ADDRESSES = [f"10.0.0.{i}" for i in range(1, 31)]
NEAR = "127.0.0.1"

members = st.dictionaries(
    st.sampled_from([*ADDRESSES, NEAR]),
    st.tuples(st.sampled_from([1, 3, 6, 19]), st.sampled_from(["", "a", "b"])),
)


def backends_of(wanted: dict[str, tuple[int, str]], held: dict[Backend, Backend]) -> list[Backend]:
    """In the order of addresses, and the same objects wherever they are equal, as they come from slices."""
    made = [backend(ip, state=state, node=node) for ip, (state, node) in wanted.items()]
    return [held.setdefault(one, one) for one in sorted(made, key=lambda b: b.address)]


@contextmanager
def looking_at_few(least: int) -> Iterator[None]:
    before = member_plan.LEAST, member_plan.SHARE
    member_plan.LEAST, member_plan.SHARE = least, 1
    try:
        yield
    finally:
        member_plan.LEAST, member_plan.SHARE = before


class Node:
    def __init__(self, least: int) -> None:
        self.held = HeldState(SIZES)
        self.desired = Desired()
        self.least = least
        self.objects: dict[Backend, Backend] = {}
        self.turns = 0

    def change(self, wanted: dict[str, tuple[int, str]], affinity: int, reclaimed: bool) -> Plan:
        before = self.desired.copy()
        port = service_port(
            port_key("web"), {CLUSTER_SET: backends_of(wanted, self.objects)}, affinity=affinity
        )
        self.desired.add(port, dialled("10.96.0.1"))
        with looking_at_few(self.least):
            made = plan(self.held, self.desired.since(before), complete=not self.turns)
        self.turns += 1
        if reclaimed:
            self.held.reclaim(made.freed)
        return made


@given(st.lists(st.tuples(members, st.sampled_from([0, 0, 0, 60]), st.booleans()), min_size=2, max_size=8))
@example(
    [(dict.fromkeys(ADDRESSES[:8], (3, "a")), 0, True), (dict.fromkeys(ADDRESSES[1:9], (3, "a")), 0, True)]
    * 2
)
def test_the_same_maps(steps: list[tuple[dict[str, tuple[int, str]], int, bool]]) -> None:
    few, all_of_it = Node(1), Node(1 << 20)
    for step in steps:
        plans = few.change(*step), all_of_it.change(*step)
        assert plans[0].unfit == plans[1].unfit
        assert plans[0].freed[2:] == plans[1].freed[2:]
        assert set(plans[0].writes) == set(plans[1].writes)
        for name in ("slots", "sets", "backends", "names", "nodes"):
            assert getattr(few.held, name) == getattr(all_of_it.held, name), name
        (port,) = few.held.service_ports.values()
        index = few.held.indexes.take(port.set_ids[0])
        if index is not None:
            assert index == few.held.identities(port)
            few.held.indexes.keep(port.set_ids[0], index)


def test_a_small_change_is_planned_as_such() -> None:
    node = Node(1)
    node.change(dict.fromkeys(ADDRESSES, (3, "a")), 0, reclaimed=True)
    node.change(dict.fromkeys(ADDRESSES[1:], (3, "a")), 0, reclaimed=True)
    (port,) = node.held.service_ports.values()
    assert node.held.indexes.take(port.set_ids[0]) is not None


@given(members, members, st.booleans())
def test_the_difference_of_two_sequences(
    old: dict[str, tuple[int, str]], new: dict[str, tuple[int, str]], in_order: bool
) -> None:
    objects: dict[Backend, Backend] = {}
    before, after = backends_of(old, objects), backends_of(new, objects)
    if not in_order:
        before.reverse()
    found = difference(tuple(before), tuple(after))
    kept = [b for b in before if b not in found.gone]
    assert set(kept) | set(found.came) == set(after)
    assert set(found.gone) <= set(before)
    if in_order:
        assert set(found.gone) == set(before) - set(after)
        assert set(found.came) == set(after) - set(before)


def test_indexes_are_bounded() -> None:
    kept = MemberIndexes(most=10)
    for set_id in range(5):
        kept.keep(set_id, {bytes([i]): i for i in range(4)})
    assert [kept.take(i) is not None for i in range(5)] == [False, False, False, True, True]
    kept.keep(9, {bytes([i]): i for i in range(40)})
    assert kept.take(9) is not None
