"""The first question of a hook must never deny what the maps hold."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.bounds import NOTHING, Range, prefix_bit
from pyagent.datapath.encoded import address_frontend_key, node_port_frontend_key, service_address_key
from pyagent.datapath.layout import SERVED_PREFIX_WORDS
from pyagent.datapath.served_prefixes import (
    ALL_BITS,
    ServedPrefixes,
    prefixes_of_frontend,
    prefixes_of_rule,
)
from pyagent.model.address import V4_MAPPED_PREFIX, parse_address, parse_network

ADDRESSES = st.one_of(
    st.binary(min_size=16, max_size=16), st.binary(min_size=4, max_size=4).map(V4_MAPPED_PREFIX.__add__)
)


def bits_of(*networks: str) -> int:
    prefixes = ServedPrefixes()
    for text in networks:
        prefixes.add(prefixes_of_rule(service_address_key(parse_network(text))))
    return prefixes.bits


@given(ADDRESSES)
def test_a_frontends_address_has_its_bit(address: bytes) -> None:
    prefixes = ServedPrefixes()
    prefixes.add(prefixes_of_frontend(address_frontend_key(address, 80, 6)))
    assert prefixes.bits == 1 << prefix_bit(address)
    assert NOTHING._replace(prefixes=prefixes.bits).may_serve(address, 80)


@given(st.integers(0, 128), ADDRESSES, st.binary(min_size=16, max_size=16))
def test_every_address_of_a_range_has_its_bit(length: int, base: bytes, other: bytes) -> None:
    host = (1 << 128 - length) - 1
    number = int.from_bytes(base, "big") & ~host
    key = struct.pack("=I", length) + number.to_bytes(16, "big")
    prefixes = ServedPrefixes()
    prefixes.add(prefixes_of_rule(key))
    member = number | int.from_bytes(other, "big") & host
    if length <= 96:
        mapped = int.from_bytes(V4_MAPPED_PREFIX + other[:4], "big")
        member = mapped if mapped & ~host == number else member
    for address in (number, member, number | host):
        assert prefixes.bits >> prefix_bit(address.to_bytes(16, "big")) & 1


@given(st.lists(ADDRESSES, max_size=20), st.data())
def test_what_went_leaves_nothing_behind(addresses: list[bytes], data: st.DataObject) -> None:
    prefixes, left = ServedPrefixes(), ServedPrefixes()
    stays = data.draw(st.lists(st.booleans(), min_size=len(addresses), max_size=len(addresses)))
    keys = [prefixes_of_frontend(address_frontend_key(a, 80, 6)) for a in addresses]
    for key in keys:
        prefixes.add(key)
    for key, stay in zip(keys, stays, strict=True):
        (left.add if stay else prefixes.remove)(key)
    assert prefixes.bits == left.bits


def test_a_node_port_is_found_by_its_port() -> None:
    assert prefixes_of_frontend(node_port_frontend_key(4, 0, 30001, 6)) == ()
    bounds = NOTHING._replace(node_port=Range(30000, 30100))
    assert bounds.may_serve(parse_address("192.0.2.1"), 30001)
    assert not bounds.may_serve(parse_address("192.0.2.1"), 80)


def test_pods_and_services_are_told_apart() -> None:
    services = bits_of("10.96.0.0/12", "fd00:10:96::/112")
    assert services.bit_count() <= 17
    assert not services >> prefix_bit(parse_address("10.244.3.4")) & 1
    assert not services >> prefix_bit(parse_address("fd00:10:244:1::7")) & 1


def test_far_too_wide_a_range_is_everywhere() -> None:
    assert bits_of("0.0.0.0/1") == bits_of("fd00::/16") == bits_of("::/80") == ALL_BITS
    assert ALL_BITS.bit_length() == SERVED_PREFIX_WORDS * 64
