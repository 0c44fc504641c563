"""System calls beside the plain ones: which of them are translated, and what a socket remembers."""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyagent.demo.links import Attachment
from pyagent.demo.namespaces import attach_pods
from pyagent.model.outcome import Outcome
from tests.datapath.ground import Reply, endpoint_slice, service, service_cidr
from tests.datapath.ground.asking import ASK_SECONDS, tcp_reply_on, udp_reply_on
from tests.datapath.ground.cluster import NODE_NETWORK, InClient
from tests.datapath.ground.dialling import (
    CONNECTING,
    WAYS,
    Way,
    ask_on,
    connect_ipv4_on,
    disconnect,
    errno_of,
    make_socket,
    refusal,
    send_ipv4_on,
)
from tests.datapath.ground.hooks import Hooks

pytestmark = pytest.mark.kernel

WEB, DNS, EMPTY = 1, 2, 3
BOTH = [("t", 80, "TCP"), ("u", 80, "UDP")]
IPPROTO_MPTCP, IPPROTO_SCTP = 262, 132
UDP = Way("udp", 4)


def both(number: int) -> list[str]:
    return [f"10.96.1.{number}", f"fd44:10:96::1:{number}"]


def address_of(way: Way, number: int) -> str:
    return way.text(*both(number))


@pytest.fixture(scope="module", autouse=True)
def _served(hooks: Hooks) -> Iterator[None]:
    a, b = hooks.cluster.server("a"), hooks.cluster.server("b")
    targets = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
    hooks.serve(
        [
            service_cidr("10.96.0.0/16", "fd44:10:96::/112"),
            service("web", both(WEB), BOTH),
            service("dns", both(DNS), BOTH),
            service("empty", both(EMPTY), BOTH),
            *(endpoint_slice("web", [a.address(family)], targets) for family in (4, 6)),
            *(endpoint_slice("dns", [b.address(family)], targets) for family in (4, 6)),
        ]
    )
    yield
    hooks.serve([])


# --- TCP


@pytest.mark.parametrize("family", [4, 6, 46])
def test_data_sent_while_connecting_reaches_a_backend(hooks: Hooks, family: int) -> None:
    way = Way("tcp", family)
    frontend = (address_of(way, WEB), 80)

    def fast_open() -> tuple[str, str, tuple[str, int]]:
        with closing(make_socket(way)) as made:
            made.settimeout(None)
            made.sendto(b"early\n", socket.MSG_FASTOPEN, frontend)
            said = json.loads(made.recv(4096))
            return said["pod"], said["text"], made.getpeername()[:2]

    for _ in range(2):  # the first asks for the cookie, the second sends it with the data
        got = hooks.measure(fast_open)
        assert got.answer == ("a", "early", frontend)
        assert got.outcomes == {Outcome.TRANSLATED: 1, Outcome.PEER_TRANSLATED: 1}


def test_data_sent_while_connecting_to_nobody_is_refused(hooks: Hooks) -> None:
    def fast_open() -> str:
        with closing(make_socket(Way("tcp", 4))) as made:
            return errno_of(made.sendto, b"early\n", socket.MSG_FASTOPEN, (both(EMPTY)[0], 80))

    assert hooks.client(fast_open) == refusal()


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_non_blocking_connect_chooses_once(hooks: Hooks, family: int) -> None:
    way = Way("tcp", family)
    frontend = (address_of(way, WEB), 80)

    def connect() -> tuple[str, str, str, Reply]:
        with closing(make_socket(way)) as made:
            made.setblocking(False)
            first = errno_of(made.connect, frontend)
            again = errno_of(made.connect, frontend)
            select.select([], [made], [], ASK_SECONDS)
            done = errno_of(made.connect, frontend)
            made.settimeout(ASK_SECONDS)
            return first, again, done, tcp_reply_on(made)

    got = hooks.measure(connect)
    first, again, done, reply = got.answer
    assert first == "EINPROGRESS"
    assert again in ("EALREADY", "")  # the other end may be that quick
    assert done == ("EISCONN" if again == "" else "")
    assert (reply.pod, reply.peer) == ("a", frontend)
    assert got.outcomes[Outcome.TRANSLATED] == 1
    assert sum(got.chosen.values()) == 1


