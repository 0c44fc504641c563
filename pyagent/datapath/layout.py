"""The bytes of every map, in Python; `bpf/contract.h` says the same in C.

`static_assertions()` turns this module into C that fails to compile where the two differ.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from pyagent.datapath import flow_layout
from pyagent.datapath.cstruct import CStruct, Field
from pyagent.datapath.flow_layout import (
    FLOW,
    FLOW_KEY,
    FRAGMENT,
    FRAGMENT_KEY,
    OUTSIDE_DEVICE,
    OUTSIDE_HOOK,
    OUTSIDE_SCOPE,
)
from pyagent.model.outcome import OUTCOME_COUNT, Outcome
from pyagent.model.service import AddressRule, BackendStateBit, PolicyBit, View

LAYOUT_VERSION = 1
BLOCK_HEADER_WORDS = 3
NO_SLOT = 0xFFFFFFFF
SERVED_PREFIX_WORDS = 8
DATAGRAM_ORIGINS = 4
NAME_TEXT = 320
LAYOUT_TEXT = 8192
"""Bytes of the layout's description of itself, which programs do not read."""
WORD = struct.Struct("=Q")

CHOSEN_SHARDS = 2
"""Copies of the `chosen` counters; CPUs are spread over them, which keeps the atomic adds apart."""


class Scope(IntEnum):
    ADDRESS = 0
    NODE_PORT = 1


class NodeId(IntEnum):
    OWN = 0
    ANY_OTHER = 0xFFFFFFFF


class NameKind(IntEnum):
    SERVICE_PORT = 1
    NODE = 2


class WorkloadKind(IntEnum):
    NETNS = 1
    CGROUP = 2


class Feature(IntFlag):
    OPT_OUT = 1
    HOST_ONLY = 2
    SOURCE_RANGES = 4


class Hook(IntEnum):
    CONNECT4 = 0
    CONNECT6 = 1
    SENDMSG4 = 2
    SENDMSG6 = 3
    RECVMSG4 = 4
    RECVMSG6 = 5
    GETPEERNAME4 = 6
    GETPEERNAME6 = 7


