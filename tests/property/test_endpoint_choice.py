"""The chooser against a second, deliberately naive statement of the same rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyagent.desired.endpoint_choice import choose
from pyagent.desired.endpoints import NO_HINT, Endpoints, Hint
from pyagent.model.address import parse_address
from pyagent.model.service import Backend, BackendStateBit

NODES = ["", "node-a", "node-b", "node-c"]
ZONES = ["", "zone-a", "zone-b"]

places = st.lists(st.sampled_from(ZONES[1:]), max_size=2, unique=True).map(tuple)
hosts = st.lists(st.sampled_from(NODES[1:]), max_size=2, unique=True).map(tuple)
described = st.tuples(
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from(NODES), st.builds(Hint, places, hosts)
)


def endpoints_of(descriptions: list[tuple[bool, bool, bool, str, Hint]]) -> Endpoints:
    backends = []
    for number, (ready, serving, terminating, node, _) in enumerate(descriptions):
        state = BackendStateBit(0)
        state |= BackendStateBit.READY if ready else BackendStateBit(0)
        state |= BackendStateBit.SERVING if serving else BackendStateBit(0)
        state |= BackendStateBit.TERMINATING if terminating else BackendStateBit(0)
        backends.append(Backend(parse_address(f"10.0.0.{number}"), 80, int(state), node))
    hints = tuple(description[4] for description in descriptions)
    return Endpoints(tuple(backends), hints if any(hint != NO_HINT for hint in hints) else ())


def may_be_used(
    number: int, descriptions: list[tuple[bool, bool, bool, str, Hint]], node: str, zone: str
) -> bool:
    """Cluster traffic, one endpoint at a time, as the text has it.

    | condition, in this order                                                  | who may be used          |
    | no endpoint is ready                                                      | serving and terminating  |
    | every ready one has a node hint, and some ready one's names our node      | hint names our node      |
    | every ready one has a zone hint, we have a zone, some ready one's names it | hint names our zone     |
    | otherwise                                                                 | every ready one          |
    """
    ready, serving, terminating, _, hint = descriptions[number]
    everybody_ready = [d for d in descriptions if d[0]]
    if everybody_ready == []:
        return serving and terminating
    if not ready:
        return False
    if (
        node != ""
        and all(d[4].nodes != () for d in everybody_ready)
        and any(node in d[4].nodes for d in everybody_ready)
    ):
        return node in hint.nodes
    if (
        zone != ""
        and all(d[4].zones != () for d in everybody_ready)
        and any(zone in d[4].zones for d in everybody_ready)
    ):
        return zone in hint.zones
    return True


def may_be_used_on(number: int, descriptions: list[tuple[bool, bool, bool, str, Hint]], node: str) -> bool:
    """Traffic that must stay on a node: ready ones there, else serving and terminating ones there."""
    ready, serving, terminating, place, _ = descriptions[number]
    if node == "" or place != node:
        return False
    if any(d[0] for d in descriptions if d[3] == node):
        return ready
    return serving and terminating


@given(st.lists(described, max_size=8), st.sampled_from(NODES), st.sampled_from(ZONES))
def test_the_sets_are_those_of_the_naive_statement(
    descriptions: list[tuple[bool, bool, bool, str, Hint]], node: str, zone: str
) -> None:
    endpoints = endpoints_of(descriptions)
    numbers = range(len(descriptions))
    choice = choose(endpoints, node, zone, other_nodes=True)

    assert choice.cluster == tuple(
        endpoints.backends[n] for n in numbers if may_be_used(n, descriptions, node, zone)
    )
    assert choice.local == tuple(
        endpoints.backends[n] for n in numbers if may_be_used_on(n, descriptions, node)
    )
    assert dict(choice.of_other_nodes) == {
        other: tuple(endpoints.backends[n] for n in numbers if may_be_used_on(n, descriptions, other))
        for other in NODES
        if other != node and any(may_be_used_on(n, descriptions, other) for n in numbers)
    }
    assert choice.usable_anywhere == any(
        ready or (serving and terminating) for ready, serving, terminating, _, _ in descriptions
    )


@given(st.lists(described, max_size=8), st.sampled_from(NODES), st.sampled_from(ZONES))
def test_every_set_holds_endpoints_of_the_service_port_in_their_order(
    descriptions: list[tuple[bool, bool, bool, str, Hint]], node: str, zone: str
) -> None:
    endpoints = endpoints_of(descriptions)
    choice = choose(endpoints, node, zone, other_nodes=True)
    for backends in (choice.cluster, choice.local, *choice.of_other_nodes.values()):
        assert list(backends) == sorted(backends, key=lambda b: b.address)
        assert set(backends) <= set(endpoints.backends)


@given(st.lists(described, max_size=8), st.sampled_from(NODES), st.sampled_from(ZONES))
def test_a_local_set_is_never_empty_where_the_cluster_set_names_an_endpoint_of_that_node(
    descriptions: list[tuple[bool, bool, bool, str, Hint]], node: str, zone: str
) -> None:
    choice = choose(endpoints_of(descriptions), node, zone, other_nodes=True)
    for backend in choice.cluster:
        if backend.node == node and node:
            assert choice.local
        elif backend.node:
            assert backend.node in choice.of_other_nodes
