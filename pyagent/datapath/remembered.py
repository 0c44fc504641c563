"""What an earlier agent's maps tell of Nodes and ServiceCIDRs, for as long as no list does."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import NamedTuple

from pyagent.datapath.decoded import decode_name
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import NodeId
from pyagent.desired.names import is_name
from pyagent.desired.nodes import NodeFacts
from pyagent.model.address import Network, family_of, is_loopback
from pyagent.model.service import AddressRule


class Remembered(NamedTuple):
    """Less than the objects said, but all that clients could have noticed of them."""

    nodes: tuple[NodeFacts, ...]
    service_ranges: tuple[Network, ...]


def remembered(held: HeldState, own_name: str) -> Remembered:
    """The Nodes and service ranges by which the maps were last filled.

    This node's addresses are known only where they answer on nodePorts. Several of one family are those of
    its interfaces, not of its Node: the interfaces tell them again, so the Node then has none here.

    Args:
        held: as restored.
        own_name: this node's.
    """
    addresses: dict[int, list[bytes]] = {}
    for address, node_id in sorted(held.node_addresses.items()):
        addresses.setdefault(node_id, []).append(address)
    zones = _zones(held)
    others = {name: node_id for name, node_id in held.nodes.items() if is_name(name) and name != own_name}
    found = [
        NodeFacts(name, zones.get(node_id, ""), tuple(addresses.get(node_id, ())))
        for name, node_id in others.items()
    ]
    if own_name in held.nodes:
        own = _one_of_each_family(addresses.get(NodeId.OWN, ()))
        found.append(NodeFacts(own_name, zones.get(held.nodes[own_name], ""), own))
    return Remembered(tuple(found), tuple(_ranges(held)))


def _zones(held: HeldState) -> dict[int, str]:
    names = (decode_name(key, value) for key, value in held.names.items())
    return {name.identifier: name.zone for name in names if name is not None and name.node}


def _one_of_each_family(addresses: Collection[bytes]) -> tuple[bytes, ...]:
    beyond_loopback = tuple(address for address in addresses if not is_loopback(address))
    families = {family_of(address) for address in beyond_loopback}
    return beyond_loopback if len(families) == len(beyond_loopback) else ()


def _ranges(held: HeldState) -> Iterator[Network]:
    for key, rule in held.service_addresses.items():
        if rule == AddressRule.REFUSE_UNALLOCATED:
            yield Network(key[4:20], int.from_bytes(key[:4], sys.byteorder))
