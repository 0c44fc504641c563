"""The bounds in `config` that spare most system calls the look-ups in hash maps and tries.

Always an outer bound of what the maps hold: widened before an entry comes, narrowed after one went.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

from pyagent.datapath.layout import CONFIG, SERVED_PREFIX_WORDS
from pyagent.model.address import V4_MAPPED_PREFIX

V6_BITS, V4_BITS, PORT_BITS = 64, 32, 16

_V6 = struct.Struct("=QQ")
_V4 = struct.Struct("=II")
_PORT = struct.Struct("=HH")
_HALF = struct.Struct("=II")
_WORD = struct.Struct("=Q")
_WORDS = struct.Struct(f"={SERVED_PREFIX_WORDS}Q")
_WORD_MASK = (1 << 64) - 1
_PREFIXES = CONFIG.offsets["served_prefixes"]


class Range(NamedTuple):
    """From `low` to `high`, both included; nothing if low is above high."""

    low: int
    high: int

    def widened(self, other: Range) -> Range:
        if self.low > self.high:
            return other
        if other.low > other.high:
            return self
        return Range(min(self.low, other.low), max(self.high, other.high))

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


def nothing(bits: int) -> Range:
    """The empty range as the kernel's programs expect it."""
    return Range((1 << bits) - 1, 0)


class Bounds(NamedTuple):
    """What `config` says of where Services are.

    Attributes:
        service_ipv6, service_ipv4: of service addresses: upper halves of IPv6 ones, IPv4 ones; in host order.
        node_port: of nodePorts.
        prefixes: a bit for each prefix with a frontend or a service address in it (`prefix_bit`).
    """

    service_ipv6: Range
    service_ipv4: Range
    node_port: Range
    prefixes: int

    def widened(self, other: Bounds) -> Bounds:
        return Bounds(
            self.service_ipv6.widened(other.service_ipv6),
            self.service_ipv4.widened(other.service_ipv4),
            self.node_port.widened(other.node_port),
            self.prefixes | other.prefixes,
        )

    def may_serve(self, address: bytes, port: int) -> bool:
        """Whether a dial can concern a Service; the hooks look no further if it cannot."""
        return bool(self.prefixes >> prefix_bit(address) & 1) or port in self.node_port

    def encoded(self) -> tuple[tuple[int, bytes], ...]:
        """(offset in `config`, bytes of one store)."""
        v6 = _V6.pack(*self.service_ipv6)
        return (
            (CONFIG.offsets["service_ipv6_low"], v6[:8]),
            (CONFIG.offsets["service_ipv6_high"], v6[8:]),
            (CONFIG.offsets["service_ipv4_low"], _V4.pack(*self.service_ipv4)),
            (CONFIG.offsets["node_port_low"], _PORT.pack(*self.node_port)),
            *(
                (_PREFIXES + 8 * i, _WORD.pack(self.prefixes >> 64 * i & _WORD_MASK))
                for i in range(SERVED_PREFIX_WORDS)
            ),
        )


NOTHING = Bounds(nothing(V6_BITS), nothing(V4_BITS), nothing(PORT_BITS), 0)


def decode_bounds(config: bytes | bytearray | memoryview) -> Bounds:
    """The bounds that a `config` element (CONFIG.size bytes) holds."""
    return Bounds(
        Range(*_V6.unpack_from(config, CONFIG.offsets["service_ipv6_low"])),
        Range(*_V4.unpack_from(config, CONFIG.offsets["service_ipv4_low"])),
        Range(*_PORT.unpack_from(config, CONFIG.offsets["node_port_low"])),
        sum(word << 64 * i for i, word in enumerate(_WORDS.unpack_from(config, _PREFIXES))),
    )


def prefix_bit(address: bytes) -> int:
    """The bit of an address (16 bytes, IPv4 as v4-mapped) in `Bounds.prefixes`, as in `bpf/lib/lookup.h`."""
    if address[:12] == V4_MAPPED_PREFIX:
        prefix = address[12] << 8 | address[13]
    else:
        first, second = _HALF.unpack_from(address)
        prefix = (first * 0x85EBCA6B & 0xFFFFFFFF) ^ second
    return (prefix * 0x9E3779B1 & 0xFFFFFFFF) >> 23


def service_bounds(keys: Iterable[bytes]) -> tuple[Range, Range]:
    """(IPv6, IPv4) bounds of entries of `service_addresses`, given by their keys."""
    v6_low, v6_high = nothing(V6_BITS)
    v4_low, v4_high = nothing(V4_BITS)
    for key in keys:
        prefix = int.from_bytes(key[:4], sys.byteorder)
        if prefix >= 96 and key[4:16] == V4_MAPPED_PREFIX:
            low = int.from_bytes(key[16:], "big")
            v4_low = min(v4_low, low)
            v4_high = max(v4_high, low | (1 << 128 - prefix) - 1)
            continue
        low = int.from_bytes(key[4:12], "big")
        v6_low = min(v6_low, low)
        v6_high = max(v6_high, low | (1 << 64 - prefix) - 1 if prefix < 64 else low)
        if prefix < 96 and covers_mapped(key[4:], prefix):
            v4_low, v4_high = 0, (1 << V4_BITS) - 1
    return Range(v6_low, v6_high), Range(v4_low, v4_high)


def covers_mapped(address: bytes, prefix: int) -> bool:
    """Whether IPv4 addresses, being v4-mapped, are in a network."""
    shift = 128 - prefix
    mapped = int.from_bytes(V4_MAPPED_PREFIX + bytes(4), "big")
    return int.from_bytes(address, "big") >> shift == mapped >> shift
