"""From one desired service port to new backends, blocks and switched sets. All of it, or nothing."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from pyagent.datapath.backend_writes import (
    LOOPBACK_BYTES,
    ON_NODE_ADDRESS,
    Backends,
    fresh_words,
    is_near,
    rewrite_states,
    write_backends,
)
from pyagent.datapath.blocks import block_words
from pyagent.datapath.draft import Draft
from pyagent.datapath.encoded import name_key, service_port_name
from pyagent.datapath.held import HeldServicePort, HeldState, reach
from pyagent.datapath.identifiers import next_incarnation
from pyagent.datapath.layout import (
    BLOCK_HEADER_WORDS,
    NameKind,
    header_word,
    loopback_word,
    pair_word,
    set_word,
)
from pyagent.datapath.member_plan import Joins, plan_members
from pyagent.datapath.membership import LAST_GENERATION, next_generation, rearranged
from pyagent.datapath.naming import has_room, node_identifier, put_name
from pyagent.datapath.places import Full, Places
from pyagent.model.service import (
    MAX_SET_BACKENDS,
    BackendSet,
    ServicePort,
    SetKey,
)

_NO_NODE = ("",)
"""Backends whose node nobody told; they carry the own node's id, and no name."""


class _NextSet(NamedTuple):
    key: SetKey
    held_id: int | None
    header: tuple[int, int]  # the block's second and third word
    members: list[int]  # slot words
    changed: bool
    replaced: bool  # gets a new id, because dials come and leave at once


def plan_service_port(held: HeldState, draft: Draft, wanted: ServicePort, joins: Joins) -> dict[int, SetKey]:
    """Make one service port's sets what they should be.

    Returns:
        The sets that got a new id (by old id); frontends that stay on them must be put again.

    Raises:
        Full: there is no room; nothing of this service port has changed.
    """
    port = held.service_ports.get(wanted.key)
    if port is not None and plan_members(held, draft, port, wanted, joins):
        return {}
    known = held.identities(port) if port is not None else {}
    sets = list({bset.key: bset for bset in wanted.sets}.values())
    members = [_identities(bset) for bset in sets]
    backends = members[0] if len(members) == 1 else {i: b for m in reversed(members) for i, b in m.items()}
    fresh = [identity for identity in backends if identity not in known] if known else list(backends)
    for node in {b.node for b in backends.values()}.difference(held.nodes, _NO_NODE):
        node_identifier(held, draft, node)
    headers = [_header(held, draft, wanted, bset) for bset in sets]

    places = Places(held)
    try:
        if port is None:
            port = HeldServicePort(wanted.key, places.service_port(), next_incarnation(held.incarnation))
        name = service_port_name(wanted, port.incarnation)
        named = name_key(NameKind.SERVICE_PORT, port.identifier)
        if name is None or not has_room(held, named):
            raise Full("names")
        new_words = fresh_words(held, port, places.backends(len(fresh)))
        words = dict(zip(fresh, new_words, strict=True))
        if known:
            words.update(known)
        next_sets = [
            _next_set(held, port, bset.key, header, m, words, joins)
            for bset, header, m in zip(sets, headers, members, strict=True)
        ]
        new_set_ids = places.sets(sum(s.held_id is None or s.replaced for s in next_sets))
        firsts = places.blocks([block_words(len(s.members)) for s in next_sets if s.changed])
    except Full:
        places.give_back()
        raise

    put_name(held, draft, named, name)
    if wanted.key not in held.service_ports:
        held.service_ports[wanted.key] = port
        held.service_port_keys[port.identifier] = wanted.key
        held.incarnation = port.incarnation
    write_backends(held, draft, port, backends, fresh, new_words)
    if known:
        rewrite_states(held, draft, backends, known)
        draft.freed_backends.extend(word >> 32 for i, word in known.items() if i not in backends)
    port.wanted = wanted
    for set_id in port.set_ids:
        held.indexes.take(set_id)
    return _write_sets(held, draft, port, next_sets, joins, new_set_ids, firsts)