FRONTEND_KEY = CStruct(
    "frontend_key",
    Field("addr", "16s"),
    Field("port", "H", ">"),
    Field("protocol", "B"),
    Field("scope", "B"),
)
BACKEND = CStruct(
    "backend",
    Field("addr", "16s"),
    Field("port", "H", ">"),
    Field("state", "H"),
    Field("incarnation", "I"),
    Field("service_port", "I"),
    Field("node", "I"),
)
SERVICE_ADDRESS_KEY = CStruct("service_address_key", Field("prefix", "I"), Field("addr", "16s"))
SOURCE_RANGE_KEY = CStruct(
    "source_range_key", Field("prefix", "I"), Field("service_port", "I"), Field("addr", "16s")
)
CLIENT_ADDRESSES = CStruct("client_addresses", Field("ipv4", "16s"), Field("ipv6", "16s"))
WORKLOAD_KEY = CStruct("workload_key", Field("id", "Q"), Field("kind", "I"), Field("pad", "I"))
AFFINITY_KEY = CStruct(
    "affinity_key",
    Field("service_port", "I"),
    Field("incarnation", "I"),
    Field("client", "Q"),
    Field("client_low", "Q"),
)
AFFINITY = CStruct(
    "affinity", Field("backend", "Q"), Field("last_used", "Q"), Field("slot", "I"), Field("pad", "I")
)
ORIGIN = CStruct(
    "origin",
    Field("frontend", "16s"),
    Field("backend", "16s"),
    Field("frontend_port", "H", ">"),
    Field("backend_port", "H", ">"),
    Field("service_port", "I"),
    Field("service_port_incarnation", "I"),
    Field("backend_id", "I"),
    Field("backend_incarnation", "I"),
    Field("protocol", "B"),
    Field("family", "B"),
    Field("pad", "H"),
    Field("since", "Q"),
)
CONNECTION = CStruct(
    "connection",
    Field("cookie", "Q"),
    Field("netns", "I"),
    Field("family", "H"),
    Field("state", "B"),
    Field("protocol", "B"),
    Field("source", "16s"),
    Field("peer", "16s"),
    Field("source_port", "H"),
    Field("peer_port", "H", ">"),
    Field("pad", "I"),
    Field("origin", f"{ORIGIN.size}s"),
)
DATAGRAM_ORIGIN = CStruct(
    "datagram_origin",
    Field("frontend", "16s"),
    Field("backend", "16s"),
    Field("frontend_port", "H", ">"),
    Field("backend_port", "H", ">"),
    Field("slot", "I"),
    Field("backend_word", "Q"),
)
DATAGRAM_ORIGINS_STRUCT = CStruct(
    "datagram_origins",
    Field("entry", f"{DATAGRAM_ORIGINS * DATAGRAM_ORIGIN.size}s", of=DATAGRAM_ORIGIN.c_name),
    Field("next", "I"),
    Field("latest", "H"),
    Field("overflowed", "H"),
)
OVERFLOW_KEY = CStruct(
    "overflow_key",
    Field("socket", "Q"),
    Field("backend", "16s"),
    Field("backend_port", "H", ">"),
    Field("pad", "6s"),
)
OVERFLOW = CStruct("overflow", Field("frontend", "16s"), Field("frontend_port", "H", ">"), Field("pad", "6s"))
CONFIG = CStruct(
    "config",
    Field("node_netns", "Q"),
    Field("event_lease", "Q"),
    Field("service_ipv6_low", "Q"),
    Field("service_ipv6_high", "Q"),
    Field("service_ipv4_low", "I"),
    Field("service_ipv4_high", "I"),
    Field("node_port_low", "H"),
    Field("node_port_high", "H"),
    Field("features", "I"),
    Field("event_outcomes", "I"),
    Field("event_service_port", "I"),
    Field("event_sample", "I"),
    Field("opt_out_level", "H"),
    Field("opt_out_deeper", "H"),
    Field("served_prefixes", f"{SERVED_PREFIX_WORDS * 8}s"),
    Field("event_netns", "Q"),
    Field("source_port_low", "H"),
    Field("source_port_high", "H"),
    Field("pad", "I"),
    Field("reserved", "48s"),
)
META = CStruct(
    "meta",
    Field("layout", "Q"),
    Field("agent_started", "Q"),
    Field("program_tag", "Q"),
    Field("agent_pid", "Q"),
    Field("reserved", "32s"),
)
NAME_KEY = CStruct("name_key", Field("kind", "I"), Field("id", "I"))
NAME = CStruct(
    "name",
    Field("incarnation", "I"),
    Field("family", "B"),
    Field("protocol", "B"),
    Field("service_type", "B"),
    Field("policy", "B"),
    Field("text", f"{NAME_TEXT}s"),
)
EVENT = CStruct(
    "event",
    Field("time", "Q"),
    Field("cgroup", "Q"),
    Field("netns", "Q"),
    Field("socket", "Q"),
    Field("dialled", f"{FRONTEND_KEY.size}s"),
    Field("backend", "16s"),
    Field("backend_port", "H", ">"),
    Field("outcome", "B"),
    Field("hook", "B"),
    Field("service_port", "I"),
    Field("backend_id", "I"),
    Field("pid", "I"),
    Field("pad", "I"),
    Field("comm", "16s"),
    Field("previous", "Q"),
)

STRUCTS = (
    FRONTEND_KEY,
    BACKEND,
    SERVICE_ADDRESS_KEY,
    SOURCE_RANGE_KEY,
    CLIENT_ADDRESSES,
    WORKLOAD_KEY,
    AFFINITY_KEY,
    AFFINITY,
    ORIGIN,
    CONNECTION,
    DATAGRAM_ORIGIN,
    DATAGRAM_ORIGINS_STRUCT,
    OVERFLOW_KEY,
    OVERFLOW,
    CONFIG,
    META,
    NAME_KEY,
    NAME,
    EVENT,
    *flow_layout.STRUCTS,
)

