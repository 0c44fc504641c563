"""Bytes of the maps as values. For the agent at its start, and for everything that reads the pins.

Maps may hold anything: a function here answers None for what makes no sense and never raises.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from pyagent.datapath.encoded import NAME_HEADER, NODE_PORT_ADDRESS
from pyagent.datapath.flow_layout import OUTSIDE_SCOPE
from pyagent.datapath.layout import (
    BACKEND,
    BLOCK_HEADER_WORDS,
    FRONTEND_KEY,
    NAME_KEY,
    NO_SLOT,
    WORD,
    BlockHeader,
    NameKind,
    Scope,
    frontend_tag,
    split_header_word,
    split_pair_word,
    split_set_word,
)
from pyagent.model.address import Family, Protocol
from pyagent.model.service import ServicePortKey, View

SET_ID_MASK = 0x7FFFFFFF
"""The highest bit of a frontend's word is no part of its set id."""

Buffer = bytes | bytearray | memoryview


class RawMaps(NamedTuple):
    """A full dump of the maps that the agent writes. Arrays as they lie in memory, hash maps as dicts."""

    frontends: Mapping[bytes, bytes]
    sets: Buffer
    slots: Buffer
    backends: Buffer
    names: Mapping[bytes, bytes]
    service_addresses: Mapping[bytes, bytes]
    node_addresses: Mapping[bytes, bytes]
    config: Buffer


class DecodedFrontend(NamedTuple):
    """An entry of `frontends`. For nodePorts `address` is empty; `family` and `node_id` say whose it is."""

    address: bytes
    port: int
    protocol: int
    scope: Scope
    outside: bool  # for packets from outside
    family: int
    node_id: int
    set_id: int
    tag_matches: bool  # False: the kernel answers REFUSED_UNSTABLE


class DecodedSet(NamedTuple):
    """A set word with the block it points to."""

    set_id: int
    first_slot: int
    generation: int  # 0: it belongs to nobody any more
    service_port: int
    incarnation: int
    header: BlockHeader
    loopback_slot: int | None  # where a socket bound to loopback is led
    backend_words: tuple[int, ...]  # backend id << 32 | incarnation


class DecodedBackend(NamedTuple):
    """An element of `backends`."""

    backend_id: int
    address: bytes
    port: int
    state: int  # BackendStateBit
    incarnation: int
    service_port: int
    node_id: int


class DecodedName(NamedTuple):
    """An entry of `names`: exactly one of `service_port` and `node` is set."""

    kind: NameKind
    identifier: int
    incarnation: int
    service_port: ServicePortKey | None
    node: str
    zone: str
    service_type: int
    policy: int


def decode_frontend(key: bytes, value: Buffer) -> DecodedFrontend | None:
    """An entry of `frontends`; None if the sizes or the scope are wrong."""
    if len(key) != FRONTEND_KEY.size or len(value) != WORD.size or key[19] > 3:
        return None
    word: int = WORD.unpack(value)[0]
    outside = bool(key[19] & OUTSIDE_SCOPE)
    scope, port = Scope(key[19] & ~OUTSIDE_SCOPE), int.from_bytes(key[16:18], "big")
    set_id, matches = word >> 32 & SET_ID_MASK, word & 0xFFFFFFFF == frontend_tag(key)
    if scope is Scope.ADDRESS:
        family = Family.IPV4 if key[:12] == bytes(10) + b"\xff\xff" else Family.IPV6
        return DecodedFrontend(key[:16], port, key[18], scope, outside, family, 0, set_id, matches)
    family_number, node_id = NODE_PORT_ADDRESS.unpack_from(key)
    return DecodedFrontend(b"", port, key[18], scope, outside, family_number, node_id, set_id, matches)


def decode_set(sets: Buffer, slots: Buffer, set_id: int) -> DecodedSet | None:
    """The set of an id; None if it or its block lies outside of the arrays or its header is no header."""
    if not 0 <= set_id < len(sets) // 8:
        return None
    first, count, generation = split_set_word(WORD.unpack_from(sets, set_id * 8)[0])
    words = BLOCK_HEADER_WORDS + count
    if (first + words) * 8 > len(slots):
        return None
    owner, header_word, loopback, *backend_words = struct.unpack_from(f"={words}Q", slots, first * 8)
    try:
        header = split_header_word(header_word)
        View(header.view)
    except ValueError:
        return None
    service_port, incarnation = split_pair_word(owner)
    return DecodedSet(
        set_id,
        first,
        generation,
        service_port,
        incarnation,
        header,
        None if loopback & NO_SLOT == NO_SLOT else loopback & NO_SLOT,
        tuple(backend_words),
    )


def decode_backend(backends: Buffer, backend_id: int) -> DecodedBackend | None:
    """The backend of an id; None if the id lies outside of the array or no backend was ever there."""
    if not 0 < backend_id < len(backends) // BACKEND.size:
        return None
    address, port, state, incarnation, service_port, node = BACKEND.unpack(
        memoryview(backends), backend_id * BACKEND.size
    )
    if not incarnation:
        return None
    return DecodedBackend(
        backend_id, bytes(address), int(port), int(state), int(incarnation), int(service_port), int(node)
    )


def decode_name(key: bytes, value: bytes) -> DecodedName | None:
    """An entry of `names`, with or without its trailing zeros; None if it cannot be read."""
    if len(key) != NAME_KEY.size or len(value) < NAME_HEADER.size:
        return None
    kind, identifier = NAME_KEY.unpack(key)
    incarnation, family, protocol, service_type, policy = NAME_HEADER.unpack_from(value)
    try:
        text = bytes(value[NAME_HEADER.size :]).rstrip(b"\0").decode()
        if kind == NameKind.NODE:
            node, _, zone = text.partition("\0")
            if not node:
                return None
            return DecodedName(NameKind.NODE, int(identifier), incarnation, None, node, zone, 0, 0)
        if kind != NameKind.SERVICE_PORT or "\0" in text:
            return None
        namespace, slash, rest = text.partition("/")
        name, _, port_name = rest.partition(":")
        if not slash:
            return None
        port = ServicePortKey(namespace, name, port_name, Protocol(protocol), Family(family))
    except ValueError:
        return None
    return DecodedName(
        NameKind.SERVICE_PORT, int(identifier), incarnation, port, "", "", service_type, policy
    )
