"""The few fields of Kubernetes objects that we read, as msgspec structs decoded from raw bytes.

Field names are the API's own (camelCase), so no renaming table is needed. Everything optional has the
API server's default or an empty value: objects written by hand may leave out all but name and namespace.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Metadata(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creationTimestamp: str | None = None  # RFC 3339; None counts as youngest
    deletionTimestamp: str | None = None
    resourceVersion: str = ""
    uid: str = ""


class ClientIP(msgspec.Struct, frozen=True, gc=False):
    timeoutSeconds: int | None = None


class SessionAffinityConfig(msgspec.Struct, frozen=True, gc=False):
    clientIP: ClientIP | None = None


class ServicePortSpec(msgspec.Struct, frozen=True, gc=False):
    port: int
    name: str | None = None
    protocol: str | None = None  # None: TCP
    nodePort: int | None = None


class ServiceSpec(msgspec.Struct, frozen=True, gc=False):
    type: str | None = None  # None: ClusterIP
    clusterIP: str | None = None
    clusterIPs: list[str] | None = None
    ipFamilies: list[str] | None = None
    ports: list[ServicePortSpec] | None = None
    externalIPs: list[str] | None = None
    sessionAffinity: str | None = None
    sessionAffinityConfig: SessionAffinityConfig | None = None
    internalTrafficPolicy: str | None = None
    externalTrafficPolicy: str | None = None
    healthCheckNodePort: int | None = None
    loadBalancerSourceRanges: list[str] | None = None
    publishNotReadyAddresses: bool | None = None


class Ingress(msgspec.Struct, frozen=True, gc=False):
    ip: str | None = None
    ipMode: str | None = None


class LoadBalancerStatus(msgspec.Struct, frozen=True, gc=False):
    ingress: list[Ingress] | None = None


class ServiceStatus(msgspec.Struct, frozen=True, gc=False):
    loadBalancer: LoadBalancerStatus | None = None


class Service(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus | None = None


class Conditions(msgspec.Struct, frozen=True, gc=False):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class NamedHint(msgspec.Struct, frozen=True, gc=False):
    name: str = ""


class Hints(msgspec.Struct, frozen=True, gc=False):
    forZones: list[NamedHint] | None = None
    forNodes: list[NamedHint] | None = None


class TargetRef(msgspec.Struct, frozen=True, gc=False):
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    addresses: list[str] | None = None
    conditions: Conditions | None = None
    nodeName: str | None = None
    zone: str | None = None
    hints: Hints | None = None
    targetRef: TargetRef | None = None


class EndpointPort(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class EndpointSlice(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    addressType: str = ""
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None


class NodeAddress(msgspec.Struct, frozen=True, gc=False):
    type: str = ""
    address: str = ""


class NodeStatus(msgspec.Struct, frozen=True, gc=False):
    addresses: list[NodeAddress] | None = None


class Taint(msgspec.Struct, frozen=True, gc=False):
    key: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct, frozen=True, gc=False):
    podCIDRs: list[str] | None = None
    taints: list[Taint] | None = None


class Node(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class ServiceCIDRSpec(msgspec.Struct, frozen=True, gc=False):
    cidrs: list[str] | None = None


class ServiceCIDR(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    spec: ServiceCIDRSpec = ServiceCIDRSpec()


class PodSpec(msgspec.Struct, frozen=True, gc=False):
    nodeName: str | None = None
    hostNetwork: bool | None = None


class PodIP(msgspec.Struct, frozen=True, gc=False):
    ip: str = ""


class PodStatus(msgspec.Struct, frozen=True, gc=False):
    phase: str = ""
    podIP: str | None = None
    podIPs: list[PodIP] | None = None


class Pod(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata
    spec: PodSpec | None = None
    status: PodStatus | None = None


class Namespace(msgspec.Struct, frozen=True, gc=False):
    metadata: Metadata


KubeObject = Service | EndpointSlice | Node | ServiceCIDR | Pod | Namespace

Kind = Literal["Service", "EndpointSlice", "Node", "ServiceCIDR", "Pod", "Namespace"]

STRUCT_OF: dict[
    str,
    type[Service] | type[EndpointSlice] | type[Node] | type[ServiceCIDR] | type[Pod] | type[Namespace],
] = {
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Node": Node,
    "ServiceCIDR": ServiceCIDR,
    "Pod": Pod,
    "Namespace": Namespace,
}

SERVICE_KINDS: frozenset[Kind] = frozenset({"Service", "EndpointSlice", "Node", "ServiceCIDR"})
"""What tells which Services there are; always followed."""

WORKLOAD_KINDS: frozenset[Kind] = frozenset({"Pod", "Namespace"})
"""What tells whose connections are left alone; followed for `--opt-out=on` alone."""

CLUSTER_SCOPED = frozenset({"Node", "ServiceCIDR", "Namespace"})

LABEL_SERVICE_NAME = "kubernetes.io/service-name"
LABEL_SERVICE_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
LABEL_HEADLESS = "service.kubernetes.io/headless"
LABEL_ZONE = "topology.kubernetes.io/zone"
ANNOTATION_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
ANNOTATION_NODE_LOCAL = "kubesock.io/node-local-address"
"""Of a Service: addresses by which every node serves it itself, such as NodeLocal DNSCache's."""

TAINT_TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"

TRANSLATE = "kubesock.io/translate"
"""Annotation or label of a Pod or a Namespace: "false" leaves its connections alone."""

ANNOTATION_MIRROR = "kubernetes.io/config.mirror"
"""Of a static pod's mirror: the UID by which kubelet, its cgroups and the runtime know the pod."""
