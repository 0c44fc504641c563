"""Which endpoints a client on this node may get: every rule of kube-proxy's endpoint selection, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pyagent.desired.endpoint_choice import Choice, choose
from pyagent.desired.endpoints import index_ports, merge, read_slice
from pyagent.model.address import Family, Protocol, format_address
from pyagent.model.kube_objects import Endpoint
from pyagent.model.service import Backend
from tests.unit.desired.objects import dead, endpoint, endpoint_slice, ready, terminating, unready

HERE = "node-a"


def chosen(*endpoints: Endpoint, node: str = HERE, zone: str = "zone-a", **wanted: Any) -> Choice:
    piece = read_slice(endpoint_slice(*endpoints), "web", node)
    pieces = index_ports([piece]).get((Family.IPV4, "http", Protocol.TCP), [])
    return choose(merge(pieces), node, zone, **wanted)


def ends(backends: tuple[Backend, ...]) -> list[str]:
    """The last number of each address."""
    return [format_address(b.address).rpartition(".")[2] for b in backends]


HINTS = [
    pytest.param(
        [ready("10.1.0.1", zones=["zone-a"]), ready("10.1.0.2", zones=["zone-b"])],
        "zone-a",
        ["1"],
        id="all hinted: only those meant for our zone",
    ),
    pytest.param(
        [ready("10.1.0.1", zones=["zone-a"]), ready("10.1.0.2", zones=["zone-b"])],
        "",
        ["1", "2"],
        id="a node without a zone ignores hints",
    ),
    pytest.param(
        [ready("10.1.0.1", zones=[""]), ready("10.1.0.2", zones=["zone-b"])],
        "",
        ["1", "2"],
        id="an empty zone is no zone, even if a hint is as empty",
    ),
    pytest.param(
        [ready("10.1.0.1", zones=["zone-b"]), ready("10.1.0.2", zones=["zone-c"])],
        "zone-a",
        ["1", "2"],
        id="hints for other zones only are ignored",
    ),
    pytest.param(
        [
            ready("10.1.0.1", zones=["zone-a"]),
            unready("10.1.0.2", zones=["zone-a"]),
            ready("10.1.0.3", zones=["zone-b"]),
        ],
        "zone-a",
        ["1"],
        id="an unready endpoint of our zone is left out, the rest of the zone is used",
    ),
    pytest.param(
        [
            unready("10.1.0.1", zones=["zone-a"]),
            ready("10.1.0.2", zones=["zone-b"]),
            ready("10.1.0.3", zones=["zone-c"]),
        ],
        "zone-a",
        ["2", "3"],
        id="nothing ready in our zone: all ready ones elsewhere",
    ),
    pytest.param(
        [ready("10.1.0.1", zones=["zone-a"]), ready("10.1.0.2")],
        "zone-a",
        ["1", "2"],
        id="one ready endpoint without a hint switches hints off",
    ),
    pytest.param(
        [ready("10.1.0.1", zones=["zone-a"]), unready("10.1.0.2"), ready("10.1.0.3", zones=["zone-b"])],
        "zone-a",
        ["1"],
        id="an unready endpoint without a hint does not matter",
    ),
    pytest.param(
        [
            ready("10.1.0.1", zones=["zone-a", "zone-b"]),
            ready("10.1.0.2", zones=["zone-b", "zone-c"]),
            ready("10.1.0.3", zones=["zone-c"]),
        ],
        "zone-b",
        ["1", "2"],
        id="several zones in one hint: membership counts",
    ),
    pytest.param(
        [
            ready("10.1.0.1", nodes=["node-a"], zones=["zone-a"]),
            ready("10.1.0.2", nodes=["node-b"], zones=["zone-a"]),
        ],
        "zone-a",
        ["1"],
        id="complete node hints win over zone hints",
    ),
    pytest.param(
        [ready("10.1.0.1", nodes=["node-a"]), ready("10.1.0.2")],
        "zone-a",
        ["1", "2"],
        id="one endpoint without node and zone hints: everything",
    ),
    pytest.param(
        [
            ready("10.1.0.1", nodes=["node-b"], zones=["zone-a"]),
            ready("10.1.0.2", nodes=["node-c"], zones=["zone-b"]),
        ],
        "zone-a",
        ["1"],
        id="node hints for others fall through to the zone",
    ),
    pytest.param(
        [ready("10.1.0.1", nodes=["node-a"], zones=["zone-a"]), ready("10.1.0.2", zones=["zone-b"])],
        "zone-a",
        ["1"],
        id="incomplete node hints fall through to complete zone hints",
    ),
]


@pytest.mark.parametrize(("endpoints", "zone", "expected"), HINTS)
def test_topology_hints_count_all_or_nothing(
    endpoints: list[Endpoint], zone: str, expected: list[str]
) -> None:
    assert ends(chosen(*endpoints, zone=zone).cluster) == expected


def test_hints_never_narrow_the_local_set() -> None:
    choice = chosen(
        ready("10.1.0.1", zones=["zone-b"], node=HERE),
        ready("10.1.0.2", zones=["zone-a"], node="node-b"),
        ready("10.1.0.3", zones=["zone-a"], node=HERE),
    )
    assert ends(choice.cluster) == ["2", "3"]
    assert ends(choice.local) == ["1", "3"]


def test_without_endpoints_nothing_is_usable_anywhere() -> None:
    choice = chosen()
    assert (choice.cluster, choice.local, choice.usable_anywhere) == ((), (), False)


def test_only_remote_endpoints_leave_the_local_set_empty_but_something_is_usable() -> None:
    choice = chosen(ready("10.1.0.1", node="node-b"))
    assert ends(choice.local) == []
    assert choice.usable_anywhere


def test_an_endpoint_without_a_node_is_remote() -> None:
    assert ends(chosen(ready("10.1.0.1")).local) == []


def test_a_node_without_a_name_has_no_local_endpoints() -> None:
    assert ends(chosen(ready("10.1.0.1", node=""), ready("10.1.0.2", node="node-b"), node="").local) == []


def test_unready_endpoints_are_never_used() -> None:
    choice = chosen(unready("10.1.0.1", node=HERE), unready("10.1.0.2"))
    assert (choice.cluster, choice.local) == ((), ())


def test_an_endpoint_that_serves_but_is_neither_ready_nor_terminating_is_never_used() -> None:
    assert chosen(endpoint("10.1.0.1", False, True, False, node=HERE)).cluster == ()


def test_a_terminating_endpoint_serves_when_none_is_ready() -> None:
    choice = chosen(terminating("10.1.0.1", node=HERE), terminating("10.1.0.2"), dead("10.1.0.3"))
    assert ends(choice.cluster) == ["1", "2"]
    assert ends(choice.local) == ["1"]


def test_terminating_endpoints_ignore_topology_hints() -> None:
    choice = chosen(terminating("10.1.0.1", zones=["zone-a"]), terminating("10.1.0.2", zones=["zone-b"]))
    assert ends(choice.cluster) == ["1", "2"]


def test_a_terminating_endpoint_waits_while_another_is_ready() -> None:
    assert ends(chosen(terminating("10.1.0.1"), ready("10.1.0.2")).cluster) == ["2"]


def test_all_remote_endpoints_terminating_leave_the_local_set_empty() -> None:
    choice = chosen(terminating("10.1.0.1", node="node-b"), terminating("10.1.0.2", node="node-b"))
    assert ends(choice.cluster) == ["1", "2"]
    assert ends(choice.local) == []
    assert choice.usable_anywhere


def test_each_set_falls_back_to_terminating_endpoints_by_itself() -> None:
    choice = chosen(
        ready("10.1.0.1", node="node-b"),
        terminating("10.1.0.2", node=HERE),
        dead("10.1.0.3", node=HERE),
    )
    assert ends(choice.cluster) == ["1"]
    assert ends(choice.local) == ["2"]


def test_a_dead_endpoint_alone_is_nothing() -> None:
    assert not chosen(dead("10.1.0.1", node=HERE)).usable_anywhere


def test_ready_while_terminating_counts_as_ready() -> None:
    both = endpoint("10.1.0.1", True, True, True)
    assert ends(chosen(both, terminating("10.1.0.2")).cluster) == ["1"]


def test_absent_conditions_mean_ready() -> None:
    assert ends(chosen(endpoint("10.1.0.1"), ready("10.1.0.2")).cluster) == ["1", "2"]


def test_other_nodes_have_a_local_set_if_something_there_is_usable() -> None:
    choice = chosen(
        ready("10.1.0.1", node="node-b"),
        terminating("10.1.0.2", node="node-b"),
        terminating("10.1.0.3", node="node-c"),
        unready("10.1.0.4", node="node-d"),
        ready("10.1.0.5", node=HERE),
        ready("10.1.0.6"),
        other_nodes=True,
    )
    assert {name: ends(backends) for name, backends in choice.of_other_nodes.items()} == {
        "node-b": ["1"],
        "node-c": ["3"],
    }


def test_sets_that_nobody_wants_are_not_worked_out() -> None:
    choice = chosen(ready("10.1.0.1", node=HERE), ready("10.1.0.2", node="node-b"), local=False)
    assert (choice.local, dict(choice.of_other_nodes)) == ((), {})
