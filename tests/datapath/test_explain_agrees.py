"""The table of `cases.py`, and Services made at random, on the real kernel and on `explain`: they must agree.

Each dial is made for real in a client's namespace; what came of it is held against the table and against what
`explain` says of the very maps that the programs read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyagent.agent.inbox import Standing
from pyagent.agent.local_answers import service_facts, services_at
from pyagent.agent.local_diff import differences, meant
from pyagent.datapath.layout import CLIENT_ADDRESSES
from pyagent.datapath.plan import plan
from pyagent.datapath.source_range_plan import SourceRangePlan
from pyagent.datapath.writes import Put, Remove
from pyagent.demo.calls import call
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.address import Protocol, format_address, format_endpoint, parse_address
from pyagent.model.outcome import Outcome
from pyagent.view.explain import answering_port, explain
from pyagent.view.explain_lookup import look_up
from pyagent.view.explain_maps import EXPLAIN_READ, read_client_maps
from pyagent.view.explain_question import AddressTarget, Client, dial_of, parse_target
from pyagent.view.pins import read_live
from pyagent.view.tables import Row
from tests.datapath.cases import (
    CIDRS,
    CLIENT_ADDRESS,
    HOST,
    NODE_NAME,
    NODES,
    OTHER_NODES,
    SERVERS,
    WORLDS,
    ZONE,
    At,
    Dialled,
    World,
    backed,
    backend,
    each_dial,
    name_of,
    standing_of,
    web,
    with_node_port,
)
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, ask, ask_on, make_socket
from tests.datapath.ground.hooks import Hooks

pytestmark = pytest.mark.kernel

DIALS = 64
"""Enough to see every backend: that one of three stays unseen has a chance of 3·(2/3)^64."""
"""Of three backends one is missed by all of these once in 10^8 runs."""

COOKIE = struct.Struct("=Q")


class Node:
    """The hooked node: serves worlds, dials, explains."""

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.cookies = {
            name: call(netns_cookie, netns=pod.netns)
            for name, pod in (("pod", hooks.cluster.client), (HOST, hooks.cluster.node))
        }
        self.world = ""
        self.standing: Standing | None = None
        address = CLIENT_ADDRESSES.pack(parse_address(CLIENT_ADDRESS), bytes(16))
        hooks.store(Put("client_addresses", COOKIE.pack(self.cookies["pod"]), address))

    def serve(self, world: World, name: str = "") -> None:
        """Bring the programs' maps to a world, by the agent's own planner."""
        if name and name == self.world:
            return
        self.world = name
        hooks = self.hooks
        standing = standing_of(world, hooks.held)
        desired = standing.desired.full()
        made = plan(hooks.held, desired, complete=True)
        assert not made.unfit
        entries = (key for key, _ in hooks.datapath.maps.items("source_ranges"))
        ranges = SourceRangePlan(entries, 256).plan(desired.service_ports, hooks.held, True)
        hooks.store(*ranges.before, *made.writes, *ranges.after)
        hooks.will_free(made.freed)
        hooks.reclaim()
        self.standing = standing

    def explain(self, dialled: Dialled) -> Row:
        """What `explain` says, from the pins."""
        assert self.standing is not None
        live = read_live(self.hooks.datapath.bpffs, EXPLAIN_READ)
        clients = read_client_maps(self.hooks.datapath.bpffs)
        client = Client(dialled.client, self.cookies[dialled.client])
        found = look_up(live, clients, dial_of(target_of(dialled), live.raw, client), client)
        port = answering_port(live, found)
        names = [(port.namespace, port.name)] if port else services_at(self.standing, found.dial.address)
        return explain(live, found, service_facts(self.standing, names))

    def place(self, dialled: Dialled) -> InClient:
        cluster = self.hooks.cluster
        return self.hooks.client.of(cluster.node if dialled.client == HOST else cluster.client)

    def dial(self, dialled: Dialled, call_kind: str, times: int, hooked: bool = True) -> set[str]:
        """What came of it: `ADDRESS:PORT` of who answered, or the errno's name."""
        target = target_of(dialled)
        text, way = format_address(target.address), Way(call_kind, 6 if "[" in dialled.target else 4)
        if dialled.target.startswith("[::ffff:"):
            text, way = f"::ffff:{text}", Way(call_kind, 46)
        place = self.place(dialled) if hooked else self.place(dialled).unhooked

        def work() -> set[str]:
            return {answer_of(ask(way, text, target.port)) for _ in range(times)}

        return place(work, timeout=60.0)

    def stay(self, dialled: Dialled, times: int) -> set[str]:
        """As `dial`, all datagrams through one unconnected socket."""
        target = target_of(dialled)
        way = Way("datagram", 4)

        def work() -> set[str]:
            with closing(make_socket(way)) as made:
                return {
                    answer_of(ask_on(made, way, format_address(target.address), target.port))
                    for _ in range(times)
                }

        return self.place(dialled)(work)


def target_of(dialled: Dialled) -> AddressTarget:
    target = parse_target(dialled.target)
    assert isinstance(target, AddressTarget)
    return target


def answer_of(answer: Reply | str) -> str:
    if isinstance(answer, str):
        return answer
    return format_endpoint(parse_address(answer.server[0]), answer.server[1])


def possible(row: Row) -> set[str]:
    """What a client may see, as `explain` has it; empty if it is not translated."""
    if row["errno"] is not None:
        return {row["errno"]}
    return {one["backend"] for one in row["backends"] if one["probability"]}


