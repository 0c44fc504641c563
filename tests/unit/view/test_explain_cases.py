"""`explain` against the table that the kernel is held against too; the maps are made by the planner."""

from __future__ import annotations

import struct
from functools import cache
from typing import NamedTuple

import pytest

from pyagent.agent.inbox import Standing
from pyagent.agent.local_answers import service_facts, services_at
from pyagent.datapath.encoded import address_frontend_key
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import CLIENT_ADDRESSES, CONFIG, Capacities
from pyagent.datapath.plan import plan
from pyagent.datapath.source_range_plan import SourceRangePlan
from pyagent.model.address import parse_address
from pyagent.model.outcome import ERRNO_OF
from pyagent.view.explain import answering_port, error_name, explain
from pyagent.view.explain_lookup import look_up
from pyagent.view.explain_maps import ClientMaps, decode_client_maps
from pyagent.view.explain_question import AddressTarget, Client, dial_of, parse_target
from pyagent.view.explain_tree import explanation_tree
from pyagent.view.live import AgentFacts, LiveMaps
from pyagent.view.tables import Row
from tests.datapath.cases import (
    CLIENT_ADDRESS,
    HOST,
    WORLDS,
    Dialled,
    backend,
    each_dial,
    name_of,
    standing_of,
)
from tests.unit.datapath_plan.fake_maps import FakeMaps

NODE_COOKIE, POD_COOKIE = 1, 4242
CLIENTS = {HOST: Client(HOST, NODE_COOKIE), "pod": Client("pod", POD_COOKIE)}
CAPACITIES = Capacities(
    frontends=256,
    sets=256,
    slots=4096,
    backends=256,
    service_ports=256,
    service_addresses=64,
    node_addresses=32,
)


class Filled(NamedTuple):
    """The maps of a world, and what its agent knows."""

    live: LiveMaps
    clients: ClientMaps
    standing: Standing


@cache
def filled(world: str) -> Filled:
    held = HeldState(CAPACITIES)
    standing = standing_of(WORLDS[world], held)
    maps = FakeMaps(CAPACITIES)
    maps.arrays["config"][:8] = struct.pack("=Q", NODE_COOKIE)
    assert CONFIG.offsets["node_netns"] == 0
    desired = standing.desired.full()
    made = plan(held, desired, complete=True)
    assert not made.unfit
    for write in made.writes:
        maps.apply(write)
    ranges = SourceRangePlan([], 64).plan(desired.service_ports, held, True).before
    addresses = CLIENT_ADDRESSES.pack(parse_address(CLIENT_ADDRESS), bytes(16))
    clients = decode_client_maps(
        {put.key: put.value for put in ranges}, {struct.pack("=Q", POD_COOKIE): addresses}, {}
    )
    return Filled(LiveMaps(maps.raw, agent=AgentFacts(True, 1, 5.0)), clients, standing)


def explained(world: str, dialled: Dialled, with_agent: bool = True) -> Row:
    live, clients, standing = filled(world)
    target = parse_target(dialled.target)
    assert isinstance(target, AddressTarget)
    client = CLIENTS[dialled.client]
    found = look_up(live, clients, dial_of(target, live.raw, client), client)
    port = answering_port(live, found)
    names = [(port.namespace, port.name)] if port else services_at(standing, found.dial.address)
    return explain(live, found, service_facts(standing, names) if with_agent else None)


@pytest.mark.parametrize(("world", "dialled"), each_dial(), ids=name_of)
def test_outcome_and_backends_are_those_of_the_table(world: str, dialled: Dialled) -> None:
    row = explained(world, dialled)
    family = 6 if row["family"] == "IPv6" else 4
    assert row["outcome"] == dialled.outcome.label
    assert {b["backend"] for b in row["backends"] if b["probability"]} == {
        backend(server, family) for server in dialled.servers
    }
    assert row["errno"] == error_name(dialled.outcome, True)
    assert (row["errno"] is None) is (dialled.outcome not in ERRNO_OF)
    assert row["because"]


@pytest.mark.parametrize(("world", "dialled"), each_dial(), ids=name_of)
def test_every_endpoint_that_is_in_is_a_backend_and_the_others_say_why_not(
    world: str, dialled: Dialled
) -> None:
    row = explained(world, dialled)
    if row["service"] is None:
        assert row["endpoints"] == []
        return
    backends = {b["backend"] for b in row["backends"]}
    assert {one["endpoint"] for one in row["endpoints"] if one["in"]} == backends
    assert all(one["why"] for one in row["endpoints"])


@pytest.mark.parametrize(("world", "dialled"), each_dial(), ids=name_of)
def test_the_maps_alone_tell_the_same_outcome(world: str, dialled: Dialled) -> None:
    with_agent, without = explained(world, dialled), explained(world, dialled, with_agent=False)
    assert (without["level"], without["endpoints"]) == ("maps", [])
    for field in ("outcome", "errno", "service", "set", "rule"):
        assert without[field] == with_agent[field]
    assert [b["backend"] for b in without["backends"]] == [b["backend"] for b in with_agent["backends"]]


@pytest.mark.parametrize(("world", "dialled"), each_dial(), ids=name_of)
def test_the_tree_leads_to_every_endpoint_and_says_why_others_are_out(world: str, dialled: Dialled) -> None:
    row = explained(world, dialled)
    lines = explanation_tree(row).splitlines()
    for one in row["backends"]:
        (line,) = [line for line in lines if "✓" in line and f" {one['backend']} " in line]
        assert f"{100 * one['probability']:.1f}%" in line or not one["probability"]
    out = [one for one in row["endpoints"] if not one["in"]]
    for one in out:
        assert any("✗" in line and f"{one['endpoint']}  {one['why']}" in line for line in lines)
    assert sum(line.count("✓") + line.count("✗") for line in lines) == len(row["backends"]) + len(out)
    assert any(row["errno"] in line for line in lines) if row["errno"] else "refused" not in lines[-1]


