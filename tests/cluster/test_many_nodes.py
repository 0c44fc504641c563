"""`--remote-node-ports=auto` on clusters that are small, large, growing and shrinking."""

from __future__ import annotations

import logging

import pytest

from pyagent.cluster.node_reflector import FEW_AGAIN, MOST_NODES
from pyagent.model.source_events import Scoped
from tests.cluster.conftest import QUICK, Follow
from tests.cluster.support import Recorder, node
from tests.fakes.api_server import ApiServer

OWN = "metadata.name=node-a"
RELISTING = QUICK._replace(relist_after=0.2, watch=0.1)


def put_nodes(server: ApiServer, count: int) -> set[str]:
    """So many Nodes in all, node-a among them."""
    names = {"node-a", *(f"node-{number}" for number in range(count - 1))}
    for name in names:
        server.put(node(name))
    return names


def remove_nodes(server: ApiServer, names: set[str], left: int) -> set[str]:
    gone = sorted(names - {"node-a"})[: len(names) - left]
    for name in gone:
        server.delete("Node", "", name)
    return names - set(gone)


def scopes(recorder: Recorder) -> list[bool]:
    return [event.everything for event in recorder.of(Scoped, "Node")]


def watches(server: ApiServer) -> list[str]:
    return [request.query.get("fieldSelector", "") for request in server.seen("watch", "Node")]


@pytest.mark.parametrize("watch_list", ["yes", "invalid"])
@pytest.mark.parametrize("count", [1, MOST_NODES])
def test_up_to_500_nodes_are_all_followed(
    server: ApiServer, follow: Follow, count: int, watch_list: str
) -> None:
    server.watch_list = watch_list
    names = put_nodes(server, count)
    _, recorder = follow(nodes="auto")
    recorder.wait_for_names(names, "Node")
    recorder.wait_for_watching("Node")
    assert scopes(recorder) == [True]
    assert set(watches(server)) == {""}


@pytest.mark.parametrize("watch_list", ["yes", "invalid"])
@pytest.mark.parametrize("count", [MOST_NODES + 1, MOST_NODES + 300])
def test_of_more_than_500_nodes_only_the_own_is_followed_and_never_the_others(
    server: ApiServer, follow: Follow, count: int, watch_list: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.watch_list = watch_list
    put_nodes(server, count)
    with caplog.at_level(logging.INFO):
        _, recorder = follow(nodes="auto")
        recorder.wait_for_names({"node-a"}, "Node")
        recorder.wait_for_watching("Node")
    assert scopes(recorder) == [False]
    assert set(watches(server)) == {OWN}
    assert [line for line in caplog.messages if "Nodes" in line] == [
        "more than 500 Nodes: only the own one is followed; nodePorts of the others stay untranslated"
    ]


def test_the_count_is_one_page_of_metadata(server: ApiServer, follow: Follow) -> None:
    put_nodes(server, MOST_NODES + 700)
    _, recorder = follow(nodes="auto")
    recorder.wait_for_watching("Node")
    counting = [r for r in server.seen("list", "Node") if "fieldSelector" not in r.query]
    assert [(r.query, "as=PartialObjectMetadataList" in r.accept) for r in counting] == [
        ({"limit": str(MOST_NODES + 1)}, True)
    ]


def test_a_cluster_that_grows_beyond_500_is_left_at_once(
    server: ApiServer, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    put_nodes(server, MOST_NODES)
    with caplog.at_level(logging.INFO):
        _, recorder = follow(nodes="auto")
        recorder.wait_for_watching("Node")
        server.put(node("one-more"))
        recorder.wait_for_names({"node-a"}, "Node")
    recorder.wait(lambda: watches(server)[-1] == OWN)
    assert scopes(recorder) == [True, False]
    assert len([line for line in caplog.messages if "only the own one" in line]) == 1


def test_all_nodes_are_followed_again_once_they_are_clearly_fewer(
    server: ApiServer, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    names = put_nodes(server, MOST_NODES + 1)
    with caplog.at_level(logging.INFO):
        _, recorder = follow(RELISTING, nodes="auto")
        recorder.wait_for_names({"node-a"}, "Node")
        names = remove_nodes(server, names, FEW_AGAIN + 1)
        counted = len(server.seen("list", "Node"))
        recorder.wait(lambda: len(server.seen("list", "Node")) >= counted + 4)
        assert scopes(recorder) == [False]  # 451 are not few enough
        names = remove_nodes(server, names, FEW_AGAIN)
        recorder.wait_for_names(names, "Node")
    assert scopes(recorder) == [False, True]
    assert len([line for line in caplog.messages if "all are followed again" in line]) == 1


def test_an_account_that_may_not_list_all_nodes_follows_its_own(server: ApiServer, follow: Follow) -> None:
    server.forbidden_without_selector.add("Node")
    put_nodes(server, 3)
    _, recorder = follow(nodes="auto")
    recorder.wait_for_names({"node-a"}, "Node")
    assert scopes(recorder) == [False]


def test_a_failing_count_is_repeated_and_nothing_is_decided_meanwhile(
    server: ApiServer, follow: Follow
) -> None:
    server.fault("status", verb="list", kind="Node", code=500, count=3)
    names = put_nodes(server, 3)
    _, recorder = follow(nodes="auto")
    recorder.wait_for_names(names, "Node")
    assert scopes(recorder) == [True]
    assert any("500" in error for error in recorder.errors("Node"))


def test_off_follows_the_own_node_and_on_follows_all(server: ApiServer, follow: Follow) -> None:
    names = put_nodes(server, MOST_NODES + 1)
    _, own = follow(nodes="own")
    _, everyone = follow(nodes="all")
    own.wait_for_names({"node-a"}, "Node")
    everyone.wait_for_names(names, "Node")
    assert scopes(own) == scopes(everyone) == []