@pytest.fixture(scope="module")
def on_node(hooks: Hooks) -> Iterator[Node]:
    node = Node(hooks)
    yield node
    node.serve(World([], []))
    hooks.store(Remove("client_addresses", COOKIE.pack(node.cookies["pod"])))
    hooks.serve([])


@pytest.mark.parametrize(("world", "dialled"), each_dial(), ids=name_of)
def test_kernel_table_and_explain_agree(on_node: Node, world: str, dialled: Dialled) -> None:
    on_node.serve(WORLDS[world], world)
    row = on_node.explain(dialled)
    assert row["outcome"] == dialled.outcome.label
    seen = possible(row)
    udp = target_of(dialled).protocol is Protocol.UDP
    for kind in ("udp", "datagram") if udp else ("tcp",):
        times = DIALS if len(dialled.servers) > 1 else 2
        before = on_node.hooks.counts().outcomes.get(dialled.outcome, 0)
        came = on_node.dial(dialled, kind, times)
        if seen:
            assert came == seen
        else:
            assert came == on_node.dial(dialled, kind, 1, hooked=False), "left alone means: as if unhooked"
        if dialled.outcome is not Outcome.NOT_A_SERVICE:
            assert on_node.hooks.counts().outcomes[dialled.outcome] - before == times
    if dialled.servers:
        family = 6 if row["family"] == "IPv6" else 4
        assert seen == {backend(server, family) for server in dialled.servers}


def test_a_client_with_an_affinity_entry_goes_where_explain_says(on_node: Node) -> None:
    sticky = web(9, "sticky", sessionAffinity="ClientIP")
    on_node.serve(World([CIDRS, sticky, backed("sticky", *map(At, SERVERS))], []))
    dialled = Dialled("10.96.7.9:80/TCP", Outcome.TRANSLATED_BY_AFFINITY)
    before = on_node.explain(dialled)
    assert (before["outcome"], before["affinity"]) == ("translated", None)
    first = on_node.dial(dialled, "tcp", 1)
    after = on_node.explain(dialled)
    assert after["outcome"] == "translated_by_affinity"
    assert possible(after) == first
    assert {after["affinity"]["backend"]} == first
    assert on_node.dial(dialled, "tcp", DIALS) == first


def test_affinity_to_a_backend_that_is_not_eligible_does_not_decide(on_node: Node) -> None:
    sticky = web(9, "sticky", sessionAffinity="ClientIP")
    on_node.serve(World([CIDRS, sticky, backed("sticky", At("a"))], []))
    dialled = Dialled("10.96.7.9:80/TCP", Outcome.TRANSLATED)
    assert on_node.dial(dialled, "tcp", 1) == {backend("a", 4)}
    on_node.serve(World([CIDRS, sticky, backed("sticky", At("a", ready=False), At("b"))], []))
    row = on_node.explain(dialled)
    assert (row["outcome"], row["affinity"]["decides"]) == ("translated", False)
    assert on_node.dial(dialled, "tcp", 1) == possible(row) == {backend("b", 4)}


def test_one_unconnected_socket_stays_on_one_backend_as_the_note_says(on_node: Node) -> None:
    on_node.serve(WORLDS["ClusterIPs"], "ClusterIPs")
    dialled = next(d for d in WORLDS["ClusterIPs"].dials if d.target == "10.96.7.1:80/UDP")
    assert any("stays on the backend" in note for note in on_node.explain(dialled)["notes"])
    assert len(on_node.stay(dialled, DIALS)) == 1


@pytest.mark.parametrize("world", WORLDS)
def test_the_kernels_maps_do_not_differ_from_what_is_desired(on_node: Node, world: str) -> None:
    on_node.serve(WORLDS[world], world)
    maps, standing = on_node.hooks.datapath, on_node.standing
    assert standing is not None
    ranges = dict(maps.maps.items("source_ranges"))
    assert list(differences(meant(standing.desired.full(), standing.held), maps.raw(), ranges)) == []


PLACES = st.sampled_from([NODE_NAME, *OTHER_NODES, None])
ENDPOINTS = st.builds(
    At,
    st.sampled_from(sorted(SERVERS)),
    PLACES,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from([ZONE, "zone-x"]), max_size=2, unique=True).map(tuple),
    st.lists(st.sampled_from([NODE_NAME, *OTHER_NODES]), max_size=2, unique=True).map(tuple),
)
SLICES = st.lists(st.lists(ENDPOINTS, max_size=3), max_size=2)
POLICIES = st.sampled_from(["Cluster", "Local"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(slices=SLICES, internal=POLICIES, external=POLICIES, remote=st.booleans())
def test_any_service_is_explained_as_the_kernel_serves_it(
    on_node: Node, slices: list[list[At]], internal: str, external: str, remote: bool
) -> None:
    made = web(5, "any", type="NodePort", internalTrafficPolicy=internal, externalTrafficPolicy=external)
    pieces = [backed("any", *endpoints, suffix=str(i)) for i, endpoints in enumerate(slices)]
    objects = [*NODES, CIDRS, with_node_port(made, 30085), *pieces]
    on_node.serve(World(objects, [], {"remote_node_ports": remote}))
    for target in ("10.96.7.5:80/TCP", "172.30.0.10:30085/TCP", "198.18.0.20:30085/TCP"):
        dialled = Dialled(target, Outcome.TRANSLATED)
        row = on_node.explain(dialled)
        seen = possible(row)
        if seen:
            assert on_node.dial(dialled, "tcp", DIALS if len(seen) > 1 else 1) == seen
        chosen = {one["endpoint"] for one in row["endpoints"] if one["in"]}
        assert chosen == {one["backend"] for one in row["backends"]}
