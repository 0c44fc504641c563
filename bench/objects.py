"""Lists of Services and EndpointSlices of any size, as an API server writes them.

Every endpoint address lies in networks that are routed to the loopback of the bench's servers.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

SERVICE_NETWORK = ipaddress.ip_network("10.96.0.0/12")
SERVICE_NETWORK6 = ipaddress.ip_network("fd00:96::/108")
POD_NETWORK = ipaddress.ip_network("10.128.0.0/9")
"""Of all pods; the clients' own addresses are in its upper half."""

ENDPOINT_NETWORK = ipaddress.ip_network("10.128.0.0/10")
ENDPOINT_NETWORK6 = ipaddress.ip_network("fd00:ee::/64")
OUTSIDE_NETWORK = ipaddress.ip_network("10.1.0.0/16")
"""Below every Service address: what the hooks can tell from a Service by comparing two numbers."""

NAMESPACE = "bench"
API_VERSION = {"Service": "v1", "EndpointSlice": "discovery.k8s.io/v1"}
PORT = 80
TARGET_PORT = 8080
SERVER_PORT = 8081
"""Ports that the client's own servers listen on (`c/lanes.h`)."""

SERVER_SERVICE_PORT = 81
"""Leads to SERVER_PORT."""

EXTERNAL_ADDRESSES = ("198.51.100.1", "2001:db8::1")
"""Of one Service, so that the range that Services' addresses span is as wide as it is on real nodes."""

REPLACED = 50_000
"""Number of the first endpoint that stands in for another."""

MAX_SLICE = 100  # endpoints; the default of kube-controller-manager


FIRST = 1000
"""Index of the first Service of `plans`; those below are for Services that are measured."""


class Plan(NamedTuple):
    """One Service with addresses of its own.

    Attributes:
        number: counts Services; decides on its addresses.
        first_endpoint: counts endpoints; they are in a row.
    """

    name: str
    number: int
    endpoints: int
    first_endpoint: int
    affinity: bool = False
    external: bool = False
    dual_stack: bool = False

    @property
    def cluster_ips(self) -> tuple[str, ...]:
        v4, v6 = SERVICE_NETWORK[256 + self.number], SERVICE_NETWORK6[256 + self.number]
        return (str(v4), str(v6)) if self.dual_stack else (str(v4),)

    def pod(self, number: int, ipv6: bool = False) -> str:
        """Address of one of its endpoints."""
        number += 65536 + self.first_endpoint
        if ipv6:
            return f"fd00:ee::{number >> 16:x}:{number & 0xFFFF:x}"
        return f"10.{128 + (number >> 16)}.{number >> 8 & 0xFF}.{number & 0xFF}"


def plans(count: int, endpoints: int, first: int = FIRST) -> Iterator[Plan]:
    """`count` Services alike, their addresses and those of their endpoints in a row."""
    for i in range(first, first + count):
        yield Plan(f"service-{i}", i, endpoints, 100_000 + (i - FIRST) * endpoints)


def service(plan: Plan) -> dict[str, Any]:
    """The Service object."""
    families = ["IPv4", "IPv6"][: len(plan.cluster_ips)]
    ports: list[dict[str, Any]] = [
        {"name": "http", "protocol": "TCP", "port": PORT, "targetPort": TARGET_PORT},
    ]
    if plan.dual_stack:
        ports += [
            {"name": "dns", "protocol": "UDP", "port": PORT, "targetPort": TARGET_PORT},
            {"name": "server", "protocol": "TCP", "port": SERVER_SERVICE_PORT, "targetPort": SERVER_PORT},
        ]
    spec: dict[str, Any] = {
        "clusterIP": plan.cluster_ips[0],
        "clusterIPs": list(plan.cluster_ips),
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": families,
        "ipFamilyPolicy": "PreferDualStack" if plan.dual_stack else "SingleStack",
        "ports": ports,
        "selector": {"app": plan.name},
        "sessionAffinity": "ClientIP" if plan.affinity else "None",
        "type": "ClusterIP",
    }
    if plan.affinity:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    if plan.external:
        spec["externalIPs"] = list(EXTERNAL_ADDRESSES)
    return {"metadata": _metadata(plan.name, plan.number), "spec": spec, "status": {"loadBalancer": {}}}


