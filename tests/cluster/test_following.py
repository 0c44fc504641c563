"""Following the API server through everything that can happen to a watch."""

from __future__ import annotations

import threading

import pytest

from pyagent.cluster.api_source import NodeChoice
from pyagent.model.source_events import Changed, Deleted, Malformed, Replaced
from tests.cluster.conftest import QUICK, Follow
from tests.cluster.support import Recorder, endpoint_slice, node, service
from tests.fakes.api_server import ApiServer

ALL_WAYS_TO_LIST = ("yes", "invalid", "refused")


@pytest.mark.parametrize("watch_list", ALL_WAYS_TO_LIST)
def test_the_first_list_and_later_changes_arrive(server: ApiServer, follow: Follow, watch_list: str) -> None:
    server.watch_list = watch_list
    server.put(service("web"))
    server.put(service("api"))
    _, recorder = follow()
    recorder.wait_for_names({"web", "api"})
    assert len(recorder.of(Replaced)) == 1
    recorder.wait_for_watching()
    server.put(service("new"))
    server.put(service("web", ip="10.96.0.77"))
    server.delete("Service", "shop", "api")
    recorder.wait_for_names({"web", "new"})
    assert recorder.held("Service", "shop", "web").spec.clusterIP == "10.96.0.77"
    assert len(recorder.of(Replaced)) == 1
    assert all(event.received > 0 for event in recorder.of(Changed))


