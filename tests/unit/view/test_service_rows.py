"""Rows that are remembered between looks are those that a fresh look gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyagent.model.address import Protocol
from pyagent.model.service import PolicyBit, ServiceType, View
from pyagent.view.live import AgentFacts, LiveMaps
from pyagent.view.service_table import ServiceRows, service_rows
from tests.unit.view.maps_made import DRAINING, READY, B, S, live

_BACKENDS = st.builds(
    B,
    st.sampled_from([f"10.1.0.{i}:80" for i in range(1, 5)]),
    st.sampled_from([READY, DRAINING]),
    st.integers(0, 1),
    st.integers(0, 3),
)
_MEMBERS = st.lists(_BACKENDS, max_size=3).map(tuple)
_SETS = st.lists(st.tuples(st.sampled_from([View.CLUSTER, View.LOCAL]), st.just(0), _MEMBERS), max_size=2)
_SERVICES = st.builds(
    S,
    st.sampled_from(["a/web:http", "b/web"]),
    st.lists(st.sampled_from(["10.96.0.1:80", "10.96.0.2:80"]), max_size=2, unique=True).map(tuple),
    _SETS.map(tuple),
    st.lists(st.tuples(st.integers(0, 1), st.just(30080)), max_size=1).map(tuple),
    st.sampled_from(list(Protocol)),
    st.just(ServiceType.CLUSTER_IP),
    st.sampled_from([0, int(PolicyBit.EXTERNAL_LOCAL)]),
    affinity=st.integers(0, 2),
    refused=st.integers(0, 2),
)
_LOOKS = st.builds(
    live,
    st.lists(_SERVICES, max_size=3, unique_by=lambda service: service.text),
    st.sampled_from([None, {1: "worker-1"}, {1: "worker-2"}]),
    agent=st.sampled_from([AgentFacts(True, 1, 5.0), AgentFacts()]),
)


@given(st.lists(_LOOKS, min_size=2, max_size=6))
def test_rows_of_look_after_look_are_those_of_fresh_looks(looks: list[LiveMaps]) -> None:
    remembered = ServiceRows()
    for look in [look for pair in zip(looks, looks, strict=True) for look in pair]:
        assert remembered.rows(look) == service_rows(look)


@given(_LOOKS, st.integers(0, 9), st.integers(0, 9))
def test_counters_are_read_at_every_look(first: LiveMaps, chosen: int, refused: int) -> None:
    remembered = ServiceRows()
    before = remembered.rows(first)
    shown = [dict(row) for row in before]
    counts = [n.to_bytes(8, "little") * 20 for n in (chosen, refused)]
    later = first._replace(chosen=(counts[0],), refused=counts[1])
    assert remembered.rows(later) == service_rows(later)
    assert before == shown  # those that a screen still shows


def test_a_change_of_each_map_is_seen() -> None:
    first = S("a/web:http", ("10.96.0.1:80",), ((View.CLUSTER, 0, (B("10.1.0.1:80"),)),), ((1, 30080),))
    draining = first._replace(sets=((View.CLUSTER, 0, (B("10.1.0.1:80", DRAINING),)),))
    remembered = ServiceRows()
    for services, nodes in (
        ([first], {1: "one"}),
        ([first], {1: "two"}),
        ([first._replace(frontends=("10.96.0.9:80",))], {1: "two"}),
        ([draining], {1: "two"}),
        ([draining, S("b/web")], {1: "two"}),
        ([], None),
    ):
        look = live(services, nodes)
        assert remembered.rows(look) == service_rows(look)
        assert remembered.rows(look) == service_rows(look)
