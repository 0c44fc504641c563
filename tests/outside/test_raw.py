"""Packets as they are on the wire: what is for a Service changes where it must, all else not at all."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from pyagent.demo.children import wait_until
from tests.datapath.ground.asking import ask_tcp, ask_udp
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.steps import in_steps
from tests.outside import raw
from tests.outside.lan import Host
from tests.outside.raw import ACK, FIN, MSS, NOP, RST, SYN, TCP, UDP, Seen
from tests.outside.served import NODE_PORT, SOURCE_PORTS, UDP_NODE_PORT, Served, exposed

pytestmark = pytest.mark.kernel
FAMILIES = (4, 6)
SECONDS = 8.0
SO_RCVBUFFORCE = 33


def capture(host: Host, wanted_ports: frozenset[int], quiet: float) -> Iterator[list[Seen]]:
    """First yields when it listens, then what came to any of these ports."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(raw.ETH_P_ALL)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        sock.bind(("eth0", raw.ETH_P_ALL))
        yield []
        found = []
        sock.settimeout(quiet)
        try:
            while True:
                frame, about = sock.recvfrom(1 << 16)
                seen = raw.parse(frame[14:]) if about[2] != raw.PACKET_OUTGOING else None
                if seen is not None and (seen.protocol == raw.ICMP or _is_to(seen, wanted_ports)):
                    found.append(seen)
        except TimeoutError:
            yield found


def _is_to(seen: Seen, ports: frozenset[int]) -> bool:
    return len(seen.body) < 4 or seen.ports[1] in ports


def through(
    served: Served, pod: Host, packets: list[bytes], ports: set[int], quiet: float = 1.0
) -> list[Seen]:
    """What a pod gets of packets that come to node-a from the router's side."""
    lan = served.lan
    there = lan.node_a.do(raw.address_of_link)
    with in_steps(InClient(pod.netns, None), lambda: capture(pod, frozenset(ports), quiet)) as listening:
        listening.next()
        listening.begin()
        lan.router.do(partial(raw.inject, "eth0", there, packets))
        return listening.finish()


def answers(
    served: Served, packet: bytes, protocol: int, count: int = 1, seconds: float = SECONDS
) -> list[Seen]:
    """What comes back to the router's side for the client."""
    lan = served.lan
    there = lan.node_a.do(raw.address_of_link)

    def wanted(seen: Seen) -> bool:
        return seen.protocol == protocol and seen.destination in (lan.client.ipv4, lan.client.ipv6)

    return lan.router.do(partial(raw.exchange, "eth0", there, [packet], wanted, seconds, count), seconds + 10)


