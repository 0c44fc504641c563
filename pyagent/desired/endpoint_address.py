"""Which addresses an endpoint may have, and their bytes."""

from __future__ import annotations

from functools import lru_cache

from pyagent.model.address import (
    V4_MAPPED_PREFIX,
    Family,
    family_of,
    is_link_local,
    is_loopback,
    is_multicast,
    is_unspecified,
    parse_address,
)
from pyagent.model.failures import InvalidField

_OCTET = {str(value): value for value in range(256)}
_LAST_OCTET = {text: bytes((value,)) for text, value in _OCTET.items()}
_HARMLESS_FIRST_OCTET = {
    text: value for text, value in _OCTET.items() if 0 < value < 224 and value not in (127, 169)
}


def plain_ipv4(text: str) -> bytes | None:
    """The 16 bytes of an ordinary IPv4 address; None if the text or what it means needs a closer look."""
    network, _, host = text.rpartition(".")
    try:
        return _plain_network(network) + _LAST_OCTET[host]
    except (ValueError, KeyError):
        return None


@lru_cache(8192)
def _plain_network(text: str) -> bytes:
    """The first 15 bytes; a node's pods share them."""
    a, b, c = text.split(".")
    return V4_MAPPED_PREFIX + bytes((_HARMLESS_FIRST_OCTET[a], _OCTET[b], _OCTET[c]))


def endpoint_address(text: str, family: Family) -> bytes:
    """The 16 bytes of an endpoint's address.

    Addresses that mean something else on every host are refused: a Service must not be a way to what
    listens on the loopback or link-local addresses of nodes.

    Raises:
        InvalidField: not an address, one of the other family, or one that no endpoint may have.
    """
    address = plain_ipv4(text) or parse_address(text)
    reason = _why_no_endpoint(address)
    if reason:
        raise InvalidField(f"{reason}, which cannot be an endpoint; the endpoint is left out", text)
    if family_of(address) is not family:
        raise InvalidField(
            f"not {family.label}, as addressType says; move it to a slice of its own type", text
        )
    return address


def _why_no_endpoint(address: bytes) -> str:
    if is_loopback(address):
        return "a loopback address"
    if is_link_local(address):
        return "a link-local address"
    if is_multicast(address):
        return "a multicast address"
    if is_unspecified(address):
        return "the unspecified address"
    return ""
