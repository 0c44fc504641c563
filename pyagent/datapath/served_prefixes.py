"""Which prefixes have a frontend or a service address in them: what a hook asks first of a dialled address.

IPv4 /16 and IPv6 /64: coarse enough for few bits, fine enough to tell where pods are from where Services are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pyagent.datapath.bounds import V6_BITS, covers_mapped, prefix_bit
from pyagent.datapath.encoded import is_node_port
from pyagent.datapath.layout import SERVED_PREFIX_WORDS
from pyagent.model.address import V4_MAPPED_PREFIX

ALL_BITS = (1 << SERVED_PREFIX_WORDS * 64) - 1
EVERYWHERE = (b"",)
CUT = 14  # bytes of an address, enough to tell its prefix
V4_PREFIX = 96 + 16
MANY = 8  # a range that is that many bits shorter than a prefix has most of ALL_BITS


class ServedPrefixes:
    """Counts what lies in each prefix."""

    def __init__(self) -> None:
        self._uses: dict[bytes, int] = {}
        self._bits: int | None = 0

    @property
    def bits(self) -> int:
        """As `Bounds.prefixes`."""
        if self._bits is None:
            self._bits = 0
            for prefix in self._uses:
                self._bits |= 1 << prefix_bit(prefix) if prefix else ALL_BITS
        return self._bits

    def add(self, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            uses = self._uses.get(prefix, 0)
            self._uses[prefix] = uses + 1
            if not uses:
                self._bits = None

    def remove(self, prefixes: Iterable[bytes]) -> None:
        for prefix in prefixes:
            self._uses[prefix] -= 1
            if not self._uses[prefix]:
                del self._uses[prefix]
                self._bits = None


def prefixes_of_frontend(key: bytes) -> tuple[bytes, ...]:
    """Of a key of `frontends`; nodePorts are found by their port."""
    return () if is_node_port(key) else (key[:CUT],)


def prefixes_of_rule(key: bytes) -> tuple[bytes, ...]:
    """Of a key of `service_addresses`: one, or those of a whole range."""
    length, address = int.from_bytes(key[:4], sys.byteorder), key[4:]
    ipv4 = length >= 96 and address[:12] == V4_MAPPED_PREFIX
    spare = max(0, (V4_PREFIX if ipv4 else V6_BITS) - length)
    if spare >= MANY or (length < 96 and covers_mapped(address, length)):
        return EVERYWHERE
    end = 14 if ipv4 else 8
    low = int.from_bytes(address[end - 2 : end], "big") >> spare << spare
    return tuple(
        address[: end - 2] + (low | i).to_bytes(2, "big") + address[end:CUT] for i in range(1 << spare)
    )