def test_a_non_blocking_connect_to_nobody_is_refused_at_once(hooks: Hooks) -> None:
    def connect() -> str:
        with closing(make_socket(Way("tcp", 4))) as made:
            made.setblocking(False)
            return errno_of(made.connect, (both(EMPTY)[0], 80))

    assert hooks.client(connect) == refusal()


def test_a_refused_socket_may_try_another_service(hooks: Hooks) -> None:
    def connect() -> tuple[str, str]:
        with closing(make_socket(Way("tcp", 4))) as made:
            refused = errno_of(made.connect, (both(EMPTY)[0], 80))
            made.connect((both(WEB)[0], 80))
            return refused, tcp_reply_on(made).pod

    assert hooks.client(connect) == (refusal(), "a")


@pytest.mark.parametrize("way", CONNECTING, ids=str)
def test_a_source_port_that_the_client_chose_stays(hooks: Hooks, way: Way) -> None:
    def connect() -> tuple[int, Reply | str]:
        with closing(make_socket(way)) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(("", 4321))
            return made.getsockname()[1], ask_on(made, way, address_of(way, WEB), 80)

    port, reply = hooks.client(connect)
    assert isinstance(reply, Reply)
    assert (port, reply.seen_client[1]) == (4321, 4321)


def test_one_source_port_cannot_reach_one_backend_through_two_services(hooks: Hooks) -> None:
    """Both connections would be the same to the kernel: same addresses, same ports."""

    def connect() -> str:
        with closing(make_socket(Way("tcp", 4))) as one, closing(make_socket(Way("tcp", 4))) as two:
            for made in (one, two):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                made.bind(("", 4322))
            one.connect((both(WEB)[0], 80))
            return errno_of(two.connect, (hooks.cluster.server("a").ipv4, 8080))

    assert hooks.client(connect) == "EADDRNOTAVAIL"


def test_a_server_sees_its_clients_as_they_are(hooks: Hooks) -> None:
    """accept() and getpeername() of accepted sockets run a hook, and are left alone."""

    def serve_and_dial() -> tuple[tuple[str, int], tuple[str, int], tuple[str, int]]:
        with socket.create_server(("127.0.0.1", 0)) as listening, closing(socket.socket()) as client:
            client.connect(listening.getsockname())
            accepted, peer = listening.accept()
            with closing(accepted):
                return client.getsockname(), peer, accepted.getpeername()

    got = hooks.measure(serve_and_dial)
    assert len(set(got.answer)) == 1
    assert got.outcomes == {}


def test_a_server_of_datagrams_sees_its_clients_as_they_are(hooks: Hooks) -> None:
    def serve_and_send() -> bool:
        with (
            closing(socket.socket(type=socket.SOCK_DGRAM)) as server,
            closing(socket.socket(type=socket.SOCK_DGRAM)) as client,
        ):
            server.bind(("127.0.0.1", 0))
            server.settimeout(ASK_SECONDS)
            client.sendto(b"x", server.getsockname())
            return bool(server.recvfrom(10)[1][1] == client.getsockname()[1])

    got = hooks.measure(serve_and_send)
    assert got.answer is True
    assert got.outcomes == {}


def test_multipath_tcp_is_translated(hooks: Hooks) -> None:
    """Its getpeername() runs on another socket than its connect() and tells the backend; see the docs."""

    def connect() -> tuple[str, str] | str:
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        except OSError as error:
            return f"no MPTCP here: {error}"
        with closing(made):
            made.settimeout(ASK_SECONDS)
            made.connect((both(WEB)[0], 80))
            reply = tcp_reply_on(made)
            return reply.pod, reply.peer[0]

    answer = hooks.client(connect)
    if isinstance(answer, str):
        pytest.skip(answer)
    assert answer[0] == "a"
    assert answer[1] in (both(WEB)[0], hooks.cluster.server("a").ipv4)


