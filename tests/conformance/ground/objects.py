"""The Kubernetes objects of scenarios, as short as they can be said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Object = dict[str, Any]

NAMESPACE = "conf"


class Dualstack(Protocol):
    """Whatever has an address of each family."""

    @property
    def ipv4(self) -> str: ...

    @property
    def ipv6(self) -> str: ...


class Address(NamedTuple):
    ipv4: str
    ipv6: str


class Pod(NamedTuple):
    """A pod, or a node itself: its network namespace, where it runs, its addresses."""

    name: str
    netns: Path
    node: str
    ipv4: str
    ipv6: str


class Endpoint(NamedTuple):
    """A pod as EndpointSlices tell of it. `node` is "" for an endpoint without nodeName."""

    pod: Dualstack
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: tuple[str, ...] = ()  # hints
    nodes: tuple[str, ...] = ()  # hints

    def as_object(self, address: str) -> Object:
        conditions = {"ready": self.ready, "serving": self.serving, "terminating": self.terminating}
        made: Object = {"addresses": [address], "conditions": conditions}
        if self.node:
            made["nodeName"] = self.node
        if self.zones or self.nodes:
            made["hints"] = {
                "forZones": [{"name": zone} for zone in self.zones],
                "forNodes": [{"name": node} for node in self.nodes],
            }
        return made


def ready(pod: Pod, zones: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> Endpoint:
    return Endpoint(pod, pod.node, zones=zones, nodes=nodes)


def unready(pod: Pod) -> Endpoint:
    return Endpoint(pod, pod.node, ready=False, serving=False)


def terminating(pod: Pod, serving: bool = True) -> Endpoint:
    """On its way out; `serving` as long as its readiness probe succeeds."""
    return Endpoint(pod, pod.node, ready=False, serving=serving, terminating=True)


class Port(NamedTuple):
    """A port of a Service. In a slice, `number` is the target's."""

    name: str
    number: int
    protocol: str
    node_port: int = 0


def both(number: int, node_port: int = 0, name: str = "") -> tuple[Port, Port]:
    """One number over TCP and UDP, as ports `tcp` and `udp`."""
    return Port(f"{name}tcp", number, "TCP", node_port), Port(f"{name}udp", number, "UDP", node_port)


def service(name: str, address: Dualstack, ports: Sequence[Port] = both(80), **spec: Any) -> Object:
    """A dual-stack Service; `spec` adds or replaces fields of `.spec`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort" if any(port.node_port for port in ports) else "ClusterIP",
            "clusterIP": address.ipv4,
            "clusterIPs": [address.ipv4, address.ipv6],
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [
                {
                    "name": port.name,
                    "port": port.number,
                    "protocol": port.protocol,
                    **({"nodePort": port.node_port} if port.node_port else {}),
                }
                for port in ports
            ],
            **spec,
        },
    }


def balanced(made: Object, *ingress: Object) -> Object:
    """The same Service as a LoadBalancer with these ingress entries in its status."""
    spec = {**made["spec"], "type": "LoadBalancer"}
    return {**made, "spec": spec, "status": {"loadBalancer": {"ingress": list(ingress)}}}


def labelled(made: Object, label: str, value: str = "") -> Object:
    """The same object with one more label."""
    metadata = made["metadata"]
    return {**made, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), label: value}}}


def slices(
    service_name: str, *endpoints: Pod | Endpoint, ports: Sequence[Port] = both(8080), suffix: str = "x"
) -> list[Object]:
    """An IPv4 and an IPv6 slice of a Service; a bare pod is a ready endpoint."""
    told = [ready(one) if isinstance(one, Pod) else one for one in endpoints]
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service_name}-{suffix}-{family.lower()}",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": service_name},
            },
            "addressType": family,
            "endpoints": [one.as_object(one.pod.ipv4 if family == "IPv4" else one.pod.ipv6) for one in told],
            "ports": [{"name": port.name, "port": port.number, "protocol": port.protocol} for port in ports],
        }
        for family in ("IPv4", "IPv6")
    ]
