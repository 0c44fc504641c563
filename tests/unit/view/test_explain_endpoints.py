"""The words for why an endpoint is in or out, held against the function that chooses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyagent.desired.endpoint_choice import choose
from pyagent.desired.endpoints import NO_ENDPOINTS, SliceEndpoints, index_ports, merge, read_slice
from pyagent.model.address import Family, Protocol, format_endpoint
from pyagent.model.service import (
    ANY_OTHER_NODE,
    CLUSTER_SET,
    LOCAL_SET,
    RESTRICTED_SET,
    ServicePortKey,
    SetKey,
    View,
)
from pyagent.view.explain_endpoints import Place, endpoint_facts
from pyagent.view.explain_facts import view_of
from tests.unit.desired.objects import endpoint, endpoint_slice

KEY = ServicePortKey("shop", "web", "http", Protocol.TCP, Family.IPV4)
NODES = st.sampled_from(["node-a", "node-b", "node-c", None])
HERE = st.builds(Place, st.sampled_from(["node-a", ""]), st.sampled_from(["zone-a", ""]))
SETS = (CLUSTER_SET, LOCAL_SET, RESTRICTED_SET, SetKey(View.NODE, "node-b"))

FLAG = st.sampled_from([True, False, None])
ENDPOINTS = st.builds(
    endpoint,
    st.sampled_from([f"10.1.0.{i}" for i in range(1, 6)]),
    FLAG,
    FLAG,
    FLAG,
    node=NODES,
    zones=st.none() | st.lists(st.sampled_from(["zone-a", "zone-b"]), max_size=2),
    nodes=st.none() | st.lists(st.sampled_from(["node-a", "node-b"]), max_size=2),
)
PORT_LISTS = st.sampled_from(
    [
        [{"name": "http", "port": 8080}],
        [{"name": "http", "port": 9090}, {"name": "http", "port": 8080}],
        [{"name": "other", "port": 8080}],
        [{"name": "http", "port": 8080, "protocol": "UDP"}],
    ]
)


@st.composite
def slices(draw: st.DrawFn) -> list[SliceEndpoints]:
    count = draw(st.integers(0, 3))
    return [
        read_slice(
            endpoint_slice(*draw(st.lists(ENDPOINTS, max_size=4)), name=f"web-{i}", ports=draw(PORT_LISTS)),
            "web",
            "node-a",
        )
        for i in range(count)
    ]


@given(slices(), HERE)
def test_in_is_just_what_the_choice_takes(pieces: list[SliceEndpoints], here: Place) -> None:
    carrying = index_ports(pieces).get((KEY.family, KEY.port_name, KEY.protocol))
    choice = choose(merge(carrying) if carrying else NO_ENDPOINTS, here.node, here.zone, other_nodes=True)
    facts = endpoint_facts(pieces, KEY, SETS, here)
    chosen = {
        CLUSTER_SET: choice.cluster,
        RESTRICTED_SET: choice.cluster,
        LOCAL_SET: choice.local,
        SETS[3]: choice.of_other_nodes.get("node-b", ()) if here.node != "node-b" else (),
    }
    for key, backends in chosen.items():
        view = view_of(key)
        told = [one.endpoint for one in facts if view in one.chosen]
        assert sorted(told) == sorted(format_endpoint(b.address, b.port) for b in backends)


@given(slices(), HERE)
def test_every_listed_endpoint_is_told_once_for_each_set_with_a_reason(
    pieces: list[SliceEndpoints], here: Place
) -> None:
    for one in endpoint_facts(pieces, KEY, SETS, here):
        assert one.chosen.keys() | one.left_out.keys() == {view_of(key) for key in SETS}
        assert not one.chosen.keys() & one.left_out.keys()
        assert all(one.chosen.values())
        assert all(one.left_out.values())


def test_each_view_has_a_name_of_its_own() -> None:
    keys = (*SETS, SetKey(View.NODE, "node-c"), SetKey(View.NODE, ANY_OTHER_NODE))
    assert len({view_of(key) for key in keys}) == len(keys)
