"""When the loop plans, and what it takes in before. No thread, and a clock that is turned."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import msgspec
import pytest

from pyagent.agent.facts import Facts
from pyagent.agent.loop import WANTED_SECONDS, Loop
from pyagent.desired.nodes import Settings
from pyagent.kernel.datapath import Datapath
from pyagent.model.address import Protocol, parse_address
from pyagent.model.kube_objects import STRUCT_OF, Kind
from pyagent.model.outcome import Outcome
from pyagent.model.source_events import Replaced, Scoped, SourceEvent, SourceState
from tests.property.test_objects import Maps, copied
from tests.unit.datapath_plan.node import Node

Object = dict[str, Any]

FAR = (parse_address("192.0.2.77"), 30001, Protocol.TCP)
UNALLOCATED = (parse_address("10.96.0.99"), 80, Protocol.TCP)
WEB: Object = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "type": "NodePort",
        "clusterIP": "10.96.0.1",
        "ports": [{"name": "http", "port": 80, "nodePort": 30001}],
    },
}
OWN_NODE: Object = {
    "metadata": {"name": "n"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
}
FAR_NODE: Object = {
    "metadata": {"name": "far"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.77"}]},
}
RANGE: Object = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}


class Driven:
    """A loop over a node's maps without a kernel, one event at a time."""

    def __init__(self, node: Node, *, reused: bool) -> None:
        self.now = 100.0
        self.plans = 0
        maps = Maps(node)
        node.maps.hashes.setdefault("client_addresses", {})  # written by loops, not by plans
        datapath = SimpleNamespace(
            maps=maps,
            capacities=node.maps.capacities,
            grace=SimpleNamespace(wait=node.begin_reading),
            raw=lambda: copied(node.maps.raw),
            link_states=tuple,
        )
        self.loop = Loop(
            cast("Datapath", datapath),
            Settings("n", remote_node_ports=True),
            Facts(),
            reused=reused,
            programs=None,
            applied=self._applied,
            clock=lambda: self.now,
        )

    def _applied(self, *_: object) -> None:
        self.plans += 1

    def take(self, *events: SourceEvent) -> None:
        """As `Loop.run` does, but without what looks after hooks."""
        for event in events:
            self.loop._take(event)
        with mock.patch("pyagent.agent.programmer.gc"):
            if self.loop._may_plan():
                self.loop._program()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take()


def listed(kind: Kind, *objects: Object) -> Replaced:
    return Replaced(kind, [msgspec.convert(one, STRUCT_OF[kind]) for one in objects])


NEEDED = (listed("Service", WEB), listed("EndpointSlice"))
REST = (listed("Node", OWN_NODE, FAR_NODE), listed("ServiceCIDR", RANGE))


@pytest.fixture
def node() -> Node:
    return Node([FAR, UNALLOCATED])


def answers(node: Node) -> tuple[object, object]:
    return node.decision(FAR)[0], node.decision(UNALLOCATED)[0]


SERVED = (Outcome.REFUSED_NO_ENDPOINTS, Outcome.REFUSED_UNALLOCATED_ADDRESS)
NOT_SERVED = (Outcome.NOT_A_SERVICE, Outcome.NOT_A_SERVICE)


@pytest.fixture
def restarted(node: Node) -> Driven:
    """After an agent that had listed everything."""
    Driven(node, reused=False).take(*NEEDED, *REST)
    assert answers(node) == SERVED
    return Driven(node, reused=True)


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("seen", [(), NEEDED[:1], NEEDED[1:], REST, (NEEDED[0], *REST), (NEEDED[1], *REST)])
def test_without_services_and_slices_nothing_is_planned_however_long_it_takes(
    node: Node, seen: Sequence[SourceEvent], reused: bool
) -> None:
    driven = Driven(node, reused=reused)
    driven.take(SourceState("Service", "disconnected", "connection refused"), *seen)
    for _ in range(10):
        driven.wait(WANTED_SECONDS)
    assert driven.plans == 0


def test_when_all_is_listed_the_first_plan_does_not_wait(node: Node) -> None:
    driven = Driven(node, reused=False)
    driven.take(*NEEDED, *REST)
    assert driven.plans == 1


def test_nodes_and_ranges_are_waited_for_a_little(node: Node) -> None:
    driven = Driven(node, reused=False)
    driven.take(*NEEDED)
    driven.wait(WANTED_SECONDS * 0.9)
    assert driven.plans == 0
    driven.wait(WANTED_SECONDS * 0.2)
    assert driven.plans == 1
    assert answers(node) == NOT_SERVED
    driven.take(*REST)
    assert answers(node) == SERVED


def test_after_a_restart_what_they_decide_stays_until_they_are_listed(node: Node, restarted: Driven) -> None:
    restarted.take(*NEEDED)
    restarted.wait(WANTED_SECONDS)
    assert restarted.plans == 1
    assert answers(node) == SERVED
    restarted.take(listed("Node", OWN_NODE))
    assert answers(node) == (NOT_SERVED[0], SERVED[1])
    restarted.take(listed("ServiceCIDR"))
    assert answers(node) == NOT_SERVED


def test_an_account_that_may_not_list_all_nodes_now_loses_the_others_only_when_its_own_is_listed(
    node: Node, restarted: Driven
) -> None:
    restarted.take(Scoped("Node", False), *NEEDED)
    restarted.wait(WANTED_SECONDS)
    assert restarted.plans == 1
    assert answers(node)[0] == SERVED[0]
    restarted.take(listed("Node", OWN_NODE))
    assert answers(node)[0] == NOT_SERVED[0]


def test_on_a_new_node_it_counts_at_once(node: Node) -> None:
    driven = Driven(node, reused=False)
    driven.take(Scoped("Node", False), *NEEDED, *REST)
    assert answers(node)[0] == NOT_SERVED[0]
