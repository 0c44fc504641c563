"""Keys and values of the hash maps and tries, made from the model's values."""

from __future__ import annotations

import struct

from pyagent.datapath.flow_layout import OUTSIDE_SCOPE
from pyagent.datapath.layout import (
    FRONTEND_KEY,
    NAME,
    NAME_KEY,
    NAME_TEXT,
    SERVICE_ADDRESS_KEY,
    NameKind,
    NodeId,
    Scope,
)
from pyagent.model.address import PROBE_ADDRESSES, Network, Protocol
from pyagent.model.service import ServicePort

NODE_PORT_ADDRESS = struct.Struct("=II8x")
"""addr of a nodePort's frontend key: family, node id."""

RULE = struct.Struct("=I")
NODE = struct.Struct("=I")

PROBE_SET = 0
PROBE_PORT = 1


def address_frontend_key(address: bytes, port: int, protocol: int) -> bytes:
    """Key of an address (16 bytes) and port that a client can dial."""
    return FRONTEND_KEY.pack(address, port, protocol, Scope.ADDRESS)


def node_port_frontend_key(family: int, node_id: int, port: int, protocol: int) -> bytes:
    """Key of a nodePort on this node (NodeId.OWN), on a certain other one, or on NodeId.ANY_OTHER."""
    return FRONTEND_KEY.pack(NODE_PORT_ADDRESS.pack(family, node_id), port, protocol, Scope.NODE_PORT)


PROBE_FRONTENDS = tuple(
    address_frontend_key(address, PROBE_PORT, protocol)
    for address in PROBE_ADDRESSES
    for protocol in (Protocol.TCP, Protocol.UDP)
)
"""Keys of the reserved frontends that the self-probe dials; they answer `Outcome.PROBED`."""


def is_node_port(key: bytes) -> bool:
    return key[19] & ~OUTSIDE_SCOPE == Scope.NODE_PORT


def is_outside(key: bytes) -> bool:
    """Whether it is for packets from outside, where they get another set than sockets."""
    return bool(key[19] & OUTSIDE_SCOPE)


def outside_key(key: bytes) -> bytes:
    """The same frontend for packets from outside."""
    return key[:19] + bytes((key[19] | OUTSIDE_SCOPE,))


def inside_key(key: bytes) -> bytes:
    """The same frontend for sockets."""
    return key[:19] + bytes((key[19] & ~OUTSIDE_SCOPE,))


def port_of(key: bytes) -> int:
    return int.from_bytes(key[16:18], "big")


def node_port_node(key: bytes) -> int:
    """The node id in a nodePort's frontend key."""
    node_id: int = NODE_PORT_ADDRESS.unpack_from(key)[1]
    return node_id


def any_other_node(key: bytes) -> bytes:
    """The key that the kernel looks up when a certain other node has no entry of its own."""
    family: int = NODE_PORT_ADDRESS.unpack_from(key)[0]
    return NODE_PORT_ADDRESS.pack(family, NodeId.ANY_OTHER) + key[16:]


def service_address_key(network: Network) -> bytes:
    return SERVICE_ADDRESS_KEY.pack(network.prefix, network.address)


def name_key(kind: NameKind, identifier: int) -> bytes:
    return NAME_KEY.pack(kind, identifier)


NAME_HEADER = struct.Struct("=I4B")


def service_port_name(port: ServicePort, incarnation: int) -> bytes | None:
    """Value of `names` without its trailing zeros; None if the text would not fit or not read back."""
    key = port.key
    text = f"{key.namespace}/{key.name}" + (f":{key.port_name}" if key.port_name else "")
    data = text.encode("utf-8", "replace")
    if len(data) > NAME_TEXT or b"\0" in data:
        return None
    return NAME_HEADER.pack(incarnation, key.family, key.protocol, port.service_type, port.policy) + data


def node_name(name: str, zone: str, incarnation: int) -> bytes | None:
    """As `service_port_name`, for a node: name NUL zone. A zone that does not fit is left out."""
    data = name.encode("utf-8", "replace")
    if not data or len(data) >= NAME_TEXT or b"\0" in data:
        return None
    zone_data = zone.encode("utf-8", "replace")
    if zone_data and b"\0" not in zone_data and len(data) + 1 + len(zone_data) <= NAME_TEXT:
        data += b"\0" + zone_data
    return NAME_HEADER.pack(incarnation, 0, 0, 0, 0) + data


def padded_name(value: bytes) -> bytes:
    """What the kernel's map holds for a value of `service_port_name` or `node_name`."""
    return value.ljust(NAME.size, b"\0")
