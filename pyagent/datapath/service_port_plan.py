"""From one desired service port to new backends, blocks and switched sets. All of it, or nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from pyagent.datapath.blocks import block_words
from pyagent.datapath.draft import Draft
from pyagent.datapath.encoded import name_key, node_name, service_port_name
from pyagent.datapath.held import HeldServicePort, HeldState, reach
from pyagent.datapath.identifiers import next_incarnation
from pyagent.datapath.layout import (
    BACKEND,
    BLOCK_HEADER_WORDS,
    NameKind,
    NodeId,
    header_word,
    loopback_word,
    pair_word,
    set_word,
    split_set_word,
)
from pyagent.datapath.membership import rearranged
from pyagent.datapath.writes import Store
from pyagent.model.address import is_loopback
from pyagent.model.service import (
    ANY_OTHER_NODE,
    MAX_SET_BACKENDS,
    Backend,
    BackendSet,
    BackendStateBit,
    ServicePort,
    SetKey,
)

_BACKEND = struct.Struct("=16s2sHIII")
"""As layout.BACKEND, with the port in network order already."""

_STATE_AND_NODE = struct.Struct("=H8xI")
_STATE_AT = BACKEND.offsets["state"]
_STATE_WORD_AT = BACKEND.offsets["port"]  # port and state share one aligned word
_ON_NODE_ADDRESS = int(BackendStateBit.ON_NODE_ADDRESS)
_NODE_AT = BACKEND.offsets["node"]


class Full(Exception):
    """No room in this map."""

    def __init__(self, map_name: str) -> None:
        self.map_name = map_name
        super().__init__(map_name)


class Joins(NamedTuple):
    """How frontends move in this plan, by held set id."""

    joined: set[int]
    left: set[int]


class _NextSet(NamedTuple):
    key: SetKey
    held_id: int | None
    header: tuple[int, int]  # the block's second and third word
    members: list[int]
    changed: bool
    replaced: bool  # gets a new id, because frontends join and leave at once


def node_identifier(held: HeldState, draft: Draft, name: str, zone: str = "") -> int:
    """The id of a node, a new one for a new name.

    Raises:
        Full: no id or no name is left.
    """
    if not name:
        return NodeId.OWN
    if name == ANY_OTHER_NODE:
        return NodeId.ANY_OTHER
    known = held.nodes.get(name)
    if known is not None:
        return known
    incarnation = next_incarnation(held.incarnation)
    value = node_name(name, zone, incarnation)
    identifiers = held.node_ids.take(1) if value is not None else None
    if value is None or identifiers is None:
        raise Full("names")
    identifier = identifiers[0]
    try:
        put_name(held, draft, name_key(NameKind.NODE, identifier), value)
    except Full:
        held.node_ids.put_back(identifiers)
        raise
    held.incarnation = incarnation
    held.nodes[name] = identifier
    return identifier


def put_name(held: HeldState, draft: Draft, key: bytes, value: bytes) -> None:
    """Give an id a name.

    Raises:
        Full: the map of names has no room.
    """
    if held.names.get(key) == value:
        return
    if key not in held.names and len(held.names) >= held.capacities.service_ports * 2:
        raise Full("names")
    held.names[key] = draft.names[key] = value


def plan_service_port(held: HeldState, draft: Draft, wanted: ServicePort, joins: Joins) -> dict[int, SetKey]:
    """Make one service port's sets what they should be.

    Returns:
        The sets that got a new id (by old id); frontends that stay on them must be put again.

    Raises:
        Full: there is no room; nothing of this service port has changed.
    """
    port = held.service_ports.get(wanted.key)
    known = held.identities(port) if port is not None else {}
    sets = {bset.key: bset for bset in wanted.sets}.values()
    members = [_identities(bset) for bset in sets]
    backends = members[0] if len(members) == 1 else {i: b for m in reversed(members) for i, b in m.items()}
    fresh = [identity for identity in backends if identity not in known]
    nodes = {b.node: node_identifier(held, draft, b.node) for b in backends.values()}
    headers = [_header(held, draft, wanted, bset) for bset in sets]

    undo = _Undo(held)
    try:
        identifier, incarnation = _identifier(held, undo, port)
        name = service_port_name(wanted, incarnation)
        if name is None or _no_name_left(held, identifier):
            raise Full("names")
        ids = undo.backends(len(fresh))
        identified = {**known, **dict(zip(fresh, ids, strict=True))}
        next_sets = [
            _next_set(held, port, bset.key, header, {identified[i]: b for i, b in m.items()}, joins)
            for bset, header, m in zip(sets, headers, members, strict=True)
        ]
        new_set_ids = undo.sets(sum(s.held_id is None or s.replaced for s in next_sets))
        firsts = undo.blocks([block_words(len(s.members)) for s in next_sets if s.changed])
    except Full:
        undo.everything()
        raise

    put_name(held, draft, name_key(NameKind.SERVICE_PORT, identifier), name)
    if port is None:
        port = HeldServicePort(wanted.key, identifier, incarnation)
        held.service_ports[wanted.key] = port
        held.service_port_keys[identifier] = wanted.key
        held.incarnation = max(held.incarnation, incarnation)
    _write_backends(held, draft, port, nodes, [backends[i] for i in fresh], fresh, ids)
    _rewrite_states(held, draft, nodes, [(known[i], b) for i, b in backends.items() if i in known])
    replaced = _write_sets(held, draft, port, next_sets, joins, new_set_ids, firsts)
    draft.freed_backends.extend(i for identity, i in known.items() if identity not in backends)
    return replaced


def remove_service_port(held: HeldState, draft: Draft, port: HeldServicePort) -> None:
    """Free everything of a service port. Its frontends are the caller's to remove."""
    draft.freed_backends.extend(held.identities(port).values())
    _free_sets(held, draft, port.set_ids)
    draft.freed_service_ports.append(port.identifier)
    del held.service_ports[port.key]
    del held.service_port_keys[port.identifier]
    key = name_key(NameKind.SERVICE_PORT, port.identifier)
    if held.names.pop(key, None) is not None:
        draft.names_removed.append(key)


