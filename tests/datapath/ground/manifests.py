"""A manifests directory, and the shortest objects that are still valid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Object = dict[str, Any]
Port = tuple[str, int, str]  # name, port, protocol


class Manifests:
    """Files that appear whole, by rename, as a careful operator would put them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, objects: Iterable[Object]) -> Path:
        """Replace (or make) `NAME.json`, a List of objects."""
        path = self.folder / f"{name}.json"
        hidden = self.folder / f".{name}.json"
        hidden.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        hidden.rename(path)
        return path

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.json").unlink()


def service(name: str, cluster_ips: Sequence[str], ports: Sequence[Port], **spec: Any) -> Object:
    """A Service in namespace `default`; `spec` adds or replaces fields of `.spec`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ips[0] if cluster_ips else "None",
            "clusterIPs": list(cluster_ips) or ["None"],
            "ipFamilies": ["IPv6" if ":" in address else "IPv4" for address in cluster_ips],
            "ports": [
                {"name": port_name, "port": port, "protocol": protocol} for port_name, port, protocol in ports
            ],
            **spec,
        },
    }


def endpoint_slice(
    service_name: str,
    addresses: Sequence[str],
    ports: Sequence[Port],
    suffix: str = "",
    conditions: Object | None = None,
    node_name: str = "n",
) -> Object:
    """A slice of a Service in `default`, one ready endpoint for each address (all of one family)."""
    is_ipv6 = any(":" in address for address in addresses)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service_name}-{suffix or ('v6' if is_ipv6 else 'v4')}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv6" if is_ipv6 else "IPv4",
        "endpoints": [
            {
                "addresses": [address],
                "conditions": conditions or {"ready": True, "serving": True, "terminating": False},
                "nodeName": node_name,
            }
            for address in addresses
        ],
        "ports": [
            {"name": port_name, "port": port, "protocol": protocol} for port_name, port, protocol in ports
        ],
    }


def node(name: str, addresses: Sequence[str], labels: dict[str, str] | None = None) -> Object:
    """A Node with internal addresses."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
    }


def service_cidr(*cidrs: str, name: str = "kubernetes") -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": name},
        "spec": {"cidrs": list(cidrs)},
    }
