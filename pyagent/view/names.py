"""What ids stand for: the `names` map, all entries at once."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from pyagent.datapath.decoded import decode_name
from pyagent.datapath.layout import NAME, NAME_KEY, NameKind, NodeId
from pyagent.model.address import Family, Protocol
from pyagent.model.service import PolicyBit, ServiceType, View

_KEY = struct.Struct("=II")
_VALUE = struct.Struct("=IBBBB320s")

PROTOCOLS = {int(protocol): protocol.name for protocol in Protocol}
FAMILIES = {int(family): family.label for family in Family}
TYPES = {int(kind): kind.label for kind in ServiceType}
_POLICIES = {
    PolicyBit.INTERNAL_LOCAL: "InternalLocal",
    PolicyBit.EXTERNAL_LOCAL: "ExternalLocal",
    PolicyBit.SOURCE_RANGES: "SourceRanges",
}


class PortName(NamedTuple):
    """A service port by its id. `protocol`, `family` and `type` as Kubernetes writes them."""

    identifier: int
    incarnation: int
    namespace: str
    name: str
    port: str
    protocol: str
    family: str
    type: str
    policy: int

    @property
    def service(self) -> str:
        """`namespace/name:port/PROTOCOL`, as a `ServicePortKey` is written."""
        port = f":{self.port}" if self.port else ""
        return f"{self.namespace}/{self.name}{port}/{self.protocol}"


def service_port_names(names: Mapping[bytes, bytes]) -> list[PortName]:
    """Every service port that has a readable name.

    As `decode_name` for all at once, which is what a list of 10,000 Services has the time for.
    """
    whole = [(k, v) for k, v in names.items() if len(k) == NAME_KEY.size and len(v) == NAME.size]
    keys = _KEY.iter_unpack(b"".join([k for k, _ in whole]))
    values = _VALUE.iter_unpack(b"".join([v for _, v in whole]))
    found = []
    service_port = int(NameKind.SERVICE_PORT)
    for (kind, identifier), (incarnation, family, protocol, service_type, policy, data) in zip(
        keys, values, strict=True
    ):
        if kind != service_port or protocol not in PROTOCOLS or family not in FAMILIES:
            continue
        end = data.find(b"\0")
        try:
            text = (data if end < 0 else data[:end]).decode()
        except UnicodeDecodeError:
            continue
        namespace, slash, rest = text.partition("/")
        if not slash:
            continue
        name, _, port = rest.partition(":")
        found.append(
            PortName(
                identifier,
                incarnation,
                namespace,
                name,
                port,
                PROTOCOLS[protocol],
                FAMILIES[family],
                TYPES.get(service_type, str(service_type)),
                policy,
            )
        )
    return found


def node_names(names: Mapping[bytes, bytes]) -> dict[int, tuple[str, str]]:
    """Node id -> (name, zone). The node itself is 0."""
    found = {}
    prefix = _KEY.pack(NameKind.NODE, 0)[:4]
    for key, value in names.items():
        if key[:4] == prefix and (name := decode_name(key, value)) is not None:
            found[name.identifier] = (name.node, name.zone)
    return found


def node_label(node_id: int, nodes: Mapping[int, tuple[str, str]]) -> str:
    """Whose nodePort it is, as frontends are written."""
    if node_id == NodeId.OWN:
        return "node"
    if node_id == NodeId.ANY_OTHER:
        return "*"
    return nodes[node_id][0] if node_id in nodes else f"node-{node_id}"


def is_service(wanted: str, namespace: str, name: str, port: str, protocol: str) -> bool:
    """Whether `wanted`, [NAMESPACE/]NAME[:PORT][/PROTOCOL], means this service port."""
    parts = wanted.split("/")
    if len(parts) > 1 and parts[-1].upper() == protocol:
        parts.pop()
    if len(parts) > 2 or (len(parts) == 2 and parts[0] != namespace):
        return False
    wanted_name, _, wanted_port = parts[-1].partition(":")
    return wanted_name == name and wanted_port in ("", port)


def view_text(live_view: int, node_id: int, nodes: Mapping[int, tuple[str, str]]) -> str:
    """Which endpoints a set holds: `Cluster`, `Local`, `Node-local`, or those of another node."""
    if live_view == View.NODE:
        return f"Local on {nodes[node_id][0] if node_id in nodes else f'node-{node_id}'}"
    return _VIEWS.get(live_view, str(live_view))


_VIEWS: dict[int, str] = {
    View.CLUSTER: "Cluster",
    View.LOCAL: "Local",
    View.RESTRICTED: "Cluster, source ranges",
    View.RESTRICTED_LOCAL: "Local, source ranges",
    View.NODE_LOCAL: "Node-local",
}


def policy_text(policy: int) -> str:
    """`Cluster`, or what differs from it."""
    return ",".join(text for bit, text in _POLICIES.items() if policy & bit) or "Cluster"
