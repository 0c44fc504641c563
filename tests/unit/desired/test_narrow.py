"""A narrowed object means the same as the one it was made of."""

from __future__ import annotations

import msgspec
import pytest

from pyagent.desired.narrow import ReadSlice, narrowed
from pyagent.desired.snapshot import Snapshot
from pyagent.model.kube_objects import ANNOTATION_TRIGGER_TIME, EndpointSlice, Kind, KubeObject
from tests.unit.desired.objects import NODE, endpoint_slice, node, ready, service, terminating, unready

SLICES = {
    "several states": endpoint_slice(
        ready("10.0.0.1", node=NODE), terminating("10.0.0.2"), unready("10.0.0.3")
    ),
    "hints": endpoint_slice(ready("10.0.0.1", zones=["zone-a"], nodes=[NODE]), ready("10.0.0.2")),
    "a bad address": endpoint_slice(ready("10.0.0.1"), ready("127.0.0.1"), ready("nonsense")),
    "an unknown type": endpoint_slice(ready("10.0.0.1"), kind="FQDN"),
    "IPv6": endpoint_slice(ready("fd00::1"), kind="IPv6"),
    "no endpoints": endpoint_slice(),
    "two ports": endpoint_slice(
        ready("10.0.0.1"), ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}]
    ),
    "no Service": endpoint_slice(ready("10.0.0.1"), service=None),
    "a bad Service name": endpoint_slice(ready("10.0.0.1"), service="a b"),
    "headless": endpoint_slice(ready("10.0.0.1"), labels={"service.kubernetes.io/headless": ""}),
    "a bad name": endpoint_slice(ready("10.0.0.1"), name="a b"),
    "a bad namespace": endpoint_slice(ready("10.0.0.1"), namespace="a.b"),
    "the API server": endpoint_slice(ready("10.0.0.1"), service="kubernetes", namespace="default"),
}
SERVICES = {
    "plain": service(),
    "annotated": service(labels={"app": "x"}),
    "for another proxy": service(labels={"service.kubernetes.io/service-proxy-name": "other"}),
    "a load balancer": service(type="LoadBalancer", ingress=["198.51.100.1"], externalTrafficPolicy="Local"),
}
OBJECTS: list[tuple[Kind, KubeObject]] = [
    *(("EndpointSlice", one) for one in SLICES.values()),
    *(("Service", one) for one in SERVICES.values()),
    ("Node", node("b", "192.168.0.2")),
]


def taken_in(kind: Kind, *objects: KubeObject) -> tuple[object, ...]:
    """All that a snapshot says after it was given these, one after the other."""
    snapshot = Snapshot(NODE)
    for obj in objects:
        snapshot.put(kind, obj)
    owners = [("shop", "web"), ("default", "kubernetes")]
    pieces = [snapshot.slices_of(owner) for owner in owners]
    return pieces, dict(snapshot.services), dict(snapshot.nodes), snapshot.take_dirty()


@pytest.mark.parametrize(("kind", "obj"), OBJECTS, ids=[*SLICES, *SERVICES, "a Node"])
def test_the_snapshot_sees_no_difference(kind: Kind, obj: KubeObject) -> None:
    assert taken_in(kind, narrowed(obj, NODE)) == taken_in(kind, obj)
    assert taken_in(kind, obj, narrowed(obj, NODE)) == taken_in(kind, obj)
    assert narrowed(narrowed(obj, NODE), NODE) == narrowed(obj, NODE)


def test_what_a_slice_says_is_kept_once() -> None:
    found = narrowed(SLICES["several states"], NODE)
    assert isinstance(found, ReadSlice)
    assert found.endpoints is None
    snapshot = Snapshot(NODE)
    snapshot.put("EndpointSlice", found)
    assert snapshot.slices_of(("shop", "web"))[0] is found.read


def test_a_service_is_kept_once() -> None:
    found = narrowed(SERVICES["annotated"], NODE)
    snapshot = Snapshot(NODE)
    snapshot.put("Service", found)
    assert snapshot.services["shop", "web"] is found


def test_what_others_read_stays() -> None:
    """The API server's own slices, and when a change began."""
    assert narrowed(SLICES["the API server"], NODE) is SLICES["the API server"]
    triggered = {ANNOTATION_TRIGGER_TIME: "2024-01-01T00:00:00Z"}
    found = narrowed(endpoint_slice(ready("10.0.0.1"), annotations={**triggered, "more": "x"}), NODE)
    assert isinstance(found, EndpointSlice)
    assert found.metadata.annotations == triggered


def test_what_many_endpoints_name_is_one_string() -> None:
    places = [
        msgspec.json.decode(
            msgspec.json.encode(endpoint_slice(ready(ip, node="n1", zone="z1"))), type=EndpointSlice
        )
        for ip in ("10.0.0.1", "10.0.0.2")
    ]
    read = [found.read for one in places if isinstance(found := narrowed(one, NODE), ReadSlice)]
    backends = [piece.endpoints.backends[0] for piece in read if piece is not None]
    assert len({id(b.node) for b in backends}) == len({id(b.zone) for b in backends}) == 1
    assert len({id(piece.service) for piece in read if piece is not None}) == 1