def test_options_reach_the_backend_as_they_were(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node, pod = served.lan.client.ipv4, served.lan.node_a.ipv4, served.lan.a1
    options = NOP + NOP + NOP + b"\0"  # nothing that a router acts on
    body = raw.tcp(client, node, (4001, NODE_PORT), SYN, options=MSS + NOP * 4)
    told = through(served, pod, [raw.ip(client, node, TCP, body, options=options, ident=77)], {8080})
    (seen,) = [one for one in told if one.body[13] == SYN]  # the client's kernel resets what it did not begin
    assert (seen.source, seen.destination, seen.ports) == (client, pod.ipv4, (4001, 8080))
    assert seen.is_sound
    assert (seen.head[20:], seen.body[4:16], seen.body[18:]) == (options, body[4:16], body[18:])
    assert (seen.head[4:8], seen.head[8]) == (struct.pack("!HH", 77, 0), 63)


@pytest.mark.parametrize("family", FAMILIES)
def test_checksums_of_other_machines_stay_right(served: Served, family: int) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node, pod = served.lan.client.address(family), served.lan.node_a.address(family), served.lan.a1
    packets = [
        raw.ip(client, node, TCP, raw.tcp(client, node, (4002, NODE_PORT), SYN)),
        raw.ip(client, node, UDP, raw.udp(client, node, (4003, UDP_NODE_PORT), b"odd")),
    ]
    told = through(served, pod, packets, {8080, 5353})
    seen = [one for one in told if one.protocol == UDP or one.body[13] == SYN]
    assert sorted(one.ports for one in seen) == [(4002, 8080), (4003, 5353)]
    assert all(one.is_sound and one.destination == pod.address(family) for one in seen)


def test_a_datagram_without_a_checksum_gets_none(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node = served.lan.client.ipv4, served.lan.node_a.ipv4
    body = raw.udp(client, node, (4004, UDP_NODE_PORT), b"x", unsummed=True)
    told = through(served, served.lan.a1, [raw.ip(client, node, UDP, body)], {5353})
    (seen,) = [one for one in told if one.protocol == UDP]  # the client's kernel says that nobody asked
    assert seen.body[6:8] == b"\0\0"


def test_extension_headers_stay_and_do_not_hide_the_ports(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node = served.lan.client.ipv6, served.lan.node_a.ipv6
    body = raw.udp(client, node, (4005, UDP_NODE_PORT), b"x")
    padding = struct.pack("!BB6s", UDP, 0, b"\1\4\0\0\0\0")
    packet = raw.ip(client, node, 60, body, options=padding)
    (seen,) = through(served, served.lan.a1, [packet], {5353})
    assert (seen.head[40:], seen.destination, seen.is_sound) == (padding, served.lan.a1.ipv6, True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusal_is_a_sound_reset_that_fits_the_segment(served: Served, family: int) -> None:
    served.serve(exposed())
    client, node = served.lan.client.address(family), served.lan.node_a.address(family)
    body = raw.tcp(client, node, (4006, NODE_PORT), SYN, options=MSS, data=b"early")
    (seen,) = answers(served, raw.ip(client, node, TCP, body), TCP)
    sequence, acknowledged, _, flags = struct.unpack_from("!IIBB", seen.body, 4)
    assert (seen.source, seen.ports, len(seen.body)) == (node, (NODE_PORT, 4006), 20)
    assert (flags, sequence, acknowledged) == (RST | ACK, 0, 1000 + 1 + len(b"early"))
    assert seen.is_sound


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refusal_of_a_datagram_quotes_it(served: Served, family: int) -> None:
    served.serve(exposed())
    client, node = served.lan.client.address(family), served.lan.node_a.address(family)
    packet = raw.ip(client, node, UDP, raw.udp(client, node, (4007, UDP_NODE_PORT), b"x" * 100))
    (seen,) = answers(served, packet, raw.ICMP if family == 4 else raw.ICMPV6)
    assert (seen.source, seen.body[:2]) == (node, b"\3\3" if family == 4 else b"\1\4")
    assert seen.is_sound
    assert seen.body[8:] == packet[: len(seen.body) - 8]


def test_a_reset_is_never_answered_by_one(served: Served) -> None:
    served.serve(exposed())
    client, node = served.lan.client.ipv4, served.lan.node_a.ipv4
    packet = raw.ip(client, node, TCP, raw.tcp(client, node, (4008, NODE_PORT), RST))
    assert not answers(served, packet, TCP, seconds=0.5)


@pytest.mark.parametrize("words", [4, 15])
def test_a_header_of_impossible_length_gets_no_reset(served: Served, words: int) -> None:
    """What its answer would acknowledge depends on the length."""
    served.serve(exposed())
    client, node = served.lan.client.ipv4, served.lan.node_a.ipv4
    body = raw.tcp(client, node, (4012, NODE_PORT), SYN)
    packet = raw.ip(client, node, TCP, body[:12] + bytes([words << 4]) + body[13:])
    assert not answers(served, packet, TCP, seconds=0.5)


def test_a_connection_that_another_proxy_began_is_left_to_it(served: Served) -> None:
    """Here nobody knows it, so the node itself resets it; no backend sees it."""
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node = served.lan.client.ipv4, served.lan.node_a.ipv4
    packet = raw.ip(client, node, TCP, raw.tcp(client, node, (4009, NODE_PORT), ACK, data=b"x"))
    assert not through(served, served.lan.a1, [packet], {8080}, quiet=0.5)
    assert not served.flows()


@pytest.mark.parametrize("end", ["a1", "b1"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fragmented_datagrams_go_both_ways(served: Served, family: int, end: str) -> None:
    host = next(pod for pod in served.lan.pods if pod.name == end)
    served.serve(exposed((host, "node-a" if end == "a1" else "node-b")))
    text = "x" * 6000
    address = served.lan.node_a.address(family)
    reply = served.lan.client.do(partial(ask_udp, address, UDP_NODE_PORT, text))
    assert (reply.pod, reply.text, reply.peer[0]) == (end, text, address)


def test_what_makes_no_sense_is_left_to_the_kernel(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node = served.lan.client.ipv4, served.lan.node_a.ipv4
    whole = raw.tcp(client, node, (4010, NODE_PORT), SYN)
    six = raw.ip(served.lan.client.ipv6, served.lan.node_a.ipv6, 60, b"")
    packets = [
        raw.ip(client, node, TCP, whole, version_length=0x44),
        raw.ip(client, node, TCP, whole, version_length=0x4F),
        raw.ip(client, node, TCP, whole, version_length=0x55),
        raw.ip(client, node, TCP, whole, length=10),
        raw.ip(client, node, TCP, whole[:8], length=28),
        raw.ip(client, node, TCP, whole, fragment=0x0001),
        raw.ip(client, node, UDP, b"\x10\x01\x75\x65", length=24),
        raw.ip(client, node, UDP, raw.udp(client, node, (1, UDP_NODE_PORT), b"x" * 32)[:8], fragment=0x2000),
        raw.ip(client, node, raw.ICMP, b"\3\4\0\0"),
        raw.ip(client, node, raw.ICMP, b"\3\4" + bytes(6) + b"\x45" + bytes(10)),
        six,
        six[:7] + b"\x2c" + six[8:],
        six + struct.pack("!BB6x", 60, 255),
    ]
    through(served, served.lan.a1, packets, set(), quiet=0.3)
    assert served.lan.client.do(partial(ask_tcp, node, NODE_PORT)).pod == "a1"


def test_packets_that_are_for_no_service_pass_unchanged(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    chance = random.Random(8)
    client, pod = served.lan.client, served.lan.a1
    sent: dict[int, bytes] = {}
    packets = []
    for ident in range(1, 301):
        family = chance.choice(FAMILIES)
        source, destination = client.address(family), pod.address(family)
        # Also ports that a nodePort has, at an address that is none.
        ports = (10_000 + ident, chance.choice((8080, 5353, NODE_PORT, UDP_NODE_PORT, 7)))
        data = chance.randbytes(chance.randrange(0, 1200))
        if chance.random() < 0.5:
            flags = chance.choice((SYN, ACK, FIN | ACK, RST))
            body = raw.tcp(
                source, destination, ports, flags, options=NOP * chance.choice((0, 4, 8)), data=data
            )
            packet = raw.ip(source, destination, TCP, body, ident=ident)
        else:
            packet = raw.ip(source, destination, UDP, raw.udp(source, destination, ports, data), ident=ident)
            body = packet[20 if family == 4 else 40 :]
        sent[ports[0]] = body
        packets.append(packet)
    seen = through(served, pod, packets, {8080, 5353, NODE_PORT, UDP_NODE_PORT, 7})
    found = {one.ports[0]: one.body for one in seen if one.source in (client.ipv4, client.ipv6)}
    assert found == sent
    assert not served.flows()


def test_an_error_about_a_forwarded_packet_reaches_who_sent_it(served: Served) -> None:
    """A router tells the frontend that a packet was too long; the backend hears of the one that it sent."""
    served.serve(exposed((served.lan.a1, "node-a")))
    client, node, pod = served.lan.client.ipv4, served.lan.node_a.ipv4, served.lan.a1
    syn = raw.ip(client, node, TCP, raw.tcp(client, node, (4011, NODE_PORT), SYN))
    (answer,) = answers(served, syn, TCP)
    quoted = (answer.head + answer.body)[:28]
    message = struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quoted
    message = message[:2] + struct.pack("!H", raw.checksum(message)) + message[4:]
    packet = raw.ip("192.0.2.254", node, raw.ICMP, message)
    told = through(served, pod, [packet], set())
    (seen,) = [one for one in told if one.protocol == raw.ICMP]
    inner = raw.parse(seen.body[8:])
    assert inner is not None
    assert (seen.destination, seen.is_sound) == (pod.ipv4, True)
    assert (inner.source, inner.destination, inner.ports) == (pod.ipv4, client, (8080, 4011))
    assert not raw.checksum(inner.head)


def test_a_source_port_is_of_the_reserved_range_and_comes_free_again(served: Served) -> None:
    served.serve(exposed((served.lan.b1, "node-b")))
    node, client = served.lan.node_a.ipv4, served.lan.client
    ports = {client.do(partial(ask_tcp, node, NODE_PORT)).seen_client[1] for _ in range(5)}
    assert all(SOURCE_PORTS[0] <= port <= SOURCE_PORTS[1] for port in ports)

    def ended() -> bool:
        """Both ends have said so; the last word may come after the client is gone."""
        return {flow.value["seen"] & 6 for flow in served.flows() if flow.key["protocol"] == TCP} == {6}

    assert wait_until(ended, SECONDS)