def slices(plan: Plan) -> Iterator[dict[str, Any]]:
    """Its EndpointSlices."""
    for ipv6 in (False, True)[: len(plan.cluster_ips)]:
        for start in range(0, plan.endpoints, MAX_SLICE):
            yield endpoint_slice(plan, start, ipv6)


def endpoint_slice(plan: Plan, start: int, ipv6: bool = False, skip: int = 0) -> dict[str, Any]:
    """One EndpointSlice, of up to MAX_SLICE endpoints from the plan's `start`th.

    Args:
        skip: moves the first endpoint to an address that many behind all others: a pod that was replaced.
    """
    numbers = list(range(start, min(start + MAX_SLICE, plan.endpoints)))
    if skip:
        numbers[0] = REPLACED + skip
    name = f"{plan.name}-{'v6' if ipv6 else 'v4'}-{start // MAX_SLICE}"
    metadata = _metadata(name, plan.number)
    metadata["labels"] = {
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": plan.name,
    }
    ports = [{"name": "http", "port": TARGET_PORT, "protocol": "TCP"}]
    if plan.dual_stack:
        ports += [
            {"name": "dns", "port": TARGET_PORT, "protocol": "UDP"},
            {"name": "server", "port": SERVER_PORT, "protocol": "TCP"},
        ]
    return {
        "metadata": metadata,
        "addressType": "IPv6" if ipv6 else "IPv4",
        "endpoints": [_endpoint(plan, number, ipv6) for number in numbers],
        "ports": ports,
    }


def replaced_pod(plan: Plan, skip: int) -> str:
    """Address of the endpoint that `skip` puts in the place of the first."""
    return plan.pod(REPLACED + skip)


def _endpoint(plan: Plan, number: int, ipv6: bool) -> dict[str, Any]:
    pod = f"{plan.name}-{number:05}"
    return {
        "addresses": [plan.pod(number, ipv6)],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": f"node-{number % 100}",
        "targetRef": {
            "kind": "Pod",
            "name": pod,
            "namespace": NAMESPACE,
            "uid": f"00000000-0000-4000-8000-{number:012x}",
        },
        "zone": f"zone-{number % 3}",
    }


def _metadata(name: str, index: int) -> dict[str, Any]:
    manager = {
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:ports": {}}},
        "manager": "kube-controller-manager",
        "operation": "Update",
        "time": "2024-01-01T00:00:00Z",
    }
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"00000000-0000-4000-9000-{index:012x}",
        "resourceVersion": str(1000 + index),
        "creationTimestamp": "2024-01-01T00:00:00Z",
        "managedFields": [manager],
    }


def listing(kind: str, api_version: str, items: Iterable[dict[str, Any]]) -> bytes:
    """What the API server answers to a list."""
    head = {"kind": f"{kind}List", "apiVersion": api_version, "metadata": {"resourceVersion": "1000000"}}
    return json.dumps({**head, "items": list(items)}, separators=(",", ":")).encode()


def service_listing(wanted: Iterable[Plan]) -> bytes:
    return listing("Service", "v1", map(service, wanted))


def slice_listing(wanted: Iterable[Plan]) -> bytes:
    return listing("EndpointSlice", "discovery.k8s.io/v1", (s for plan in wanted for s in slices(plan)))


def manifest(wanted: Iterable[Plan]) -> bytes:
    """A file for the manifests directory: `kind: List` of Services and their slices."""
    items: list[dict[str, Any]] = []
    for plan in wanted:
        items.append({"apiVersion": "v1", "kind": "Service", **service(plan)})
        items += [_typed(s) for s in slices(plan)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}).encode()


def service_manifest(plan: Plan) -> bytes:
    """A file that holds the Service alone."""
    return json.dumps({"apiVersion": "v1", "kind": "Service", **service(plan)}).encode()


def slice_manifest(plan: Plan, skip: int) -> bytes:
    """A file that holds the first slice alone."""
    return json.dumps(_typed(endpoint_slice(plan, 0, skip=skip))).encode()


def _typed(found: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **found}