def test_sctp_is_left_alone(hooks: Hooks) -> None:
    def connect() -> str:
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
        except OSError as error:
            return f"no SCTP here: {error}"
        with closing(made):
            made.settimeout(ASK_SECONDS)
            return errno_of(made.connect, (both(EMPTY)[0], 80))

    got = hooks.measure(connect)
    if str(got.answer).startswith("no SCTP"):
        pytest.skip(str(got.answer))
    assert got.answer in ("ENETUNREACH", "timeout"), "the kernel's own word, which differs"
    assert got.outcomes == {}


# --- UDP: a socket that dials again


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_connected_udp_socket_may_connect_elsewhere(hooks: Hooks, family: int) -> None:
    way = Way("udp", family)
    c = hooks.cluster.server("c")
    direct = way.text(c.ipv4, c.ipv6)

    def connect() -> list[Reply | str]:
        with closing(make_socket(way)) as made:
            return [
                ask_on(made, way, address_of(way, WEB), 80),
                ask_on(made, way, address_of(way, DNS), 80),
                ask_on(made, way, direct, 8080),
                ask_on(made, way, address_of(way, EMPTY), 80),
                ask_on(made, way, address_of(way, WEB), 80),
            ]

    answers = hooks.client(connect)
    seen = [answer if isinstance(answer, str) else (answer.pod, *answer.peer) for answer in answers]
    web, dns = (address_of(way, WEB), 80), (address_of(way, DNS), 80)
    assert seen == [("a", *web), ("b", *dns), ("c", direct, 8080), refusal(), ("a", *web)]


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_direct_connect_to_the_same_backend_shows_the_backend(hooks: Hooks, family: int) -> None:
    way = Way("udp", family)
    a = hooks.cluster.server("a")
    backend = way.text(a.ipv4, a.ipv6)

    def connect() -> list[tuple[str, int]]:
        seen = []
        with closing(make_socket(way)) as made:
            for dissolve in (False, True):
                made.connect((address_of(way, WEB), 80))
                seen.append(made.getpeername()[:2])
                if dissolve:
                    disconnect(made)
                    assert errno_of(made.getpeername) == "ENOTCONN"
                made.connect((backend, 8080))
                seen.append(made.getpeername()[:2])
                made.send(b"hello")
                seen.append(made.recvfrom(65536)[1][:2])
        return seen

    direct = (backend, 8080)
    assert hooks.client(connect) == [(address_of(way, WEB), 80), direct, direct] * 2


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_dissolved_socket_sends_to_services_like_a_new_one(hooks: Hooks, family: int) -> None:
    way = Way("udp", family)
    # An IPv6 socket goes on dropping what is not from its old peer: udp_disconnect() leaves sk_v6_daddr.
    numbers = (WEB,) if family == 6 else (WEB, DNS)

    def connect() -> list[tuple[str, tuple[str, int]]]:
        with closing(make_socket(way)) as made:
            made.connect((address_of(way, WEB), 80))
            disconnect(made)
            return [
                (reply.pod, reply.peer)
                for reply in (udp_reply_on(made, (address_of(way, number), 80)) for number in numbers)
            ]

    assert hooks.client(connect) == [
        ({WEB: "a", DNS: "b"}[number], (address_of(way, number), 80)) for number in numbers
    ]


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_connected_udp_socket_may_send_to_another_service(hooks: Hooks, family: int) -> None:
    """Only its own peer may answer it: the kernel drops the rest, with and without us."""
    way = Way("udp", family)

    def send() -> tuple[str, tuple[str, int]]:
        with closing(make_socket(way)) as made:
            made.connect((address_of(way, WEB), 80))
            made.sendto(b"elsewhere", (address_of(way, DNS), 80))
            made.send(b"hello")
            answer, source = made.recvfrom(65536)
            assert made.getpeername()[:2] == (address_of(way, WEB), 80)
            return json.loads(answer)["pod"], source[:2]

    got = hooks.measure(send)
    assert got.answer == ("a", (address_of(way, WEB), 80))
    assert sum(got.chosen.values()) == 2


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_connected_udp_socket_may_name_its_own_service(hooks: Hooks, family: int) -> None:
    way = Way("udp", family)

    def send() -> tuple[str, tuple[str, int]]:
        with closing(make_socket(way)) as made:
            made.connect((address_of(way, WEB), 80))
            reply = udp_reply_on(made, (address_of(way, WEB), 80))
            return reply.pod, reply.peer

    assert hooks.client(send) == ("a", (address_of(way, WEB), 80))


