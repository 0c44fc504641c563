"""What was merged by what changed is what merging everything gives, whatever slices come, go and change."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyagent.desired import merged
from pyagent.desired.endpoints import SliceEndpoints, index_ports, merge, read_slice
from pyagent.desired.merged import Merger
from pyagent.model.address import Family, Protocol
from pyagent.model.kube_objects import Endpoint
from pyagent.model.service import ServicePortKey
from tests.unit.desired.objects import NODE, endpoint, endpoint_slice

PORTS = [{"name": "http", "port": 8080}, {"name": "more", "port": 9090}]
KEYS = [ServicePortKey("shop", "web", name, Protocol.TCP, Family.IPV4) for name in ("http", "more")]

endpoints = st.builds(
    lambda last, ready, ending, zone: endpoint(
        f"10.0.0.{last}", ready, True, ending, node=NODE, zones=[zone] if zone else None
    ),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([False, False, True]),
    st.sampled_from(["", "", "", "", "", "a"]),
)
contents = st.lists(endpoints, max_size=6)
changes = st.lists(st.tuples(st.integers(0, 5), st.none() | contents), min_size=1, max_size=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(changes, min_size=2, max_size=8))
def test_merging_again(
    monkeypatch: pytest.MonkeyPatch, steps: list[list[tuple[int, list[Endpoint] | None]]]
) -> None:
    monkeypatch.setattr(merged, "LEAST_SLICES", 1)
    monkeypatch.setattr(merged, "SHARE", 0)  # whatever their number
    merger = Merger()
    slices: dict[str, SliceEndpoints] = {}
    for step in steps:
        for number, wanted in step:
            name = f"web-{number}"
            slices.pop(name, None)
            if wanted is not None:
                obj = endpoint_slice(*wanted, name=name, ports=PORTS)
                slices[name] = read_slice(obj, "web", NODE)
        index = index_ports([slices[name] for name in sorted(slices)])
        for key in KEYS:
            pieces = index.get((key.family, key.port_name, key.protocol), [])
            if pieces:
                assert merger(key, pieces) == merge(pieces)


def test_a_slice_that_changed_is_all_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(number: int, first: int) -> SliceEndpoints:
        addresses = [f"10.0.{number}.{i}" for i in range(first, first + 50)]
        return read_slice(
            endpoint_slice(*(endpoint(a, True) for a in addresses), name=f"web-{number}"), "web", NODE
        )

    merger = Merger()
    before = [(read(number, 1), 8080) for number in range(10)]
    merger(KEYS[0], before)
    after = [*before[:-1], (read(9, 2), 8080)]
    wanted = merge(after)
    monkeypatch.setattr(merged, "merge", None)
    assert merger(KEYS[0], after) == wanted
