"""Addresses as every map holds them: 16 bytes, IPv4 as v4-mapped IPv6 (RFC 4291 §2.5.5.2)."""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import NamedTuple

from pyagent.model.failures import InvalidField

V4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


class Family(IntEnum):
    """Address family, valued as `ip` prints it."""

    IPV4 = 4
    IPV6 = 6

    @property
    def label(self) -> str:
        """The word Kubernetes uses: `IPv4` or `IPv6`."""
        return f"IPv{self.value}"


class Protocol(IntEnum):
    """Transport protocol, valued as in the IP header."""

    TCP = 6
    UDP = 17
    SCTP = 132


class Network(NamedTuple):
    """An address range. `prefix` counts bits of the 16-byte form, so 10.0.0.0/8 has 96 + 8."""

    address: bytes
    prefix: int

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, bytes):
            return False
        shift = 128 - self.prefix
        return int.from_bytes(address) >> shift == int.from_bytes(self.address) >> shift

    @property
    def family(self) -> Family:
        return family_of(self.address) if self.prefix >= 96 else Family.IPV6

    def __str__(self) -> str:
        bits = self.prefix - 96 if self.family is Family.IPV4 else self.prefix
        return f"{format_address(self.address)}/{bits}"


def parse_address(text: str) -> bytes:
    """The 16-byte form of an IPv4 or IPv6 address.

    Leading zeros of an IPv4 part are read as decimal, as kube-proxy does for old objects.

    Raises:
        InvalidField: the text is no address.
    """
    try:
        if ":" not in text:
            parts = text.split(".")
            if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) <= 6 for p in parts):
                raise ValueError
            return V4_MAPPED_PREFIX + bytes(int(p) for p in parts)
        parsed = ipaddress.IPv6Address(text)
        if parsed.scope_id is not None:
            raise ValueError
        return parsed.packed
    except ValueError:
        raise InvalidField("not an IP address", text) from None


def parse_network(text: str) -> Network:
    """The range of a CIDR; host bits are cleared, surrounding white space is ignored.

    Raises:
        InvalidField: the text is no CIDR.
    """
    address_text, slash, bits_text = text.strip().partition("/")
    if not (slash and bits_text.isascii() and bits_text.isdigit() and len(bits_text) <= 3):
        raise InvalidField("not a CIDR (want ADDRESS/BITS)", text)
    address = parse_address(address_text)
    is_v4 = ":" not in address_text
    bits = int(bits_text)
    if bits > (32 if is_v4 else 128):
        raise InvalidField("prefix length out of range", text)
    prefix = bits + 96 if is_v4 else bits
    shift = 128 - prefix
    cleared = (int.from_bytes(address) >> shift) << shift
    return Network(cleared.to_bytes(16), prefix)


def format_address(address: bytes) -> str:
    """Text of a 16-byte address; v4-mapped ones as dotted IPv4."""
    if address[:12] == V4_MAPPED_PREFIX:
        return ".".join(map(str, address[12:]))
    return ipaddress.IPv6Address(address).compressed


def format_endpoint(address: bytes, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    text = format_address(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def family_of(address: bytes) -> Family:
    """IPV4 for v4-mapped addresses, else IPV6."""
    return Family.IPV4 if address[:12] == V4_MAPPED_PREFIX else Family.IPV6


def is_loopback(address: bytes) -> bool:
    """127.0.0.0/8 or ::1."""
    return address[:13] == V4_MAPPED_PREFIX + b"\x7f" or address == bytes(15) + b"\x01"


def is_unspecified(address: bytes) -> bool:
    """0.0.0.0 or ::."""
    return address in (bytes(16), V4_MAPPED_PREFIX + bytes(4))


def is_link_local(address: bytes) -> bool:
    """169.254.0.0/16 or fe80::/10."""
    if family_of(address) is Family.IPV4:
        return address[12:14] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_multicast(address: bytes) -> bool:
    """224.0.0.0/4 or ff00::/8."""
    if family_of(address) is Family.IPV4:
        return 224 <= address[12] <= 239
    return address[0] == 0xFF


PROBE_ADDRESSES = (parse_address("192.0.0.8"), parse_address("100::6b75"))
"""What the agent's self-probe dials: the IPv4 dummy address (RFC 7600) and one of the discard-only prefix
(RFC 6666). No host has them, and no Service may."""