def remove_service_port(held: HeldState, draft: Draft, port: HeldServicePort) -> None:
    """Free everything of a service port. Its frontends are the caller's to remove."""
    draft.freed_backends.extend(word >> 32 for word in held.identities(port).values())
    for set_id in port.set_ids:
        held.indexes.take(set_id)
    _free_sets(held, draft, port.set_ids)
    draft.freed_service_ports.append(port.identifier)
    del held.service_ports[port.key]
    del held.service_port_keys[port.identifier]
    key = name_key(NameKind.SERVICE_PORT, port.identifier)
    if held.names.pop(key, None) is not None:
        draft.names_removed.append(key)


def _identities(bset: BackendSet) -> Backends:
    if len(bset.backends) > MAX_SET_BACKENDS:
        raise Full("slots")
    return {b.address + b.port.to_bytes(2, "big"): b for b in bset.backends}


def _header(held: HeldState, draft: Draft, wanted: ServicePort, bset: BackendSet) -> int:
    node_id = node_identifier(held, draft, bset.key.node)
    return header_word(node_id, bset.key.view, bset.when_empty, wanted.affinity_seconds)


def _next_set(
    held: HeldState,
    port: HeldServicePort,
    key: SetKey,
    header: int,
    backends: Backends,
    words: dict[bytes, int],
    joins: Joins,
) -> _NextSet:
    held_id = port.set_id(key)
    wanted = [words[identity] for identity in backends]
    before = held.slot_words(held_id) if held_id is not None else []
    members = rearranged(before, wanted) if before else wanted
    near = [
        words[i]
        for i, b in backends.items()
        if b.state & ON_NODE_ADDRESS or (i[12] in LOOPBACK_BYTES and is_near(i, b))
    ]
    headers = header, loopback_word(min(map(members.index, near)) if near else None)
    if held_id is None:
        return _NextSet(key, None, headers, members, changed=True, replaced=False)
    first = held.block(held_id)[0]
    changed = members != before or tuple(held.slots[first + 1 : first + BLOCK_HEADER_WORDS]) != headers
    replaced = changed and held_id in joins.joined and held_id in joins.left
    return _NextSet(key, held_id, headers, members, changed, replaced)


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
        if set_id != s.held_id:
            draft.new_sets.append(set_id)
            if s.held_id is not None:
                replaced[s.held_id] = s.key
        else:
            draft.freed_blocks.append(_block(held, set_id))
            (draft.switched_last if set_id in joins.left else draft.switched_first).append(set_id)
        _write_block(held, draft, port, s, set_id, next(blocks))
    _free_sets(held, draft, set(port.set_ids).difference(set_ids))
    port.set_keys = tuple([s.key for s in next_sets])
    port.set_ids = tuple(set_ids)
    return replaced


def _write_block(
    held: HeldState, draft: Draft, port: HeldServicePort, s: _NextSet, set_id: int, first: int
) -> None:
    size = block_words(len(s.members))
    unused = size - BLOCK_HEADER_WORDS - len(s.members)
    words = [pair_word(port.identifier, port.incarnation), *s.header, *s.members, *([0] * unused)]
    reach(held.slots, first + size)
    held.slots[first : first + size] = array("Q", words)
    draft.new_blocks.append((first, size))
    reach(held.sets, set_id + 1)
    held.sets[set_id] = set_word(first, len(s.members), next_generation(held.sets[set_id]))


def _block(held: HeldState, set_id: int) -> tuple[int, int]:
    first, count = held.block(set_id)
    return first, block_words(count)


def _free_sets(held: HeldState, draft: Draft, set_ids: Iterable[int]) -> None:
    for set_id in set_ids:
        draft.freed_sets.append(set_id)
        draft.freed_blocks.append(_block(held, set_id))
        give_up_set(held, draft, set_id)


def give_up_set(held: HeldState, draft: Draft, set_id: int) -> None:
    """Mark a set as nobody's. Programs that still follow it find it unchanged: they ignore the generation."""
    held.sets[set_id] &= ~LAST_GENERATION
    draft.given_up_sets.append(set_id)