def _identities(bset: BackendSet) -> dict[bytes, Backend]:
    if len(bset.backends) > MAX_SET_BACKENDS:
        raise Full("slots")
    return {b.address + b.port.to_bytes(2, "big"): b for b in bset.backends}


def _header(held: HeldState, draft: Draft, wanted: ServicePort, bset: BackendSet) -> int:
    node_id = node_identifier(held, draft, bset.key.node)
    return header_word(node_id, bset.key.view, bset.when_empty, wanted.affinity_seconds)


def _identifier(held: HeldState, undo: _Undo, port: HeldServicePort | None) -> tuple[int, int]:
    if port is not None:
        return port.identifier, port.incarnation
    return undo.service_port(), next_incarnation(held.incarnation)


def _no_name_left(held: HeldState, identifier: int) -> bool:
    full = len(held.names) >= held.capacities.service_ports * 2
    return full and name_key(NameKind.SERVICE_PORT, identifier) not in held.names


def _next_set(
    held: HeldState,
    port: HeldServicePort | None,
    key: SetKey,
    header: int,
    wanted: dict[int, Backend],
    joins: Joins,
) -> _NextSet:
    held_id = port.set_id(key) if port is not None else None
    before = held.members(held_id) if held_id is not None else []
    members = rearranged(before, list(wanted)) if before else list(wanted)
    words = header, _loopback_word(wanted, members)
    if held_id is None:
        return _NextSet(key, None, words, members, changed=True, replaced=False)
    first = held.block(held_id)[0]
    changed = members != before or tuple(held.slots[first + 1 : first + BLOCK_HEADER_WORDS]) != words
    replaced = changed and held_id in joins.joined and held_id in joins.left
    return _NextSet(key, held_id, words, members, changed, replaced)


def _loopback_word(backends: dict[int, Backend], members: list[int]) -> int:
    reachable = [
        i
        for i, b in backends.items()
        if b.state & _ON_NODE_ADDRESS or (b.address[12] in (0, 127) and is_loopback(b.address))
    ]
    return loopback_word(min(map(members.index, reachable)) if reachable else None)


def _write_backends(
    held: HeldState,
    draft: Draft,
    port: HeldServicePort,
    nodes: dict[str, int],
    fresh: list[Backend],
    identities: list[bytes],
    ids: list[int],
) -> None:
    if not ids:
        return
    held.reach_backends(max(ids))
    content, size, identifier, oldest = held.backends, BACKEND.size, port.identifier, port.incarnation
    for i, backend, identity in zip(ids, fresh, identities, strict=True):
        # at least the owner's, so that the array remembers the highest that any owner had
        incarnation = max(next_incarnation(held.backend_incarnation(i)), oldest)
        _BACKEND.pack_into(
            content, i * size, backend.address, identity[16:], backend.state, incarnation, identifier,
            nodes[backend.node],
        )  # fmt: skip
    draft.new_backends.extend(ids)


