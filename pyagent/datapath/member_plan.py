"""A large set that lost and gained a few backends: what changed, and one copy of its block.

`plan_service_port` would lead to the same, and looks at every backend; `tests/property/test_member_plan.py`
holds the two against each other.
"""

from __future__ import annotations

from typing import NamedTuple

from pyagent.datapath.backend_writes import fresh_words, is_near, rewrite_states, write_backends
from pyagent.datapath.blocks import block_words
from pyagent.datapath.draft import Draft
from pyagent.datapath.held import HeldServicePort, HeldState, reach
from pyagent.datapath.layout import BLOCK_HEADER_WORDS, loopback_word, set_word
from pyagent.datapath.membership import exchanged, next_generation
from pyagent.datapath.naming import node_identifier
from pyagent.datapath.places import Full, Places
from pyagent.model.difference import difference
from pyagent.model.service import MAX_SET_BACKENDS, Backend, BackendSet, ServicePort

LEAST = 64
"""Backends of a set that is worth it."""

SHARE = 8
"""At most one of so many may come or go."""


class Joins(NamedTuple):
    """How dials move in this plan, by held set id."""

    joined: set[int]
    left: set[int]


def plan_members(
    held: HeldState, draft: Draft, port: HeldServicePort, wanted: ServicePort, joins: Joins
) -> bool:
    """Plan it if it is such a change; False if it is another, or one that must look at all of the set.

    Raises:
        Full: there is no room; nothing of this service port has changed.
    """
    sets = only_members_differ(port.wanted, wanted) if port.wanted is not None else None
    if sets is None or len(port.set_ids) != 1:
        return False
    set_id, (old, new) = port.set_ids[0], sets
    found = difference(old.backends, new.backends)
    gone, came = ({_identity(b): b for b in side} for side in found)
    first, count = held.block(set_id)
    if (
        len(gone) + len(came) > len(old.backends) // SHARE
        or count != len(old.backends)
        or held.slots[first + 2] != loopback_word(None)
        or any(is_near(identity, backend) for identity, backend in came.items())
        or (set_id in joins.joined and set_id in joins.left)
        or len(new.backends) > MAX_SET_BACKENDS
    ):
        return False
    index = held.indexes.take(set_id) or held.identities(port)
    fresh = [identity for identity in came if identity not in gone]
    removed = [identity for identity in gone if identity not in came]
    if len(index) != count or any(i in index for i in fresh) or any(i not in index for i in gone):
        return False
    for backend in came.values():
        node_identifier(held, draft, backend.node)
    places = Places(held)
    size = count + len(fresh) - len(removed)
    try:
        words = fresh_words(held, port, places.backends(len(fresh)))
        block = places.blocks([block_words(size)])[0] if fresh or removed else None
    except Full:
        places.give_back()
        raise
    write_backends(held, draft, port, came, fresh, words)
    rewrite_states(held, draft, {i: b for i, b in came.items() if i in gone}, index)
    if block is not None:
        out = [index.pop(identity) for identity in removed]
        index.update(zip(fresh, words, strict=True))
        draft.freed_backends.extend(word >> 32 for word in out)
        _exchange(held, draft, set_id, block, out, words)
        (draft.switched_last if set_id in joins.left else draft.switched_first).append(set_id)
    held.indexes.keep(set_id, index)
    port.wanted = wanted
    return True


def _identity(backend: Backend) -> bytes:
    return backend.address + backend.port.to_bytes(2, "big")


def _exchange(
    held: HeldState, draft: Draft, set_id: int, block: int, gone: list[int], came: list[int]
) -> None:
    first, count = held.block(set_id)
    head = first + BLOCK_HEADER_WORDS
    members = exchanged(held.slots[head : head + count], gone, came)
    size = block_words(len(members))
    content = held.slots[first:head] + members
    content.frombytes(bytes(8 * (size - len(content))))
    reach(held.slots, block + size)
    held.slots[block : block + size] = content
    draft.new_blocks.append((block, size))
    draft.freed_blocks.append((first, block_words(count)))
    held.sets[set_id] = set_word(block, len(members), next_generation(held.sets[set_id]))


def only_members_differ(before: ServicePort, after: ServicePort) -> tuple[BackendSet, BackendSet] | None:
    """The one set of both, if it is large and nothing else of the service port is different."""
    if len(before.sets) != 1 or len(after.sets) != 1:
        return None
    old, new = before.sets[0], after.sets[0]
    same = (
        old.key == new.key
        and old.when_empty is new.when_empty
        and before.affinity_seconds == after.affinity_seconds
        and before.policy == after.policy
        and before.service_type is after.service_type
    )
    return (old, new) if same and min(len(old.backends), len(new.backends)) >= LEAST else None