@pytest.mark.parametrize("watch_list", ["invalid", "refused"])
def test_a_refused_streamed_list_is_not_asked_for_again(
    server: ApiServer, follow: Follow, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    server.compact()
    server.cut_all()
    recorder.wait(lambda: len(recorder.of(Replaced)) == 2)
    asked = [r for r in server.seen("watch", "Service") if "sendInitialEvents" in r.query]
    assert len(asked) == 1


def test_a_plain_list_comes_in_pages_of_500(server: ApiServer, follow: Follow) -> None:
    server.watch_list = "invalid"
    names = {f"web-{i}" for i in range(1203)}
    for name in names:
        server.put(service(name))
    _, recorder = follow()
    recorder.wait_for_names(names)
    pages = server.seen("list", "Service")
    assert [(p.query.get("resourceVersion"), "continue" in p.query, p.query["limit"]) for p in pages] == [
        ("0", False, "500"),
        (None, True, "500"),
        (None, True, "500"),
    ]


def test_slices_labelled_headless_are_not_followed(server: ApiServer, follow: Follow) -> None:
    headless = endpoint_slice("b", "web", "10.0.0.2")
    headless["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    server.put(endpoint_slice("a", "web", "10.0.0.1"))
    server.put(headless)
    _, recorder = follow()
    recorder.wait_for_names({"a"}, "EndpointSlice")
    recorder.wait_for_watching("EndpointSlice")
    labelled = endpoint_slice("a", "web", "10.0.0.1")
    labelled["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    server.put(labelled)
    recorder.wait_for_names(set(), "EndpointSlice")
    server.put(endpoint_slice("a", "web", "10.0.0.1"))
    recorder.wait_for_names({"a"}, "EndpointSlice")
    assert [type(e) for e in recorder.events if e.kind == "EndpointSlice"][-2:] == [Deleted, Changed]


def test_services_of_other_proxies_are_followed_and_headless_ones_are_not(
    server: ApiServer, follow: Follow
) -> None:
    other = service("other")
    other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "mesh"}
    server.put(other)
    server.put(service("headless", ip="None"))
    _, recorder = follow()
    recorder.wait_for_names({"other"})


@pytest.mark.parametrize("watch_list", ALL_WAYS_TO_LIST)
def test_a_server_without_the_field_selector_is_followed_without_it(
    server: ApiServer, follow: Follow, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.field_selectors = False
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_names({"web"})
    recorder.wait_for_watching()
    server.put(service("api"))
    recorder.wait_for_names({"web", "api"})


def test_only_the_own_node_is_followed_unless_asked(server: ApiServer, follow: Follow) -> None:
    server.put(node("node-a"))
    server.put(node("node-b"))
    _, own = follow()
    _, everyone = follow(nodes="all")
    own.wait_for_names({"node-a"}, "Node")
    everyone.wait_for_names({"node-a", "node-b"}, "Node")


def test_a_missing_service_cidr_api_is_an_empty_list(server: ApiServer, follow: Follow) -> None:
    server.absent_kinds.add("ServiceCIDR")
    _, recorder = follow()
    recorder.wait(lambda: len(recorder.of(Replaced, "ServiceCIDR")) == 1)
    assert recorder.of(Replaced, "ServiceCIDR")[0].objects == []
    assert recorder.errors("ServiceCIDR") == []


def test_a_service_cidr_api_that_appears_later_is_found(server: ApiServer, follow: Follow) -> None:
    server.absent_kinds.add("ServiceCIDR")
    _, recorder = follow()
    recorder.wait(lambda: len(recorder.of(Replaced, "ServiceCIDR")) == 1)
    server.put(
        {"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}}
    )
    server.absent_kinds.clear()
    recorder.wait_for_names({"kubernetes"}, "ServiceCIDR")


def deletion_during(server: ApiServer, recorder: Recorder) -> None:
    """With the server down: one Service goes, one comes, and the history is forgotten."""
    server.down()
    server.delete("Service", "shop", "gone")
    server.put(service("new"))
    server.compact()
    server.up()
    recorder.wait_for_names({"web", "new"})


@pytest.mark.parametrize("watch_list", ALL_WAYS_TO_LIST)
def test_a_deletion_during_a_gap_is_found_by_the_list_after_410(
    server: ApiServer, follow: Follow, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.put(service("web"))
    server.put(service("gone"))
    _, recorder = follow()
    recorder.wait_for_watching()
    deletion_during(server, recorder)
    assert not any(r.query.get("resourceVersion") == "0" for r in server.seen("list", "Service")[1:])


def test_a_cut_stream_resumes_at_the_last_version_without_a_list(server: ApiServer, follow: Follow) -> None:
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    server.put(service("api"))
    recorder.wait_for_names({"web", "api"})
    server.cut_all()
    server.put(service("during"))
    recorder.wait_for_names({"web", "api", "during"})
    assert len(recorder.of(Replaced)) == 1
    assert int(server.seen("watch", "Service")[-1].query["resourceVersion"]) > 1000


@pytest.mark.parametrize("fault", ["error_in_stream", "status"])
def test_410_leads_to_a_new_list(server: ApiServer, follow: Follow, fault: str) -> None:
    server.fault(fault, verb="watch", kind="Service", code=410, watch_list=False)
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    server.cut_all()
    recorder.wait(lambda: len(recorder.of(Replaced)) == 2)
    server.put(service("later"))
    recorder.wait_for_names({"web", "later"})


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("half_line", {}),
        ("garbage_line", {}),
        ("reset", {}),
        ("stall", {}),
        ("stall_early", {}),
        ("status", {"code": 500}),
        ("status", {"code": 503}),
        ("status", {"code": 429}),
        ("error_in_stream", {"code": 500}),
        ("cut", {"seconds": 0.05}),
    ],
)
@pytest.mark.parametrize("verb", ["watch", ""])
def test_the_stream_recovers_from(
    server: ApiServer, follow: Follow, fault: str, how: dict[str, float], verb: str
) -> None:
    if fault in ("half_line", "garbage_line", "stall", "cut", "error_in_stream") and verb == "":
        verb = "watch"
        server.put(service("second"))  # fails in the middle of a streamed list, after its first object
        how = how | {"after": 1}
    server.put(service("web"))
    server.fault(fault, verb=verb, kind="Service", count=3, **how)
    _, recorder = follow(QUICK._replace(read=0.4))
    recorder.wait(lambda: {"web"} <= recorder.names())
    server.put(service("later"))
    recorder.wait(lambda: {"web", "later"} <= recorder.names())


@pytest.mark.parametrize("fault", ["slow", "wrong_json", "reset", "stall_early"])
def test_a_plain_list_recovers_from(server: ApiServer, follow: Follow, fault: str) -> None:
    server.watch_list = "invalid"
    server.put(service("web"))
    server.fault(fault, verb="list", kind="Service", count=2, seconds=0.02)
    _, recorder = follow(QUICK._replace(read=0.4))
    recorder.wait_for_names({"web"})


def test_a_half_open_connection_is_given_up_after_the_read_timeout(server: ApiServer, follow: Follow) -> None:
    server.put(service("web"))
    server.bookmark_seconds = 3600
    _, recorder = follow(QUICK._replace(read=0.3))
    recorder.wait(lambda: len(server.seen("watch", "Service")) >= 3)
    assert len(recorder.of(Replaced)) == 1
    assert any("timed out" in error for error in recorder.errors()) or len(server.seen("watch")) >= 3


@pytest.mark.parametrize("watch_list", ALL_WAYS_TO_LIST)
def test_an_empty_list_after_a_full_one_removes_nothing_unless_confirmed(
    server: ApiServer, follow: Follow, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    verb = "watch" if watch_list == "yes" else "list"
    server.fault("empty_list", verb=verb, kind="Service")
    server.compact()
    server.cut_all()
    recorder.wait(lambda: len(recorder.of(Replaced)) == 2)
    assert [len(event.objects) for event in recorder.of(Replaced)] == [1, 1]


@pytest.mark.parametrize("watch_list", ALL_WAYS_TO_LIST)
def test_an_empty_list_that_a_quorum_read_confirms_removes_everything(
    server: ApiServer, follow: Follow, watch_list: str
) -> None:
    server.watch_list = watch_list
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    server.down()
    server.delete("Service", "shop", "web")
    server.compact()
    server.up()
    recorder.wait_for_names(set())
    assert "resourceVersion" not in server.seen("list", "Service")[-1].query


def test_after_a_restart_even_the_first_empty_list_is_confirmed(server: ApiServer, follow: Follow) -> None:
    server.put(service("web"))
    server.fault("empty_list", kind="Service")
    _, recorder = follow(had_objects=True)
    recorder.wait(lambda: bool(recorder.of(Replaced)))
    assert len(recorder.of(Replaced)[0].objects) == 1


@pytest.mark.parametrize("nodes", ["own", "all", "auto"])
def test_so_is_the_first_list_of_nodes(server: ApiServer, follow: Follow, nodes: NodeChoice) -> None:
    server.put(node("node-a"))
    # The count that "auto" decides by is a list too; it comes first.
    server.fault("empty_list", kind="Node", count=2 if nodes == "auto" else 1)
    _, recorder = follow(had_objects=True, nodes=nodes)
    recorder.wait(lambda: bool(recorder.of(Replaced, "Node")))
    assert len(recorder.of(Replaced, "Node")[0].objects) == 1


def test_the_whole_list_is_taken_again_now_and_then(server: ApiServer, follow: Follow) -> None:
    server.watch_list = "invalid"
    server.put(service("web"))
    _, recorder = follow(QUICK._replace(relist_after=0.2, watch=1.0))
    recorder.wait(lambda: len(recorder.of(Replaced)) >= 2)
    again = server.seen("list", "Service")[1]
    assert again.query["resourceVersionMatch"] == "NotOlderThan"


def test_a_malformed_object_costs_only_itself(server: ApiServer, follow: Follow) -> None:
    server.put(service("web"))
    server.put(service("broken", ports=[{"port": 80}, {"port": "eighty"}]))
    _, recorder = follow()
    recorder.wait_for_names({"web"})
    (problem,) = recorder.of(Replaced)[0].problems
    assert str(problem) == "Service shop/broken: spec.ports[1].port: Expected int, got str"
    recorder.wait_for_watching()
    server.put(service("web", ports="none"))
    server.put(service("api"))
    recorder.wait_for_names({"api"})
    assert recorder.of(Malformed)[0].problem.field == "spec.ports"


def test_a_forbidden_kind_names_the_missing_rule(server: ApiServer, follow: Follow) -> None:
    server.fault("status", kind="EndpointSlice", code=403, count=-1)
    _, recorder = follow()
    recorder.wait(lambda: bool(recorder.errors("EndpointSlice")))
    assert recorder.errors("EndpointSlice")[0] == (
        "not allowed to list and watch endpointslices; add to the agent's ClusterRole: "
        'apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: ["list", "watch"]'
    )
    server.faults.clear()
    recorder.wait_for_watching("EndpointSlice")


def test_stop_ends_every_thread_whatever_it_waits_for(server: ApiServer, follow: Follow) -> None:
    server.fault("stall_early", kind="Node", count=-1)
    server.fault("stall", kind="EndpointSlice", count=-1)
    server.put(service("web"))
    source, recorder = follow(QUICK._replace(read=3600.0))
    recorder.wait_for_watching()
    source.stop()
    count = len(recorder.events)
    server.put(service("late"))
    assert not [t for t in threading.enumerate() if t.name.startswith("watch ") and t.is_alive()]
    assert len(recorder.events) == count
