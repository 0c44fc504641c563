"""What the kernel would answer, and the bytes of the maps read back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath import decoded
from pyagent.datapath.bounds import NOTHING, Range, decode_bounds, service_bounds
from pyagent.datapath.encoded import (
    name_key,
    node_name,
    node_port_frontend_key,
    padded_name,
    service_address_key,
    service_port_name,
)
from pyagent.datapath.evaluate import Answer, evaluate
from pyagent.datapath.layout import CONFIG, NameKind, NodeId, frontend_word
from pyagent.model.address import Protocol, parse_address, parse_network
from pyagent.model.outcome import Outcome
from pyagent.model.service import ANY_OTHER_NODE, CLUSTER_SET, AddressRule, View
from tests.unit.datapath_plan.desires import Desired, backend, dialled, node_port, port_key, service_port
from tests.unit.datapath_plan.node import Node

A = port_key("a")


@pytest.fixture
def node() -> Node:
    node = Node([])
    desired = Desired()
    desired.add(
        service_port(A, {CLUSTER_SET: [backend("10.8.0.1", node="n7"), backend("10.8.0.2")]}),
        dialled("10.96.0.1"),
        node_port(30001),
        node_port(30002, ANY_OTHER_NODE),
    )
    desired.service_addresses = {
        parse_network("10.96.0.1/32"): AddressRule.REFUSE_UNDEFINED_PORT,
        parse_network("10.96.0.0/12"): AddressRule.REFUSE_UNALLOCATED,
        parse_network("10.96.0.9/32"): AddressRule.PASS,
    }
    desired.node_addresses = {
        parse_address("192.168.0.1"): "",
        parse_address("192.168.0.2"): "n1",
        parse_address("127.0.0.1"): "",
    }
    node.change(desired.full(), complete=True)
    return node


def ask(node: Node, address: str, port: int, protocol: int = Protocol.TCP, inside: bool = True) -> Answer:
    return evaluate(node.maps.raw, parse_address(address), port, protocol, in_node_namespace=inside)


@pytest.mark.parametrize(
    ("address", "port", "outcome"),
    [
        ("10.96.0.1", 80, Outcome.TRANSLATED),
        ("10.96.0.1", 81, Outcome.REFUSED_UNDEFINED_PORT),
        ("10.96.0.2", 80, Outcome.REFUSED_UNALLOCATED_ADDRESS),
        ("10.96.0.9", 80, Outcome.PASSED_OTHER_PROXY),
        ("192.168.0.1", 30001, Outcome.TRANSLATED),
        ("192.168.0.1", 30002, Outcome.NOT_A_SERVICE),
        ("192.168.0.2", 30001, Outcome.NOT_A_SERVICE),
        ("192.168.0.2", 30002, Outcome.TRANSLATED),
        ("192.168.0.3", 30001, Outcome.NOT_A_SERVICE),
        ("127.0.0.1", 30001, Outcome.TRANSLATED),
        ("127.8.0.1", 30001, Outcome.TRANSLATED),
        ("8.8.8.8", 53, Outcome.NOT_A_SERVICE),
        ("2001:db8::1", 80, Outcome.NOT_A_SERVICE),
        ("192.0.0.8", 1, Outcome.PROBED),
    ],
)
def test_a_dial_is_answered(node: Node, address: str, port: int, outcome: Outcome) -> None:
    assert ask(node, address, port).outcome is outcome


def test_loopback_is_the_nodes_only_in_its_own_namespace(node: Node) -> None:
    assert ask(node, "127.0.0.1", 30001, inside=False).outcome is Outcome.NOT_A_SERVICE


def test_loopback_answers_only_where_the_operator_wants_it(node: Node) -> None:
    """As the kernel has it with `--iptables-localhost-nodeports=false`, or ranges without loopback."""
    del node.maps.hashes["node_addresses"][parse_address("127.0.0.1")]
    assert ask(node, "127.0.0.1", 30001).outcome is Outcome.NOT_A_SERVICE
    assert ask(node, "192.168.0.1", 30001).outcome is Outcome.TRANSLATED


def test_other_protocols_pass(node: Node) -> None:
    assert ask(node, "10.96.0.1", 80, Protocol.SCTP).outcome is Outcome.NOT_A_SERVICE


def test_an_answer_names_candidates_and_their_owner(node: Node) -> None:
    answer = ask(node, "10.96.0.1", 80)
    assert [(c.address, c.port, c.matches) for c in answer.candidates] == [
        (parse_address("10.8.0.1"), 8080, True),
        (parse_address("10.8.0.2"), 8080, True),
    ]
    assert answer.candidates[0].node_id == node.held.nodes["n7"]
    assert answer.service_port == node.held.service_ports[A].identifier
    assert ask(node, "10.96.0.77", 80).rule == parse_network("10.96.0.0/12")


def test_a_word_with_another_keys_tag_is_refused(node: Node) -> None:
    entries = node.maps.hashes["frontends"]
    key = next(k for k in entries if k[:16] == parse_address("10.96.0.1"))
    entries[key] = struct.pack("=Q", frontend_word(1, key) ^ 1)
    assert ask(node, "10.96.0.1", 80).outcome is Outcome.REFUSED_UNSTABLE


def test_a_slot_whose_backend_has_another_incarnation_is_marked(node: Node) -> None:
    node.maps.arrays["backends"][32 + 20] += 1
    assert [c.matches for c in ask(node, "10.96.0.1", 80).candidates] == [False, True]


def test_frontends_and_sets_read_back(node: Node) -> None:
    raw = node.maps.raw
    key = node_port_frontend_key(4, NodeId.ANY_OTHER, 30002, Protocol.TCP)
    frontend = decoded.decode_frontend(key, raw.frontends[key])
    assert frontend is not None
    assert (frontend.family, frontend.node_id, frontend.port, frontend.tag_matches) == (
        4,
        NodeId.ANY_OTHER,
        30002,
        True,
    )
    found = decoded.decode_set(raw.sets, raw.slots, frontend.set_id)
    assert found is not None
    assert (found.header.view, found.generation, found.loopback_slot) == (View.CLUSTER, 1, None)
    first = decoded.decode_backend(raw.backends, found.backend_words[0] >> 32)
    assert first is not None
    assert (first.address, first.port, first.state) == (parse_address("10.8.0.1"), 8080, 3)


def test_what_makes_no_sense_decodes_to_none(node: Node) -> None:
    raw = node.maps.raw
    assert decoded.decode_frontend(b"short", bytes(8)) is None
    assert decoded.decode_frontend(bytes(19) + b"\x09", bytes(8)) is None
    assert decoded.decode_set(raw.sets, raw.slots, 10_000) is None
    assert decoded.decode_backend(raw.backends, 0) is None
    assert decoded.decode_backend(raw.backends, 90) is None
    assert decoded.decode_name(b"12345678", bytes(328)) is None
    assert decoded.decode_name(name_key(NameKind.SERVICE_PORT, 1), bytes(8) + b"\xff/x") is None


def test_names_read_back() -> None:
    value = service_port_name(service_port(A, {}), 7)
    assert value is not None
    name = decoded.decode_name(name_key(NameKind.SERVICE_PORT, 3), padded_name(value))
    assert name is not None
    assert (name.service_port, name.identifier, name.incarnation) == (A, 3, 7)


@given(st.text(max_size=400), st.text(max_size=400))
def test_a_nodes_name_reads_back_or_is_refused(node_text: str, zone: str) -> None:
    value = node_name(node_text, zone, 1)
    if value is None:
        assert not node_text or "\0" in node_text or len(node_text.encode("utf-8", "replace")) >= 320
        return
    assert len(padded_name(value)) == 328
    name = decoded.decode_name(name_key(NameKind.NODE, 1), padded_name(value))
    assert name is not None
    assert name.node == node_text.encode("utf-8", "replace").decode()
    assert name.zone in ("", zone)


@pytest.mark.parametrize(
    ("networks", "v6", "v4"),
    [
        ([], NOTHING.service_ipv6, NOTHING.service_ipv4),
        (["10.96.0.0/12"], NOTHING.service_ipv6, Range(0x0A600000, 0x0A6FFFFF)),
        (["10.0.0.1/32", "10.0.0.9/32"], NOTHING.service_ipv6, Range(0x0A000001, 0x0A000009)),
        (["fd00:1::/112"], Range(0xFD00_0001_0000_0000, 0xFD00_0001_0000_0000), NOTHING.service_ipv4),
        (["fd00::/16"], Range(0xFD00_0000_0000_0000, 0xFD00_FFFF_FFFF_FFFF), NOTHING.service_ipv4),
        (["::/0"], Range(0, 2**64 - 1), Range(0, 2**32 - 1)),
    ],
)
def test_bounds_of_service_addresses(networks: list[str], v6: Range, v4: Range) -> None:
    assert service_bounds(service_address_key(parse_network(n)) for n in networks) == (v6, v4)


@given(st.lists(st.tuples(st.integers(0, 128), st.binary(min_size=16, max_size=16)), max_size=6))
def test_bounds_cover_every_address_of_every_range(entries: list[tuple[int, bytes]]) -> None:
    v6, v4 = service_bounds(struct.pack("=I", p) + _cleared(p, a) for p, a in entries)
    for prefix, address in entries:
        host = (1 << 128 - prefix) - 1
        last = (int.from_bytes(address, "big") | host).to_bytes(16, "big")
        for member in (_cleared(prefix, address), last):
            if member[:12] == bytes(10) + b"\xff\xff":
                assert int.from_bytes(member[12:], "big") in v4
            else:
                assert int.from_bytes(member[:8], "big") in v6


def test_bounds_read_back() -> None:
    bounds = NOTHING._replace(node_port=Range(30000, 32767))
    config = bytearray(CONFIG.size)
    for offset, data in bounds.encoded():
        config[offset : offset + len(data)] = data
    assert decode_bounds(config) == bounds


def _cleared(prefix: int, address: bytes) -> bytes:
    shift = 128 - prefix
    return (int.from_bytes(address, "big") >> shift << shift).to_bytes(16, "big")
