"""New backends in the array of backends, and states that change in place."""

from __future__ import annotations

import struct

from pyagent.datapath.draft import Draft
from pyagent.datapath.held import HeldServicePort, HeldState
from pyagent.datapath.identifiers import next_incarnation
from pyagent.datapath.layout import BACKEND, NodeId
from pyagent.datapath.writes import Store
from pyagent.model.address import is_loopback
from pyagent.model.service import Backend, BackendStateBit

_BACKEND = struct.Struct("=18sHIII")
"""As layout.BACKEND, with address and port in one piece: a backend's identity."""

_STATE_AND_NODE = struct.Struct("=H8xI")
_STATE_AT = BACKEND.offsets["state"]
_STATE_WORD_AT = BACKEND.offsets["port"]  # port and state share one aligned word
_NODE_AT = BACKEND.offsets["node"]

ON_NODE_ADDRESS = int(BackendStateBit.ON_NODE_ADDRESS)

LOOPBACK_BYTES = (127, 0)
"""What 127.0.0.0/8 (mapped) and ::1 have in the thirteenth byte; spares other addresses the full look."""

Backends = dict[bytes, Backend]
"""By identity: 16 bytes of address, two of port in network order."""


def is_near(identity: bytes, backend: Backend) -> bool:
    """Whether a socket bound to loopback can reach it."""
    return bool(backend.state & ON_NODE_ADDRESS) or (
        identity[12] in LOOPBACK_BYTES and is_loopback(backend.address)
    )


def fresh_words(held: HeldState, port: HeldServicePort, ids: list[int]) -> list[int]:
    """Slot words of new backends.

    An incarnation is above the last one that had the id, and not below the owner's: so the array
    remembers, beyond the lives of both, the highest incarnation that an owner of backends ever had.
    """
    opened, oldest = len(held.backends) // BACKEND.size, port.incarnation
    if ids and min(ids) >= opened:
        return [i << 32 | oldest for i in ids]
    return [i << 32 | max(next_incarnation(held.backend_incarnation(i)), oldest) for i in ids]


def write_backends(
    held: HeldState,
    draft: Draft,
    port: HeldServicePort,
    backends: Backends,
    fresh: list[bytes],
    words: list[int],
) -> None:
    if not fresh:
        return
    first, last = words[0] >> 32, words[-1] >> 32
    held.reach_backends(max(words) >> 32)
    content, size, owner, pack = held.backends, BACKEND.size, port.identifier, _BACKEND.pack
    node_id = held.nodes.get
    packed = [
        pack(i, (b := backends[i]).state, word & 0xFFFFFFFF, owner, node_id(b.node, NodeId.OWN))
        for i, word in zip(fresh, words, strict=True)
    ]
    if [word >> 32 for word in words] == list(range(first, first + len(words))):
        content[first * size : (last + 1) * size] = b"".join(packed)
        draft.new_backends.append((first, len(words)))
        return
    for word, data in zip(words, packed, strict=True):
        i = word >> 32
        content[i * size : (i + 1) * size] = data
        draft.new_backends.append((i, 1))


def rewrite_states(held: HeldState, draft: Draft, backends: Backends, known: dict[bytes, int]) -> None:
    """State and node may change while programs read them: each is part of one aligned word."""
    content = held.backends
    for identity, backend in backends.items():
        if identity not in known:
            continue
        at = (known[identity] >> 32) * BACKEND.size
        state, node = _STATE_AND_NODE.unpack_from(content, at + _STATE_AT)
        if state != backend.state:
            struct.pack_into("=H", content, at + _STATE_AT, backend.state)
            draft.states.append(_store_word(content, at + _STATE_WORD_AT))
        wanted_node = held.nodes.get(backend.node, NodeId.OWN)
        if node != wanted_node:
            struct.pack_into("=I", content, at + _NODE_AT, wanted_node)
            draft.states.append(_store_word(content, at + _NODE_AT))


def _store_word(backends: bytearray, offset: int) -> Store:
    return Store("backends", offset, bytes(backends[offset : offset + 4]))
