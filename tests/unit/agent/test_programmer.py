"""One turn at a time: what comes before what, and what is known afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from pyagent.agent.audit import STEPS
from pyagent.datapath.decoded import RawMaps
from pyagent.model.address import PROBE_ADDRESSES
from tests.property.test_objects import Agent, Maps, copied, put
from tests.unit.datapath_plan.node import Node

Object = dict[str, Any]


@pytest.fixture
def node() -> Node:
    return Node([])


def a_service(name: str, **spec: Any) -> Object:
    number = ord(name) - ord("a") + 1
    body = {"clusterIP": f"10.96.0.{number}", "ports": [{"name": "http", "port": 80}], **spec}
    return {"kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": body}


def a_slice(name: str, *addresses: str) -> Object:
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": "http", "port": 8080}],
    }


def agent_of(node: Node, *objects: Object, reused: bool = False) -> Agent:
    agent = Agent(node, Maps(node), reused=reused)
    for obj in objects:
        put(agent, obj)
    return agent


def test_an_agent_that_takes_over_waits_for_a_grace_period_before_it_reads_the_maps(node: Node) -> None:
    """Programs may still run that read what its predecessor freed a moment ago: it must not be given out."""
    first = agent_of(node, a_service("a"), a_slice("a", "10.1.0.1", "10.1.0.2"))
    assert first.programmer.turn() is not None
    put(first, a_slice("a", "10.1.0.1"))
    assert first.programmer.turn() is not None
    happened: list[str] = []
    second = agent_of(node, a_service("a"), a_slice("a", "10.1.0.1", "10.1.0.3"), reused=True)

    def wait() -> None:
        happened.append("waited")
        node.begin_reading()

    def read_all() -> RawMaps:
        happened.append("read")
        return copied(node.maps.raw)

    second.datapath.raw, second.datapath.grace.wait = read_all, wait
    assert second.programmer.turn() is not None
    assert happened == ["waited", "read"]


def test_what_was_freed_counts_as_used_until_its_grace_period_has_ended_and_then_no_more(node: Node) -> None:
    agent = agent_of(node, *map(a_service, "abcd"))
    assert agent.programmer.turn() is not None
    before = agent.programmer.usage["sets"]
    for name in "abcd":
        agent.programmer.snapshot.delete("Service", "shop", name)
    for name in "efgh":
        put(agent, a_service(name))
    assert agent.programmer.turn() is not None
    assert agent.programmer.usage["sets"] > before
    agent.reclaim()
    assert agent.programmer.usage["sets"] == before


def test_the_room_for_source_ranges_is_told(node: Node) -> None:
    ranges = [f"198.51.{number}.0/24" for number in range(5)]
    balanced = a_service("a", type="LoadBalancer", loadBalancerSourceRanges=ranges)
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    agent = agent_of(node, balanced)
    assert agent.programmer.turn() is not None
    assert agent.programmer.usage["source_ranges"] == (5, node.maps.capacities.source_ranges)


def test_a_source_range_whose_value_somebody_changed_is_written_again(node: Node) -> None:
    balanced = a_service("a", type="LoadBalancer", loadBalancerSourceRanges=["198.51.100.0/24"])
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    agent = agent_of(node, balanced)
    assert agent.programmer.turn() is not None
    entries = node.maps.hashes["source_ranges"]
    right = dict(entries)
    entries[next(iter(entries))] = bytes(4)
    for _ in STEPS:
        agent.programmer.audit()
    assert not agent.programmer.held_is_true
    assert agent.programmer.turn() is not None
    assert entries == right


def test_a_claim_on_the_self_probes_address_wants_no_larger_map(node: Node) -> None:
    """Else any author of a Service could have the maps grow without end."""
    agent = agent_of(
        node, a_service("a", externalIPs=["192.0.0.8", "100::6b75", "203.0.113.1"], ports=[{"port": 1}])
    )
    turn = agent.programmer.turn()
    assert turn is not None
    assert agent.programmer.unfit == ()
    reasons = [problem.reason for problem in turn.change.new_problems]
    assert len([reason for reason in reasons if "reserved for the agent's self-probe" in reason]) == 2
    assert PROBE_ADDRESSES[0] not in {key[:16] for key, _ in _wanted(agent)}


def _wanted(agent: Agent) -> list[tuple[bytes, object]]:
    full = agent.programmer.desired.full()
    return [(dialled[3], target) for dialled, target in full.frontends.items() if target is not None]