_ENUMS: tuple[tuple[str, type[IntEnum] | type[IntFlag]], ...] = (
    ("OUTCOME_", Outcome),
    ("SCOPE_", Scope),
    ("NODE_", NodeId),
    ("RULE_", AddressRule),
    ("NAME_", NameKind),
    ("BACKEND_", BackendStateBit),
    ("POLICY_", PolicyBit),
    ("FEATURE_", Feature),
    ("WORKLOAD_", WorkloadKind),
    ("VIEW_", View),
    ("HOOK_", Hook),
    *flow_layout.ENUMS,
)


class MapType(IntEnum):
    """Values of `enum bpf_map_type` (include/uapi/linux/bpf.h)."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    SK_STORAGE = 24
    RINGBUF = 27


class MapFlag(IntFlag):
    """`map_flags` of `BPF_MAP_CREATE`."""

    NO_PREALLOC = 1
    MMAPABLE = 1 << 10


class MapSpec(NamedTuple):
    """How a map is created. Sizes in bytes, as the kernel reports them."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlag = MapFlag(0)


class Capacities(NamedTuple):
    """Most entries of each kind that one set of maps holds."""

    frontends: int = 131_072
    sets: int = 131_072
    slots: int = 1_048_576
    backends: int = 262_144
    service_ports: int = 131_072
    service_addresses: int = 131_072
    node_addresses: int = 16_384
    affinity: int = 65_536
    overflow: int = 16_384
    source_ranges: int = 65_536
    clients: int = 16_384
    event_bytes: int = 1_048_576
    flows: int = 32_768
    fragments: int = 4_096
    devices: int = 1_024


def map_specs(capacities: Capacities) -> tuple[MapSpec, ...]:
    """Every map of the layout, for the given capacities."""
    c, mmapable = capacities, MapFlag.MMAPABLE
    return (
        MapSpec("frontends", MapType.HASH, FRONTEND_KEY.size, 8, c.frontends),
        MapSpec("sets", MapType.ARRAY, 4, 8, c.sets, mmapable),
        MapSpec("slots", MapType.ARRAY, 4, 8, c.slots, mmapable),
        MapSpec("backends", MapType.ARRAY, 4, BACKEND.size, c.backends, mmapable),
        MapSpec(
            "service_addresses",
            MapType.LPM_TRIE,
            SERVICE_ADDRESS_KEY.size,
            4,
            c.service_addresses,
            MapFlag.NO_PREALLOC,
        ),
        MapSpec("node_addresses", MapType.HASH, 16, 4, c.node_addresses, MapFlag.NO_PREALLOC),
        MapSpec("names", MapType.HASH, NAME_KEY.size, NAME.size, c.service_ports * 2, MapFlag.NO_PREALLOC),
        MapSpec(
            "source_ranges",
            MapType.LPM_TRIE,
            SOURCE_RANGE_KEY.size,
            4,
            c.source_ranges,
            MapFlag.NO_PREALLOC,
        ),
        MapSpec("client_addresses", MapType.HASH, 8, CLIENT_ADDRESSES.size, c.clients, MapFlag.NO_PREALLOC),
        MapSpec("opted_out", MapType.HASH, WORKLOAD_KEY.size, 4, c.clients, MapFlag.NO_PREALLOC),
        MapSpec("affinity", MapType.LRU_HASH, AFFINITY_KEY.size, AFFINITY.size, c.affinity),
        MapSpec("origin", MapType.SK_STORAGE, 4, ORIGIN.size, 0, MapFlag.NO_PREALLOC),
        MapSpec("origin_udp", MapType.SK_STORAGE, 4, DATAGRAM_ORIGINS_STRUCT.size, 0, MapFlag.NO_PREALLOC),
        MapSpec("origin_overflow", MapType.LRU_HASH, OVERFLOW_KEY.size, OVERFLOW.size, c.overflow),
        MapSpec("chosen", MapType.ARRAY, 4, 8, c.backends * CHOSEN_SHARDS, mmapable),
        MapSpec("refused", MapType.ARRAY, 4, 8, c.service_ports, mmapable),
        MapSpec("outcomes", MapType.PERCPU_ARRAY, 4, 8, OUTCOME_COUNT),
        MapSpec("events", MapType.RINGBUF, 0, 0, c.event_bytes),
        MapSpec("config", MapType.ARRAY, 4, CONFIG.size, 1, mmapable),
        MapSpec("meta", MapType.ARRAY, 4, META.size, 1, mmapable),
        MapSpec("layout", MapType.ARRAY, 4, LAYOUT_TEXT, 1, mmapable),
        MapSpec("flows", MapType.LRU_HASH, FLOW_KEY.size, FLOW.size, c.flows),
        MapSpec("fragments", MapType.LRU_HASH, FRAGMENT_KEY.size, FRAGMENT.size, c.fragments),
        MapSpec("outside_devices", MapType.HASH, 4, OUTSIDE_DEVICE.size, c.devices, MapFlag.NO_PREALLOC),
        MapSpec("outside_outcomes", MapType.PERCPU_ARRAY, 4, 8, OUTCOME_COUNT),
    )


