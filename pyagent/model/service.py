"""What this node should serve: service ports, their sets and frontends. Values only."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

import msgspec

from pyagent.model.address import Family, Network, Protocol, format_endpoint
from pyagent.model.outcome import Outcome
from pyagent.model.source_events import Problem


class ServicePortKey(NamedTuple):
    """One `spec.ports[]` entry of one Service for one address family."""

    namespace: str
    name: str
    port_name: str
    protocol: Protocol
    family: Family

    def __str__(self) -> str:
        port = f":{self.port_name}" if self.port_name else ""
        return f"{self.namespace}/{self.name}{port}/{self.protocol.name}"


class ServiceType(IntEnum):
    CLUSTER_IP = 0
    NODE_PORT = 1
    LOAD_BALANCER = 2

    @property
    def label(self) -> str:
        return ("ClusterIP", "NodePort", "LoadBalancer")[self.value]


class View(IntEnum):
    """Which endpoints of a service port a set holds (as kube-proxy's `CategorizeEndpoints` sorts them)."""

    CLUSTER = 0  # C: ready endpoints passing the topology hints, else serving and terminating ones
    LOCAL = 1  # L: the same among this node's endpoints, hints ignored
    NODE = 2  # L of another node, for its nodePort under externalTrafficPolicy Local
    NODE_LOCAL = 3  # one of this node's addresses, which the Service's annotation names
    RESTRICTED = 4  # C again, for frontends whose clients are held against source ranges
    RESTRICTED_LOCAL = 5  # L again, likewise


class SetKey(NamedTuple):
    view: View
    node: str = ""  # only for View.NODE


CLUSTER_SET = SetKey(View.CLUSTER)
LOCAL_SET = SetKey(View.LOCAL)
RESTRICTED_SET = SetKey(View.RESTRICTED)
RESTRICTED_LOCAL_SET = SetKey(View.RESTRICTED_LOCAL)
NODE_LOCAL_SET = SetKey(View.NODE_LOCAL)


class BackendStateBit(IntFlag):
    READY = 1
    SERVING = 2
    TERMINATING = 4
    LOCAL = 8
    ON_NODE_ADDRESS = 16  # the node's own address: reachable from a socket bound to loopback


class PolicyBit(IntFlag):
    INTERNAL_LOCAL = 1
    EXTERNAL_LOCAL = 2
    SOURCE_RANGES = 4


class Backend(msgspec.Struct, frozen=True, gc=False):
    """One `ip:port` behind a service port. Identity is (address, port); the rest may change in place."""

    address: bytes  # 16 bytes
    port: int
    state: int = 0  # BackendStateBit
    node: str = ""
    zone: str = ""
    target: str = ""  # namespace/name of the pod, if the slice tells


MAX_SET_BACKENDS = 0xFFFF
"""A set's word counts its backends in 16 bits."""


class BackendSet(msgspec.Struct, frozen=True, gc=False):
    key: SetKey
    backends: tuple[Backend, ...]
    when_empty: Outcome = Outcome.REFUSED_NO_ENDPOINTS


class FrontendKind(IntEnum):
    CLUSTER_IP = 0
    EXTERNAL_IP = 1
    LOAD_BALANCER_IP = 2
    NODE_PORT = 3

    @property
    def label(self) -> str:
        return ("clusterIP", "externalIP", "loadBalancerIP", "nodePort")[self.value]


ANY_OTHER_NODE = "*"

OUTSIDE = "outside:"
"""No node's name: this node, for packets from outside the cluster where they get another set."""


class Frontend(NamedTuple):
    """An address that a client can dial.

    For nodePorts `address` is empty and `node` says whose: "" this node, a name, or ANY_OTHER_NODE.
    OUTSIDE takes the place of "", for addresses too.
    Hashable; equal frontends are the same key in the kernel's map except for `kind`, so compare `dialled`.
    """

    kind: FrontendKind
    family: Family
    protocol: Protocol
    port: int
    address: bytes = b""
    node: str = ""

    @property
    def dialled(self) -> tuple[Family, Protocol, int, bytes, str]:
        """What makes two frontends collide."""
        return self[1:]

    def __str__(self) -> str:
        outside = " from outside" if self.node == OUTSIDE else ""
        if self.kind is FrontendKind.NODE_PORT:
            node = "node" if self.node in ("", OUTSIDE) else self.node
            return f"{node}:{self.port}/{self.protocol.name}{outside}"
        return f"{format_endpoint(self.address, self.port)}/{self.protocol.name}{outside}"


class ServicePort(msgspec.Struct, frozen=True, gc=False):
    """Everything the kernel must know about one service port."""

    key: ServicePortKey
    service_type: ServiceType
    sets: tuple[BackendSet, ...]
    frontends: tuple[tuple[Frontend, SetKey], ...]  # as claimed; conflicts are not yet resolved
    affinity_seconds: int = 0  # 0: none
    policy: int = 0  # PolicyBit
    source_ranges: tuple[Network, ...] = ()  # who may dial its load-balancer IPs; empty: everybody


class ServiceView(msgspec.Struct, frozen=True, gc=False):
    """One Service as this node should serve it."""

    namespace: str
    name: str
    created: str  # RFC 3339, "" counts as youngest
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[bytes, ...]
    other_proxy: bool = False  # service-proxy-name: its ClusterIPs are passed, it has no ports here
    problems: tuple[Problem, ...] = ()
    health_check_port: int = 0  # healthCheckNodePort of a load balancer with externalTrafficPolicy Local
    local_ready: int = 0  # distinct ready endpoint addresses on this node, only with a health_check_port
    sctp_ports: int = 0  # valid, but there is no socket hook for SCTP


class AddressRule(IntEnum):
    """What happens to a dial of a service address that is no frontend."""

    REFUSE_UNDEFINED_PORT = 1
    REFUSE_UNALLOCATED = 2
    PASS = 3


class DesiredChange(msgspec.Struct):
    """What changed in the desired state. None means: gone. Holds final values, conflicts resolved."""

    service_ports: dict[ServicePortKey, ServicePort | None]
    frontends: dict[tuple[Family, Protocol, int, bytes, str], tuple[ServicePortKey, SetKey] | None]
    service_addresses: dict[Network, AddressRule | None]
    node_addresses: dict[bytes, str | None]  # address -> node name, "" for this node
    nodes: dict[str, str]  # node name -> zone, for the names map; covers every node its backends name
    new_problems: tuple[Problem, ...] = ()
    cleared_problems: tuple[Problem, ...] = ()
    services: set[tuple[str, str]] = msgspec.field(default_factory=set)  # (namespace, name) computed again
