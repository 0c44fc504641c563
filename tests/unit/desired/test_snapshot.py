"""What the snapshot keeps of the objects, and what it marks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyagent.desired import snapshot as module
from pyagent.desired.snapshot import Snapshot
from pyagent.model.kube_objects import EndpointSlice, KubeObject, Service
from pyagent.model.outcome import Outcome
from pyagent.model.source_events import Problem
from tests.unit.desired.objects import (
    NODE,
    Cluster,
    endpoint_slice,
    kind_of,
    node,
    ready,
    service,
    service_cidr,
)

WEB = "10.96.0.10"
SLICE = endpoint_slice(ready("10.1.0.1"))


def filled(*objects: KubeObject) -> Snapshot:
    """A snapshot with nothing marked."""
    snapshot = Snapshot(NODE)
    for obj in objects:
        snapshot.put(kind_of(obj), obj)
    snapshot.take_dirty()
    return snapshot


def marked(snapshot: Snapshot) -> tuple[list[tuple[str, str]], set[str], bool]:
    dirty = snapshot.take_dirty()
    return list(dirty.services), dirty.nodes, dirty.service_cidrs


NOTHING: tuple[list[tuple[str, str]], set[str], bool] = ([], set(), False)
WEB_ONLY: tuple[list[tuple[str, str]], set[str], bool] = ([("shop", "web")], set(), False)


def touched(obj: KubeObject) -> KubeObject:
    """The same object after an update of nothing that we read."""
    metadata = msgspec.structs.replace(
        obj.metadata,
        resourceVersion="2",
        uid="another",
        annotations={"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
        labels=(obj.metadata.labels or {}) | {"team": "blue"},
    )
    return msgspec.structs.replace(obj, metadata=metadata)


EVERY_KIND = [service(), SLICE, node(NODE, "192.168.0.1"), service_cidr("kubernetes", "10.96.0.0/16")]


@pytest.mark.parametrize("obj", EVERY_KIND, ids=lambda obj: type(obj).__name__)
def test_a_change_of_metadata_alone_marks_nothing(obj: KubeObject) -> None:
    snapshot = filled(service(), obj)
    snapshot.put(kind_of(obj), touched(obj))
    assert marked(snapshot) == NOTHING


@pytest.mark.parametrize("obj", EVERY_KIND, ids=lambda obj: type(obj).__name__)
def test_the_same_list_again_marks_nothing(obj: KubeObject) -> None:
    snapshot = filled(obj)
    snapshot.replace(kind_of(obj), [touched(obj)])
    assert marked(snapshot) == NOTHING


@pytest.mark.parametrize("obj", EVERY_KIND, ids=lambda obj: type(obj).__name__)
def test_deleting_what_is_unknown_marks_nothing(obj: KubeObject) -> None:
    snapshot = filled(obj)
    snapshot.delete(kind_of(obj), "elsewhere", "unknown")
    assert marked(snapshot) == NOTHING


@pytest.mark.parametrize(
    "changed",
    [
        service(cluster_ip="10.96.0.11"),
        service(created="2024-01-01T00:00:00Z"),
        service(labels={"service.kubernetes.io/service-proxy-name": "other"}),
        service(ingress=["203.0.113.7"]),
        endpoint_slice(ready("10.1.0.2")),
        endpoint_slice(ready("10.1.0.1"), ports=[{"name": "http", "port": 9090}]),
        endpoint_slice(ready("10.1.0.1", zones=["zone-a"])),
        endpoint_slice(ready("10.1.0.3"), name="web-2"),
    ],
)
def test_a_change_marks_its_service_alone(changed: KubeObject) -> None:
    other = service("api", "10.96.0.12")
    snapshot = filled(service(), SLICE, other, endpoint_slice(ready("10.1.0.9"), name="api-1", service="api"))
    snapshot.put(kind_of(changed), changed)
    assert marked(snapshot) == WEB_ONLY


def test_a_service_added_and_deleted_between_two_looks_leaves_nothing() -> None:
    cluster = Cluster()
    cluster.snapshot.put("Service", service())
    cluster.snapshot.delete("Service", "shop", "web")
    change = cluster.update()
    assert (change.service_ports, change.frontends, change.service_addresses) == ({}, {}, {})


def test_a_list_removes_what_is_not_in_it() -> None:
    snapshot = filled(service(), service("api", "10.96.0.12"), SLICE)
    snapshot.replace("Service", [service("api", "10.96.0.12")])
    assert (marked(snapshot), list(snapshot.services)) == (WEB_ONLY, [("shop", "api")])
    snapshot.replace("EndpointSlice", [])
    assert (marked(snapshot), snapshot.slices_of(("shop", "web"))) == (WEB_ONLY, ())


def test_an_empty_service_cidr_list_is_fine() -> None:
    snapshot = filled()
    snapshot.replace("ServiceCIDR", [])
    assert marked(snapshot) == NOTHING


def test_one_of_two_slices_deleted_keeps_the_other() -> None:
    cluster = Cluster(service(), SLICE, endpoint_slice(ready("10.1.0.2"), name="web-2"))
    cluster.delete(SLICE)
    assert cluster.dial(WEB) == ["10.1.0.2:8080"]
    cluster.delete(endpoint_slice(name="web-2"))
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS


def test_an_endpoint_that_moves_between_slices_is_never_lost() -> None:
    cluster = Cluster(service(), SLICE, endpoint_slice(name="web-2"))
    cluster.snapshot.put("EndpointSlice", endpoint_slice())
    cluster.snapshot.put("EndpointSlice", endpoint_slice(ready("10.1.0.1"), name="web-2"))
    assert cluster.update().service_ports == {}
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]


def test_a_slice_that_moves_to_another_service_marks_both() -> None:
    cluster = Cluster(service(), service("api", "10.96.0.12"), SLICE)
    moved = endpoint_slice(ready("10.1.0.1"), service="api")
    cluster.snapshot.put("EndpointSlice", moved)
    assert list(cluster.snapshot.everything().services)  # looking takes nothing away
    cluster.update()
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS
    assert cluster.dial("10.96.0.12") == ["10.1.0.1:8080"]


def test_slices_may_come_before_their_service() -> None:
    cluster = Cluster(SLICE)
    cluster.put(service())
    assert cluster.dial(WEB) == ["10.1.0.1:8080"]


def test_a_hand_made_slice_needs_nothing_but_the_label() -> None:
    piece = msgspec.convert(
        {
            "metadata": {"name": "m", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.1.0.1"]}],
        },
        EndpointSlice,
    )
    assert Cluster(service(), piece).dial(WEB) == ["10.1.0.1:8080"]


@pytest.mark.parametrize("label", [None, "", "not a name", "w" * 64])
def test_a_slice_without_a_service_is_reported_and_left_out(label: str | None) -> None:
    cluster = Cluster(service(), SLICE)
    cluster.put(endpoint_slice(ready("10.1.0.1"), service=label))
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS
    assert cluster.told_of("metadata.labels[kubernetes.io/service-name]")
    cluster.put(SLICE)
    assert (cluster.dial(WEB), cluster.told()) == (["10.1.0.1:8080"], set())


def test_the_headless_label_on_a_slice_is_followed_live() -> None:
    cluster = Cluster(service(), SLICE)
    cluster.put(endpoint_slice(ready("10.1.0.1"), labels={"service.kubernetes.io/headless": ""}))
    assert cluster.dial(WEB) == Outcome.REFUSED_NO_ENDPOINTS
    cluster.put(SLICE)
    assert (cluster.dial(WEB), cluster.told()) == (["10.1.0.1:8080"], set())


def test_the_service_proxy_name_label_is_followed_live() -> None:
    foreign = service(labels={"service.kubernetes.io/service-proxy-name": ""})
    cluster = Cluster(foreign, SLICE)
    assert (cluster.dial(WEB), cluster.dial(WEB, 81)) == (Outcome.PASSED_OTHER_PROXY,) * 2
    cluster.put(service())
    assert (cluster.dial(WEB), cluster.dial(WEB, 81)) == (["10.1.0.1:8080"], Outcome.REFUSED_UNDEFINED_PORT)
    cluster.put(foreign)
    assert (cluster.dial(WEB), cluster.ports) == (Outcome.PASSED_OTHER_PROXY, {})


UNNAMED: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "metadata.name"),
    ({"name": "we\x00b"}, "metadata.name"),
    ({"name": "w" * 64}, "metadata.name"),
    ({"name": "w" * 1_000_000}, "metadata.name"),
    ({"name": "../web"}, "metadata.name"),
    ({"name": "web", "namespace": ""}, "metadata.namespace"),
    ({"name": "web", "namespace": "a/b"}, "metadata.namespace"),
]


@pytest.mark.parametrize(("names", "field"), UNNAMED)
def test_an_object_without_a_usable_name_is_reported_on_one_short_line(
    names: dict[str, Any], field: str
) -> None:
    cluster = Cluster(service(**names), service("api", "10.96.0.12"))
    assert [key.name for key in cluster.ports] == ["api"]
    assert cluster.told_of(field)
    (line,) = cluster.told()
    assert len(line) < 400
    assert line.isprintable()


def test_a_slice_may_have_a_longer_name_than_a_service() -> None:
    assert Cluster(service(), endpoint_slice(ready("10.1.0.1"), name="w" * 253)).dial(WEB) == [
        "10.1.0.1:8080"
    ]


def test_an_object_that_cannot_be_decoded_counts_as_deleted_until_it_is_mended() -> None:
    cluster = Cluster(service(), SLICE)
    cluster.snapshot.reject("Service", Problem("Service", "shop", "web", "spec.ports", "want a list"))
    cluster.update()
    assert (cluster.dial(WEB), len(cluster.told())) == ("passed", 1)
    cluster.put(service())
    assert (cluster.dial(WEB), cluster.told()) == (["10.1.0.1:8080"], set())


def test_problems_of_a_list_go_with_the_next_list() -> None:
    cluster = Cluster()
    problem = Problem("Service", "shop", "web", "spec.ports", "want a list")
    cluster.snapshot.replace("Service", [service("api", "10.96.0.12")], [problem])
    cluster.update()
    assert cluster.problems == {problem}
    cluster.snapshot.replace("Service", [service("api", "10.96.0.12"), service()], [problem])
    assert cluster.update().new_problems == ()
    cluster.snapshot.replace("Service", [service("api", "10.96.0.12"), service(cluster_ip="10.96.0.11")])
    cluster.update()
    assert cluster.problems == set()


def test_problems_of_files_are_all_kept_and_delete_no_object() -> None:
    cluster = Cluster(service_cidr("shop.yaml", "10.96.0.0/16"))
    for line in (1, 2):
        cluster.snapshot.reject("File", Problem("File", "", "shop.yaml", "", f"line {line} is cut off"))
    cluster.update()
    assert len(cluster.problems) == 2
    assert cluster.dial("10.96.0.99") == Outcome.REFUSED_UNALLOCATED_ADDRESS


def test_objects_without_a_name_are_all_reported_until_they_are_mended() -> None:
    cluster = Cluster()
    problems = [
        Problem("Service", "default", "", "metadata", "is missing", f"shop.yaml:{n}") for n in range(3)
    ]
    for problem in problems:
        cluster.snapshot.reject("Service", problem)
    cluster.update()
    assert cluster.problems == set(problems)
    for problem in problems[1:]:
        cluster.snapshot.forgive(problem)
    cluster.update()
    assert cluster.problems == {problems[0]}


def test_the_own_node_keeps_its_zone_when_its_object_goes() -> None:
    cluster = Cluster(node(NODE, zone="zone-z"), zone="")
    cluster.delete(node(NODE))
    assert cluster.state.node.zone == "zone-z"
    cluster.snapshot.replace("Node", [])
    cluster.update()
    assert cluster.state.node.zone == "zone-z"


def test_signs_of_deletion_of_a_node_are_kept() -> None:
    snapshot = Snapshot(NODE)
    body = {"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}
    tainted = msgspec.convert({"metadata": {"name": NODE}, "spec": {"taints": [body]}}, type(node(NODE)))
    snapshot.put("Node", tainted)
    assert (snapshot.nodes[NODE].to_be_deleted, snapshot.nodes[NODE].deleted) == (True, False)
    snapshot.put("Node", node(NODE, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert (snapshot.nodes[NODE].to_be_deleted, snapshot.nodes[NODE].deleted) == (False, True)


def test_a_zone_that_is_no_label_value_is_reported_and_counts_as_none() -> None:
    cluster = Cluster(node(NODE, zone="zone\n"), zone="")
    assert cluster.state.node.zone == ""
    assert cluster.told_of("metadata.labels[topology.kubernetes.io/zone]")


def test_what_no_rule_reads_is_not_kept() -> None:
    listed = service(labels={"app": "web"})
    heavy = msgspec.structs.replace(
        listed, metadata=msgspec.structs.replace(listed.metadata, annotations={"a": "b" * 100_000})
    )
    kept: Service = filled(heavy).services["shop", "web"]
    assert (kept.metadata.labels, kept.metadata.annotations) == (None, None)
    assert (kept.spec.clusterIP, kept.spec.ports) == (WEB, listed.spec.ports)


def test_objects_beyond_measure_are_refused_by_one_problem_and_the_others_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTS", 3)
    snapshot = filled(*(service(name, WEB) for name in "abc"))
    for name in ("d", "e"):
        snapshot.put("Service", service(name, WEB))
    assert {name for _, name in snapshot.services} == set("abc")
    dirty = snapshot.take_dirty()
    ((key, problems),) = dirty.problems.items()
    assert (key, len(problems), dirty.services) == (("Service", "", ""), 1, {})
    assert "more than 3 objects" in str(problems[0])
    snapshot.put("Service", service("a", "10.96.0.11"))
    assert marked(snapshot) == ([("shop", "a")], set(), False), "those that are known are followed"
    snapshot.put("EndpointSlice", SLICE)
    assert snapshot.slices_of(("shop", "web")), "other kinds are"


def test_a_list_may_exchange_as_many_objects_as_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OBJECTS", 3)
    snapshot = filled(*(service(name, WEB) for name in "abc"))
    snapshot.put("Service", service("d", WEB))
    snapshot.replace("Service", [service(name, WEB) for name in "def"])
    assert {name for _, name in snapshot.services} == set("def")
    assert snapshot.take_dirty().problems == {("Service", "", ""): ()}


def test_problems_beyond_measure_are_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNUSABLE", 2)
    snapshot = Snapshot(NODE)
    bad = [Problem("Service", "shop", name, "", "is not JSON") for name in "abcd"]
    for problem in bad:
        snapshot.reject("Service", problem)
    kept = snapshot.everything().problems
    assert [key[2] for key in kept] == ["a", "b", ""]
    for problem in bad:
        snapshot.forgive(problem)
    assert not any(snapshot.everything().problems.values())
