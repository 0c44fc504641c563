"""Objects as the API server sends them, in one line each, and a node that looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.address import Protocol, family_of, format_endpoint, parse_address
from pyagent.model.kube_objects import (
    STRUCT_OF,
    Endpoint,
    EndpointSlice,
    Kind,
    KubeObject,
    Node,
    Service,
    ServiceCIDR,
)
from pyagent.model.outcome import Outcome
from pyagent.model.service import ANY_OTHER_NODE, AddressRule, DesiredChange, ServicePort, ServicePortKey
from pyagent.model.source_events import Problem

NODE = "node-a"
ZONE = "zone-a"
NODE_IP = "192.168.0.1"
OTHER_IP = "192.168.0.2"

K = TypeVar("K")
V = TypeVar("V")

Answer = list[str] | Outcome | str
"""Backends as text, or the outcome, or "passed"."""


def service(
    name: str = "web",
    cluster_ip: str | None = "10.96.0.10",
    *,
    namespace: str = "shop",
    ports: Iterable[dict[str, Any]] = ({"name": "http", "port": 80},),
    labels: dict[str, str] | None = None,
    created: str | None = None,
    ingress: Iterable[str | dict[str, Any]] = (),
    **spec: Any,
) -> Service:
    listed = [{"ip": entry} if isinstance(entry, str) else entry for entry in ingress]
    body = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "creationTimestamp": created,
        },
        "spec": {"clusterIP": cluster_ip, "ports": list(ports), **spec},
        "status": {"loadBalancer": {"ingress": listed}},
    }
    return msgspec.convert(body, Service)


def endpoint(
    address: str,
    ready: bool | None = None,
    serving: bool | None = None,
    terminating: bool | None = None,
    *,
    node: str | None = None,
    zones: Iterable[str] | None = None,
    nodes: Iterable[str] | None = None,
    **fields: Any,
) -> Endpoint:
    hints = None
    if zones is not None or nodes is not None:
        hints = {
            "forZones": [{"name": zone} for zone in zones or ()],
            "forNodes": [{"name": name} for name in nodes or ()],
        }
    body = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": node,
        "hints": hints,
        **fields,
    }
    return msgspec.convert(body, Endpoint)


def ready(address: str, **fields: Any) -> Endpoint:
    return endpoint(address, True, True, False, **fields)


def unready(address: str, **fields: Any) -> Endpoint:
    return endpoint(address, False, False, False, **fields)


def terminating(address: str, **fields: Any) -> Endpoint:
    """On its way out, and still serving."""
    return endpoint(address, False, True, True, **fields)


def dead(address: str, **fields: Any) -> Endpoint:
    return endpoint(address, False, False, True, **fields)


def endpoint_slice(
    *endpoints: Endpoint,
    name: str = "web-1",
    service: str | None = "web",
    namespace: str = "shop",
    ports: Iterable[dict[str, Any]] = ({"name": "http", "port": 8080, "protocol": "TCP"},),
    kind: str = "IPv4",
    labels: dict[str, str] | None = None,
    **metadata: Any,
) -> EndpointSlice:
    marked = dict(labels or {})
    if service is not None:
        marked["kubernetes.io/service-name"] = service
    body = {
        "metadata": {"name": name, "namespace": namespace, "labels": marked, **metadata},
        "addressType": kind,
        "ports": list(ports),
    }
    return msgspec.structs.replace(msgspec.convert(body, EndpointSlice), endpoints=list(endpoints))


def node(name: str = NODE, *addresses: str, zone: str | None = ZONE, **metadata: Any) -> Node:
    labels = {} if zone is None else {"topology.kubernetes.io/zone": zone}
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    body = {"metadata": {"name": name, "labels": labels, **metadata}, "status": {"addresses": listed}}
    return msgspec.convert(body, Node)


def service_cidr(name: str, *cidrs: str) -> ServiceCIDR:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"cidrs": list(cidrs)}}, ServiceCIDR)


def settings(**changes: Any) -> Settings:
    known: dict[str, Any] = {
        "node_name": NODE,
        "zone": ZONE,
        "interface_addresses": frozenset(map(parse_address, (NODE_IP, "127.0.0.1", "::1"))),
    }
    return Settings(**known | changes)


class Cluster:
    """A snapshot and a desired state, seen only through the changes that updates return."""

    def __init__(self, *objects: KubeObject, **changes: Any) -> None:
        self.settings = settings(**changes)
        self.snapshot = Snapshot(self.settings.node_name)
        self.state = DesiredState(self.settings)
        self.ports: dict[ServicePortKey, ServicePort] = {}
        self.frontends: dict[Any, Any] = {}
        self.service_addresses: dict[Any, AddressRule] = {}
        self.node_addresses: dict[bytes, str] = {}
        self.problems: set[Problem] = set()
        self.put(*objects)

    def put(self, *objects: KubeObject) -> DesiredChange:
        for obj in objects:
            self.snapshot.put(kind_of(obj), obj)
        return self.update()

    def delete(self, obj: KubeObject) -> DesiredChange:
        self.snapshot.delete(kind_of(obj), obj.metadata.namespace, obj.metadata.name)
        return self.update()

    def configure(self, **changes: Any) -> DesiredChange:
        self.settings = msgspec.structs.replace(self.settings, **changes)
        self.state.configure(self.settings)
        return self.update()

    def update(self) -> DesiredChange:
        change = self.state.update(self.snapshot, self.snapshot.take_dirty())
        self.follow(change)
        return change

    def follow(self, change: DesiredChange) -> None:
        _follow(self.ports, change.service_ports)
        _follow(self.frontends, change.frontends)
        _follow(self.service_addresses, change.service_addresses)
        _follow(self.node_addresses, change.node_addresses)
        self.problems |= set(change.new_problems)
        self.problems -= set(change.cleared_problems)

    def dial(self, address: str, port: int = 80, protocol: Protocol = Protocol.TCP) -> Answer:
        """Where a client on this node ends up, looked up as the hooks do it."""
        packed = parse_address(address)
        family = family_of(packed)
        candidates = [(family, protocol, port, packed, "")]
        if packed in self.node_addresses:
            owner = self.node_addresses[packed]
            candidates.append((family, protocol, port, b"", owner))
            if owner:
                candidates.append((family, protocol, port, b"", ANY_OTHER_NODE))
        for dialled in candidates:
            if dialled in self.frontends:
                key, set_key = self.frontends[dialled]
                (chosen,) = [s for s in self.ports[key].sets if s.key == set_key]
                listed = [format_endpoint(b.address, b.port) for b in chosen.backends]
                return listed or chosen.when_empty
        covering = [network for network in self.service_addresses if packed in network]
        if not covering:
            return "passed"
        rule = self.service_addresses[max(covering, key=lambda network: network.prefix)]
        return {
            AddressRule.PASS: Outcome.PASSED_OTHER_PROXY,
            AddressRule.REFUSE_UNDEFINED_PORT: Outcome.REFUSED_UNDEFINED_PORT,
            AddressRule.REFUSE_UNALLOCATED: Outcome.REFUSED_UNALLOCATED_ADDRESS,
        }[rule]

    def told(self) -> set[str]:
        """The problems as people read them."""
        return {str(problem) for problem in self.problems}

    def told_of(self, field: str) -> str:
        """The one problem of a field."""
        (reason,) = [problem.reason for problem in self.problems if problem.field == field]
        return reason


def _follow(held: dict[K, V], fresh: Mapping[K, V | None]) -> None:
    for key, value in fresh.items():
        if value is None:
            del held[key]  # what goes was there
        else:
            held[key] = value


def kind_of(obj: KubeObject) -> Kind:
    (kind,) = [kind for kind, struct in STRUCT_OF.items() if isinstance(obj, struct)]
    return kind  # type: ignore[return-value]