def test_a_tree_fits_the_terminal_and_its_alphabet() -> None:
    for world, dialled in each_dial():
        row = explained(world, dialled)
        narrow = explanation_tree(row, width=50, utf8=False)
        assert narrow.isascii()
        assert max(map(len, narrow.splitlines())) <= 50
        assert "\x1b[" in explanation_tree(row, color=True)
        assert "\x1b" not in narrow


def test_names_from_the_cluster_cannot_write_on_the_terminal_through_a_tree() -> None:
    world, dialled = next(iter(each_dial()))
    row = explained(world, dialled)
    row["endpoints"] = [{**one, "in": False, "pod": "x\x1b[2J[bold]"} for one in row["endpoints"]]
    assert "\x1b" not in explanation_tree(row)
    assert "[bold]" in explanation_tree(row)


def test_probabilities_add_up_to_one() -> None:
    for world, dialled in each_dial():
        total = sum(b["probability"] for b in explained(world, dialled)["backends"])
        assert total == pytest.approx(1.0 if dialled.servers else 0.0, abs=1e-5)


REASONS = {
    ("ClusterIPs", "10.96.7.1:80/TCP"): {"c": "not ready"},
    ("ClusterIPs", "10.96.7.3:80/TCP"): {"a": "not ready", "b": "not ready, though it serves"},
    ("endpoints that terminate", "10.96.7.1:80/TCP"): {"c": "terminating, and no longer serving"},
    ("endpoints that terminate", "10.96.7.2:80/TCP"): {"a": "terminating, and others are ready"},
    ("internalTrafficPolicy Local", "10.96.7.1:80/TCP"): {"b": "on node m, and the policy is Local"},
    ("internalTrafficPolicy Local", "10.96.7.2:80/TCP"): {
        "a": "on node m, and the policy is Local",
        "b": "on no known node, and the policy is Local",
    },
    ("topology hints", "10.96.7.1:80/TCP"): {
        "b": "hinted for zone zone-x, and this zone is zone-n",
        "c": "not ready",
    },
    ("topology hints", "10.96.7.2:80/TCP"): {
        "a": "hinted for node m, and this node is n",
        "c": "hinted for node o, and this node is n",
    },
    ("several slices", "10.96.7.1:80/TCP"): {
        "a": "a duplicate: slice web-2-v4 lists the same address and port, and counts"
    },
    ("several slices", "10.96.7.3:80/TCP"): {"b": "slice half-2-v4 has no port t/TCP"},
}  # fmt: skip


@pytest.mark.parametrize(("case", "reasons"), REASONS.items(), ids=str)
def test_each_endpoint_that_is_out_has_its_reason(case: tuple[str, str], reasons: dict[str, str]) -> None:
    world, target = case
    dialled = next(one for one in WORLDS[world].dials if one.target == target)
    out = [one for one in explained(world, dialled)["endpoints"] if not one["in"]]
    assert {one["pod"].partition("/")[2]: one["why"] for one in out} == reasons


BECAUSE = {
    ("ClusterIPs", "10.96.7.1:81/TCP"): "10.96.7.1 is the address of Service default/web, which"
    " serves 80/TCP, 80/UDP and not 81/TCP",
    ("ClusterIPs", "10.96.200.9:80/TCP"): "10.96.200.9 lies in the service range 10.96.0.0/16,"
    " and no Service has it",
    ("ClusterIPs", "10.96.7.4:80/TCP"): "10.96.7.4 belongs to Service default/other, which another proxy"
    " serves: left alone",
    ("nodePorts", "198.18.0.21:30081/TCP"): "default/local:t/TCP has endpoints, but none usable on node o,"
    " and the policy is Local",
    ("nodePorts", "10.244.1.20:30080/TCP"): "not a frontend: the connection is made as if kubesock were not"
    " there; 30080 is the nodePort of default/web:t/TCP, but 10.244.1.20 is no node's address that answers on"
    " nodePorts here",
    ("nodePorts", "127.0.0.1:30080/TCP"): "not a frontend: the connection is made as if kubesock were not"
    " there; on loopback only the node's own processes get the nodePort of default/web:t/TCP (--from host)",
    ("external and load-balancer addresses", "198.51.100.7:80/TCP"): "10.244.1.10 is outside the source"
    " ranges of default/theirs:t/TCP: 203.0.113.0/24",
}  # fmt: skip


@pytest.mark.parametrize(("case", "sentence"), BECAUSE.items(), ids=str)
def test_the_reason_is_one_sentence(case: tuple[str, str], sentence: str) -> None:
    world, target = case
    dialled = next(d for d in WORLDS[world].dials if d.target == target and (d.client != HOST))
    assert explained(world, dialled)["because"] == sentence


def test_who_lost_an_address_is_told_as_a_problem() -> None:
    dialled = next(
        d for d in WORLDS["external and load-balancer addresses"].dials if d.target == "10.96.7.5:80/TCP"
    )
    problems = explained("external and load-balancer addresses", dialled)["problems"]
    assert any("already belongs to Service default/older" in problem for problem in problems)


def test_the_table_has_every_frontend_that_it_names() -> None:
    """A slip in an address would turn a case into one about nothing."""
    for world, dialled in each_dial():
        if dialled.servers and ":3" not in dialled.target:
            target = parse_target(dialled.target)
            assert isinstance(target, AddressTarget)
            assert target.protocol is not None
            key = address_frontend_key(target.address, target.port, target.protocol)
            assert key in filled(world).live.raw.frontends
