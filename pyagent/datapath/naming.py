"""Ids of nodes, and the entries of `names`."""

from __future__ import annotations

from pyagent.datapath.draft import Draft
from pyagent.datapath.encoded import name_key, node_name
from pyagent.datapath.held import HeldState
from pyagent.datapath.identifiers import next_incarnation
from pyagent.datapath.layout import NameKind, NodeId
from pyagent.datapath.places import Full
from pyagent.model.service import ANY_OTHER_NODE


def node_identifier(held: HeldState, draft: Draft, name: str, zone: str = "") -> int:
    """The id of a node, a new one for a new name.

    Raises:
        Full: no id or no name is left.
    """
    known = held.nodes.get(name)
    if known is not None:
        return known
    if not name:
        return NodeId.OWN
    if name == ANY_OTHER_NODE:
        return NodeId.ANY_OTHER
    incarnation = next_incarnation(held.incarnation)
    value = node_name(name, zone, incarnation)
    identifiers = held.node_ids.take(1) if value is not None else None
    if value is None or identifiers is None:
        raise Full("names")
    try:
        put_name(held, draft, name_key(NameKind.NODE, identifiers[0]), value)
    except Full:
        held.node_ids.put_back(identifiers)
        raise
    held.incarnation = incarnation
    held.nodes[name] = identifiers[0]
    return identifiers[0]


def put_name(held: HeldState, draft: Draft, key: bytes, value: bytes) -> None:
    """Give an id a name.

    Raises:
        Full: the map of names has no room.
    """
    if held.names.get(key) == value:
        return
    if not has_room(held, key):
        raise Full("names")
    held.names[key] = draft.names[key] = value


def has_room(held: HeldState, key: bytes) -> bool:
    """Whether an entry with this key could be put."""
    return len(held.names) < held.capacities.service_ports * 2 or key in held.names
