"""The little DNS server against arbitrary bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.demo import dns
from pyagent.demo.echo import Peer

PEER = Peer("coredns-1", ("10.244.1.2", 5000), ("10.244.1.3", 53), "UDP")
APP = dns.DnsApp({"web.shop": ["10.96.0.7", "10.96.0.8", "fd00::7"]})

labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)


@given(st.integers(0, 0xFFFF), st.lists(labels, min_size=1, max_size=5).map(".".join))
def test_every_query_is_answered_with_its_id_and_the_servers_name(query_id: int, name: str) -> None:
    answer = dns.decode(APP.answer(dns.query(query_id, name), PEER))
    assert (answer.id, answer.served_by) == (query_id, "coredns-1")
    assert answer.code == (0 if name == "web.shop" else dns.NO_SUCH_NAME)


@pytest.mark.parametrize(
    ("wanted", "addresses"), [(dns.TYPE_A, ("10.96.0.7", "10.96.0.8")), (dns.TYPE_AAAA, ("fd00::7",))]
)
def test_a_name_gives_the_addresses_of_the_family_asked_for(wanted: int, addresses: tuple[str, ...]) -> None:
    assert dns.decode(APP.answer(dns.query(1, "web.shop", wanted), PEER)).addresses == addresses


@given(st.binary(max_size=80))
def test_no_datagram_stops_the_server(data: bytes) -> None:
    assert APP.answer(data, PEER)


@given(st.lists(st.integers(0, 0xFFFF), max_size=5), st.integers(0, 40))
def test_a_stream_may_be_cut_anywhere(ids: list[int], cut: int) -> None:
    stream = b"".join(dns.framed(dns.query(query_id, "web.shop")) for query_id in ids)
    first, rest, _ = APP.stream(stream[:cut], PEER)
    second, rest, _ = APP.stream(rest + stream[cut:], PEER)
    assert rest == b""
    answers, seen = first + second, []
    while answers:
        length = 2 + int.from_bytes(answers[:2])
        seen.append(dns.decode(answers[2:length]).id)
        answers = answers[length:]
    assert seen == ids