def frontend_tag(key: bytes) -> int:
    """32 bits that tell a frontend key from another one; computed alike in `bpf/lib/lookup.h`."""
    tag = 0
    for (word,) in struct.iter_unpack("=I", key):
        tag = (tag ^ word) * 0x9E3779B1 & 0xFFFFFFFF
    return tag ^ tag >> 15


def frontend_word(set_id: int, key: bytes) -> int:
    return set_id << 32 | frontend_tag(key)


def set_word(first_slot: int, count: int, generation: int) -> int:
    return first_slot << 32 | count << 16 | generation & 0xFFFF


def split_set_word(word: int) -> tuple[int, int, int]:
    """(first slot, count, generation)."""
    return word >> 32, word >> 16 & 0xFFFF, word & 0xFFFF


def pair_word(identifier: int, incarnation: int) -> int:
    """An id with its incarnation: how slots name backends and block headers their service port."""
    return identifier << 32 | incarnation


def split_pair_word(word: int) -> tuple[int, int]:
    return word >> 32, word & 0xFFFFFFFF


def header_word(node_id: int, view: int, when_empty: Outcome, affinity_seconds: int) -> int:
    return node_id << 32 | view << 24 | when_empty << 17 | affinity_seconds


class BlockHeader(NamedTuple):
    node_id: int
    view: int
    when_empty: Outcome
    affinity_seconds: int


def split_header_word(word: int) -> BlockHeader:
    return BlockHeader(word >> 32, word >> 24 & 0xFF, Outcome(word >> 17 & 0x7F), word & 0x1FFFF)


def loopback_word(slot: int | None) -> int:
    """Third word of a block header: a slot whose backend a socket bound to loopback can reach, if any.

    Such a backend has a loopback address or BackendStateBit.ON_NODE_ADDRESS.
    """
    return NO_SLOT if slot is None else slot


def static_assertions() -> str:
    """C source that compiles only if `bpf/contract.h` and this module agree."""
    lines = [
        f'_Static_assert({name} == {value}, "{name} differs from layout.py");'
        for name, value in (
            ("LAYOUT_VERSION", LAYOUT_VERSION),
            ("BLOCK_HEADER_WORDS", BLOCK_HEADER_WORDS),
            ("DATAGRAM_ORIGINS", DATAGRAM_ORIGINS),
            ("NAME_TEXT", NAME_TEXT),
            ("NO_SLOT", NO_SLOT),
            ("SCOPE_OUTSIDE", OUTSIDE_SCOPE),
            ("HOOK_OUTSIDE", OUTSIDE_HOOK),
            ("SERVED_PREFIX_WORDS", SERVED_PREFIX_WORDS),
        )
    ]
    for cstruct in STRUCTS:
        tag = f"struct {cstruct.c_name}"
        lines.append(
            f'_Static_assert(sizeof({tag}) == {cstruct.size}, "{tag}: size differs from layout.py");'
        )
        lines += [
            f"_Static_assert(__builtin_offsetof({tag}, {name}) == {offset},"
            f' "{tag}.{name}: offset differs from layout.py");'
            for name, offset in cstruct.offsets.items()
        ]
    lines += [
        f'_Static_assert({prefix}{name} == {int(member)}u, "{prefix}{name} differs from layout.py");'
        for prefix, enum in _ENUMS
        for name, member in enum.__members__.items()
    ]
    return "\n".join(lines) + "\n"
