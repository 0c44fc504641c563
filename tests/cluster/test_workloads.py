"""Pods of the own node, and Namespaces of which only the metadata is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyagent.cluster.decode import decode_list, decode_object, decode_watch_line
from pyagent.cluster.manifest_file import read_manifest
from pyagent.cluster.manifests import ManifestSource
from pyagent.model.kube_objects import SERVICE_KINDS, STRUCT_OF, WORKLOAD_KINDS, Namespace, Pod
from pyagent.model.source_events import Problem
from tests.cluster.conftest import Follow
from tests.cluster.support import Recorder
from tests.fakes.api_server import ApiServer

SAYS = {"kubesock.io/translate": "false"}


def pod(name: str, node_name: str = "node-a", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "annotations": SAYS},
        "spec": {"nodeName": node_name, "hostNetwork": True, "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], **status},
    }


def namespace(name: str, says: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "kind": "Namespace",
        "metadata": {"name": name, "labels": says or {}},
        "spec": {"finalizers": ["kubernetes"]},
    }


@pytest.mark.parametrize("watch_list", ["yes", "invalid", "refused"])
def test_own_pods_and_all_namespaces_are_followed(server: ApiServer, follow: Follow, watch_list: str) -> None:
    server.watch_list = watch_list
    server.put(pod("here"))
    server.put(pod("there", "node-b"))
    server.put(namespace("shop", SAYS))
    _, recorder = follow(workloads=True)
    recorder.wait_for_names({"here"}, "Pod")
    recorder.wait_for_names({"shop"}, "Namespace")
    for kind in WORKLOAD_KINDS:
        recorder.wait_for_watching(kind)
    held = recorder.held("Namespace", "", "shop")
    assert held.metadata.labels == SAYS
    server.put(pod("new"))
    server.put(namespace("bank"))
    server.delete("Pod", "shop", "here")
    server.put(namespace("shop"))
    recorder.wait_for_names({"new"}, "Pod")
    recorder.wait_for_names({"shop", "bank"}, "Namespace")
    recorder.wait(lambda: not recorder.held("Namespace", "", "shop").metadata.labels)
    assert not recorder.errors("Namespace")


def test_of_namespaces_the_metadata_is_asked_for_and_of_pods_the_own_nodes(
    server: ApiServer, follow: Follow
) -> None:
    server.watch_list = "invalid"
    _, recorder = follow(workloads=True)
    for kind in WORKLOAD_KINDS:
        recorder.wait_for_watching(kind)
    for request in server.seen(kind="Namespace"):
        form = "PartialObjectMetadataList" if request.verb == "list" else "PartialObjectMetadata"
        assert f"as={form};g=meta.k8s.io;v=v1" in request.accept
        assert request.accept.endswith(",application/json")  # for servers that cannot
    assert {r.query["fieldSelector"] for r in server.seen(kind="Pod")} == {"spec.nodeName=node-a"}
    assert {r.accept for r in server.seen(kind="Pod")} == {"application/json"}


def test_neither_is_asked_for_unless_wanted(server: ApiServer, follow: Follow) -> None:
    _, recorder = follow()
    recorder.wait_for_watching("Service")
    recorder.wait_for_watching("Node")
    assert not WORKLOAD_KINDS & {request.kind for request in server.seen()}


METADATA_ALONE = (
    b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",'
    b'"metadata":{"name":"shop","labels":{"a":"b"}}}'
)


def test_metadata_alone_is_a_namespace_in_every_form() -> None:
    whole = b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{},"items":[%s]}'
    page = decode_list("Namespace", whole % METADATA_ALONE)
    (listed,) = page.objects
    one = decode_object("Namespace", METADATA_ALONE)
    line = decode_watch_line("Namespace", b'{"type":"ADDED","object":%s}' % METADATA_ALONE)
    assert isinstance(one, Namespace)
    assert listed == one == line.object
    assert one.metadata.labels == {"a": "b"}


def test_of_a_pod_only_a_few_fields_are_kept() -> None:
    found = decode_object(
        "Pod",
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"shop"},'
        b'"spec":{"nodeName":"n","hostNetwork":true,"containers":[{"name":1}]},"status":{"podIP":"10.0.0.1"}}',
    )
    assert isinstance(found, Pod)
    assert found.spec is not None
    assert found.status is not None
    assert (found.spec.nodeName, found.spec.hostNetwork, found.status.podIP) == ("n", True, "10.0.0.1")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"metadata":{"name":"p","namespace":"s"},"spec":{"hostNetwork":"yes"}}', "spec.hostNetwork"),
        (b'{"metadata":{"name":"p","namespace":"s"},"status":{"podIPs":[7]}}', "status.podIPs[0]"),
        (b'{"metadata":{"name":"p"}}', "metadata.namespace"),
    ],
)
def test_a_pod_that_is_none_is_a_problem_of_its_field(body: bytes, field: str) -> None:
    found = decode_object("Pod", body)
    assert isinstance(found, Problem)
    assert found.field == field


MANIFEST = b"""
kind: Namespace
apiVersion: v1
metadata: {name: shop, annotations: {kubesock.io/translate: "false"}}
---
kind: Pod
apiVersion: v1
metadata: {name: p, namespace: shop}
spec: {hostNetwork: maybe}
---
kind: Pod
apiVersion: v1
metadata: {name: q}
"""


def test_in_manifests_they_are_read_only_when_wanted() -> None:
    assert read_manifest("a.yaml", MANIFEST) == ({}, (), None)
    content = read_manifest("a.yaml", MANIFEST, tuple(STRUCT_OF))
    assert {(key.kind, key.namespace, key.name) for key in content.objects} == {
        ("Namespace", "", "shop"),
        ("Pod", "default", "q"),
    }
    assert [problem.field for problem in content.problems] == ["spec.hostNetwork"]


def test_a_directory_is_listed_once_for_each_kind_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(MANIFEST)
    for kinds in (SERVICE_KINDS, SERVICE_KINDS | WORKLOAD_KINDS):
        recorder = Recorder()
        source = ManifestSource(tmp_path, kinds=kinds)
        source.start(recorder)
        for kind in kinds:
            recorder.wait_for_watching(kind)
        source.stop()
        assert {event.kind for event in recorder.events} == kinds
        assert recorder.names("Pod") == ({"q"} if "Pod" in kinds else set())