def _rewrite_states(
    held: HeldState, draft: Draft, nodes: dict[str, int], kept: list[tuple[int, Backend]]
) -> None:
    """State and node may change while programs read them: each is one aligned word."""
    content = held.backends
    for i, backend in kept:
        at = i * BACKEND.size
        state, node = _STATE_AND_NODE.unpack_from(content, at + _STATE_AT)
        if state != backend.state:
            struct.pack_into("=H", content, at + _STATE_AT, backend.state)
            at_word = at + _STATE_WORD_AT
            draft.states.append(Store("backends", at_word, bytes(content[at_word : at_word + 4])))
        if node != nodes[backend.node]:
            struct.pack_into("=I", content, at + _NODE_AT, nodes[backend.node])
            draft.states.append(
                Store("backends", at + _NODE_AT, bytes(content[at + _NODE_AT : at + _NODE_AT + 4]))
            )


def _write_sets(
    held: HeldState,
    draft: Draft,
    port: HeldServicePort,
    next_sets: list[_NextSet],
    joins: Joins,
    new_set_ids: list[int],
    firsts: list[int],
) -> dict[int, SetKey]:
    new_ids, blocks = iter(new_set_ids), iter(firsts)
    set_ids: list[int] = []
    replaced: dict[int, SetKey] = {}
    for s in next_sets:
        set_id = next(new_ids) if s.held_id is None or s.replaced else s.held_id
        set_ids.append(set_id)
        if not s.changed:
            continue
        if s.held_id is None:
            draft.new_sets.append(set_id)
        elif s.replaced:
            draft.new_sets.append(set_id)
            replaced[s.held_id] = s.key
            _free_sets(held, draft, (s.held_id,))
        else:
            draft.freed_blocks.append(_block(held, set_id))
            (draft.switched_last if set_id in joins.left else draft.switched_first).append(set_id)
        _write_block(held, draft, port, s, set_id, next(blocks))
    gone = set(port.set_ids).difference(set_ids, replaced)
    _free_sets(held, draft, gone)
    port.set_keys = tuple(s.key for s in next_sets)
    port.set_ids = tuple(set_ids)
    return replaced


def _write_block(
    held: HeldState, draft: Draft, port: HeldServicePort, s: _NextSet, set_id: int, first: int
) -> None:
    incarnation_of = held.backend_incarnation
    words = [pair_word(port.identifier, port.incarnation), *s.header]
    words += [i << 32 | incarnation_of(i) for i in s.members]
    size = block_words(len(s.members))
    words += [0] * (size - len(words))
    reach(held.slots, first + size)
    held.slots[first : first + size] = held.slots.__class__("Q", words)
    draft.new_blocks.append((first, size))
    reach(held.sets, set_id + 1)
    generation = split_set_word(held.sets[set_id])[2] + 1
    held.sets[set_id] = set_word(first, len(s.members), generation)


def _block(held: HeldState, set_id: int) -> tuple[int, int]:
    first, count = held.block(set_id)
    return first, block_words(count)


def _free_sets(held: HeldState, draft: Draft, set_ids: Iterable[int]) -> None:
    for set_id in set_ids:
        draft.freed_sets.append(set_id)
        draft.freed_blocks.append(_block(held, set_id))


class _Undo:
    """Takes places and can give all of them back, as if nothing had been asked for."""

    def __init__(self, held: HeldState) -> None:
        self.held = held
        self._service_ports: list[int] = []
        self._backends: list[int] = []
        self._sets: list[int] = []
        self._blocks: list[tuple[int, int]] = []

    def service_port(self) -> int:
        taken = self.held.service_port_ids.take(1)
        if taken is None:
            raise Full("names")
        self._service_ports = taken
        return taken[0]

    def backends(self, count: int) -> list[int]:
        taken = self.held.backend_ids.take(count)
        if taken is None:
            raise Full("backends")
        self._backends = taken
        return taken

    def sets(self, count: int) -> list[int]:
        taken = self.held.set_ids.take(count)
        if taken is None:
            raise Full("sets")
        self._sets = taken
        return taken

    def blocks(self, sizes: list[int]) -> list[int]:
        for words in sizes:
            first = self.held.blocks.allocate(words)
            if first is None:
                raise Full("slots")
            self._blocks.append((first, words))
        return [first for first, _ in self._blocks]

    def everything(self) -> None:
        held = self.held
        held.service_port_ids.put_back(self._service_ports)
        held.backend_ids.put_back(self._backends)
        held.set_ids.put_back(self._sets)
        for first, words in self._blocks:
            held.blocks.release(first, words)
