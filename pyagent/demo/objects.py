"""The demo's Kubernetes objects: which pods they promise, and how they change while you watch.

`manifests/*.yaml` hold what `kubectl get services,endpointslices -o yaml` prints of each namespace, and the
Nodes and the ServiceCIDR. They are the only description of the cluster: pods are made from them.
"""

from __future__ import annotations

import copy
import secrets
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Object = dict[str, Any]

NODE_NAME = "demo-node-1"
SERVICE_LABEL = "kubernetes.io/service-name"
NODE_POD = "node"
"""Endpoints without a pod behind them are the node's own: here the API server's."""

READY = {"ready": True, "serving": True, "terminating": False}
TERMINATING = {"ready": False, "serving": True, "terminating": True}


class Target(NamedTuple):
    """One thing a client dials: a port of a Service at one of its addresses."""

    namespace: str
    service: str
    port_name: str
    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port_name}"

    @property
    def dialled(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class PodPlan(NamedTuple):
    """A pod as the EndpointSlices tell of it."""

    name: str
    node: str
    addresses: tuple[str, ...]
    ports: tuple[tuple[int, str], ...]  # port, protocol


class Objects:
    """The objects by file, each file one `kind: List`."""

    def __init__(self, files: dict[str, Object], folder: Path) -> None:
        self.files = files
        self.folder = folder

    @classmethod
    def packaged(cls, folder: Path) -> Objects:
        """The objects that come with kubesock, to be written into a manifests directory."""
        source = resources.files("pyagent.demo") / "manifests"
        files = {
            entry.name: yaml.load(entry.read_text(), Loader=_Loader)
            for entry in sorted(source.iterdir(), key=lambda entry: entry.name)
            if entry.name.endswith(".yaml")
        }
        return cls(files, folder)

    def write(self, *names: str) -> None:
        """Put files into the directory (default: all), each whole, by rename."""
        for name in names or self.files:
            hidden = self.folder / f".{name}"
            text: str = yaml.dump(self.files[name], Dumper=_Dumper, default_flow_style=False, width=1000)
            hidden.write_text(text)
            hidden.rename(self.folder / name)

    def of_kind(self, kind: str) -> Iterator[Object]:
        for document in self.files.values():
            yield from (item for item in document["items"] if item["kind"] == kind)

    def targets(self) -> list[Target]:
        """Every port of every Service at every of its addresses."""
        return [
            Target(
                service["metadata"]["namespace"],
                service["metadata"]["name"],
                port["name"],
                port["protocol"],
                address,
                port["port"],
            )
            for service in self.of_kind("Service")
            for port in service["spec"]["ports"]
            for address in service["spec"]["clusterIPs"]
        ]

    def pods(self) -> dict[str, PodPlan]:
        """Every pod that an endpoint names, with all its addresses and ports, by name."""
        found: dict[str, PodPlan] = {}
        for piece in self.of_kind("EndpointSlice"):
            ports = tuple((port["port"], port["protocol"]) for port in piece["ports"] or ())
            for endpoint in piece["endpoints"] or ():
                name = _pod_of(endpoint)
                known = found.get(name, PodPlan(name, endpoint.get("nodeName", NODE_NAME), (), ()))
                found[name] = known._replace(
                    addresses=(*known.addresses, *endpoint["addresses"]),
                    ports=tuple(dict.fromkeys((*known.ports, *ports))),
                )
        return found

    def backends(self, target: Target) -> dict[str, str]:
        """Pod name → `ADDRESS:PORT` of who may answer now: ready ones, else terminating ones that serve."""
        ready, serving = {}, {}
        for piece in self.slices(target.namespace, target.service):
            if (":" in target.address) != (piece["addressType"] == "IPv6"):
                continue
            for port in piece["ports"] or ():
                if (port["name"], port["protocol"]) != (target.port_name, target.protocol):
                    continue
                for endpoint in piece["endpoints"] or ():
                    where = target._replace(address=endpoint["addresses"][0], port=port["port"]).dialled
                    conditions = {**READY, **endpoint["conditions"]}
                    if conditions["ready"]:
                        ready[_pod_of(endpoint)] = where
                    elif conditions["serving"] and conditions["terminating"]:
                        serving[_pod_of(endpoint)] = where
        return ready or serving

    def slices(self, namespace: str, service: str) -> list[Object]:
        return [
            piece
            for piece in self.of_kind("EndpointSlice")
            if piece["metadata"]["namespace"] == namespace
            and piece["metadata"]["labels"][SERVICE_LABEL] == service
        ]

    def add_pods(self, target: Target, count: int) -> list[str]:
        """Promise more pods of a Service, beside its first one. Returns their names; nothing is written."""
        taken = {address for pod in self.pods().values() for address in pod.addresses}
        first = _pod_of(self.slices(target.namespace, target.service)[0]["endpoints"][0])
        names = [f"{first.rpartition('-')[0]}-{secrets.token_hex(3)[:5]}" for _ in range(count)]
        for piece in self.slices(target.namespace, target.service):
            for name in names:
                endpoint = copy.deepcopy(piece["endpoints"][0])
                stem, separator, _ = endpoint["addresses"][0].rpartition(
                    ":" if piece["addressType"] == "IPv6" else "."
                )
                address = next(
                    text for number in range(50, 250) if (text := f"{stem}{separator}{number}") not in taken
                )
                taken.add(address)
                endpoint["addresses"] = [address]
                endpoint["targetRef"].update(name=name, uid=str(uuid.uuid4()))
                piece["endpoints"].append(endpoint)
            _touch(piece)
        return names

    def mark_terminating(self, target: Target, pods: set[str]) -> None:
        for piece in self.slices(target.namespace, target.service):
            for endpoint in piece["endpoints"]:
                if _pod_of(endpoint) in pods:
                    endpoint["conditions"] = dict(TERMINATING)
            _touch(piece)

    def remove_pods(self, target: Target, pods: set[str]) -> None:
        """Drop endpoints. With none left the slice is the placeholder that the controller keeps: all null."""
        for piece in self.slices(target.namespace, target.service):
            piece["endpoints"] = [one for one in piece["endpoints"] if _pod_of(one) not in pods] or None
            if piece["endpoints"] is None:
                piece["ports"] = None
            _touch(piece)

    def put_back(self, target: Target, saved: list[Object]) -> None:
        """Give a Service the endpoints and ports that its slices had in a copy made before."""
        for piece, before in zip(self.slices(target.namespace, target.service), saved, strict=True):
            piece["endpoints"], piece["ports"] = before["endpoints"], before["ports"]
            _touch(piece)

    def file_of(self, target: Target) -> str:
        """The file that holds a Service and its slices."""
        wanted = self.slices(target.namespace, target.service)[0]
        return next(
            name for name, document in self.files.items() if any(item is wanted for item in document["items"])
        )


def _pod_of(endpoint: Object) -> str:
    return str(endpoint["targetRef"]["name"]) if "targetRef" in endpoint else NODE_POD


def _touch(piece: Object) -> None:
    metadata = piece["metadata"]
    metadata["generation"] += 1
    metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    metadata["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"] = now


class _Loader(yaml.SafeLoader):
    """Leaves timestamps as the strings that they are in the API."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Writes what kubectl writes: no anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True