def test_a_datagram_to_nobody_is_refused_and_the_socket_goes_on(hooks: Hooks) -> None:
    def send() -> tuple[str, str]:
        with closing(make_socket(Way("datagram", 4))) as made:
            refused = errno_of(made.sendto, b"x", (both(EMPTY)[0], 80))
            return refused, udp_reply_on(made, (both(WEB)[0], 80)).pod

    assert hooks.client(send) == (refusal(), "a")


# --- families that do not match


def test_an_ipv4_address_on_an_ipv6_socket(hooks: Hooks) -> None:
    """connect() and sendto() take it; what comes back is told as v4-mapped."""
    mapped = (f"::ffff:{both(WEB)[0]}", 80)

    def dial() -> list[tuple[str, tuple[str, int]]]:
        seen = []
        for connects in (True, False):
            with closing(make_socket(Way("udp", 46))) as made:
                if connects:
                    connect_ipv4_on(made, both(WEB)[0], 80)
                    made.send(b"hello")
                    assert made.getpeername()[:2] == mapped
                else:
                    send_ipv4_on(made, b"hello", both(WEB)[0], 80)
                answer, source = made.recvfrom(65536)
                seen.append((json.loads(answer)["pod"], source[:2]))
        return seen

    got = hooks.measure(dial)
    assert got.answer == [("a", mapped)] * 2
    assert got.outcomes[Outcome.TRANSLATED] == 2


def test_a_pod_without_ipv6_is_served_over_ipv4(hooks: Hooks) -> None:
    """With IPv6 switched off in a namespace its sockets still exist, and mapped addresses still work."""
    netns = hooks.cluster.sandbox.new_namespace("ipv4-only")
    attach_pods(
        hooks.cluster.node.netns, [Attachment("ipv4-only", netns, ("10.244.1.30/16",), NODE_NETWORK[:1])]
    )

    def dial() -> list[str]:
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        answers = []
        for way in (Way("tcp", 6), Way("tcp", 46), Way("tcp", 4)):
            with closing(make_socket(way)) as made:
                answer = ask_on(made, way, address_of(way, WEB), 80)
                answers.append(answer.pod if isinstance(answer, Reply) else answer)
        return answers

    ipv6, mapped, ipv4 = InClient(netns, hooks.cgroup)(dial)
    assert ipv6 in ("EADDRNOTAVAIL", "ENETUNREACH")
    assert (mapped, ipv4) == ("a", "a")


# --- the error queue


def test_the_error_queue_tells_the_backend(hooks: Hooks) -> None:
    """No hook runs there: what ICMP says about a datagram names the address that it was sent to."""
    a = hooks.cluster.server("a")
    hooks.serve(
        [
            service("shut", both(9), [("u", 80, "UDP")]),
            endpoint_slice("shut", [a.ipv4], [("u", 9, "UDP")]),
        ]
    )
    ip_recverr, msg_errqueue = 11, 0x2000

    def send() -> tuple[str, int, str]:
        with closing(make_socket(Way("datagram", 4))) as made:
            made.setsockopt(socket.IPPROTO_IP, ip_recverr, 1)
            made.sendto(b"x", (both(9)[0], 80))
            select.select([], [], [made], ASK_SECONDS)
            deadline = time.monotonic() + ASK_SECONDS
            while True:
                try:
                    _data, control, _flags, target = made.recvmsg(64, 512, msg_errqueue)
                    break
                except BlockingIOError:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            number = struct.unpack_from("=I", control[0][2])[0]
            return target[0], target[1], errno.errorcode[number]

    try:
        assert hooks.client(send) == (a.ipv4, 9, "ECONNREFUSED")
    finally:
        hooks.serve([])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_sockets_outside_the_cgroup_are_untouched(hooks: Hooks, way: Way) -> None:
    def dial() -> Reply | str:
        with closing(make_socket(way)) as made:
            return ask_on(made, way, address_of(way, WEB), 80)

    got = hooks.measure(dial, hooks.client.unhooked)
    assert got.answer == "ENETUNREACH"
    assert got.outcomes == {}
