"""Unconnected UDP sockets: they stay on their backend, and replies come from the Service."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from pyagent.datapath.layout import DATAGRAM_ORIGINS
from pyagent.model.outcome import Outcome
from tests.datapath.ground import endpoint_slice, service
from tests.datapath.ground.asking import udp_reply_on
from tests.datapath.ground.cluster import PORTS
from tests.datapath.ground.dialling import Way, errno_of, make_socket, refusal
from tests.datapath.ground.hooks import Hooks
from tests.datapath.ground.steps import in_steps

pytestmark = pytest.mark.kernel

FAMILIES = [4, 6, 46]
DNS = [("dns", 53, "UDP")]
TARGET = [("dns", 5353, "UDP")]


def both(number: int) -> list[str]:
    return [f"10.96.2.{number}", f"fd44:10:96::2:{number:x}"]


def frontend(way: Way, number: int) -> tuple[str, int]:
    return way.text(*both(number)), 53


def dns_on(hooks: Hooks, *names: str, number: int = 1, service_name: str = "dns") -> list[dict[str, Any]]:
    pods = [hooks.cluster.server(name) for name in names]
    return [
        service(service_name, both(number), DNS),
        *(endpoint_slice(service_name, [pod.address(family) for pod in pods], TARGET) for family in (4, 6)),
    ]


def pods_after_each_change(
    hooks: Hooks, way: Way, states: list[list[dict[str, Any]]]
) -> list[list[tuple[str, tuple[str, int]]]]:
    """What one socket gets from the Service, asking three times in each of the states."""

    def ask() -> Iterator[list[tuple[str, tuple[str, int]]]]:
        with closing(make_socket(way)) as made:
            while True:
                yield [told(made, frontend(way, 1)) for _ in range(3)]

    seen = []
    with in_steps(hooks.client, ask) as client:
        for state in states:
            hooks.serve(state)
            seen.append(client.next())
    return seen


def told(made: socket.socket, target: tuple[str, int]) -> tuple[str, tuple[str, int]]:
    try:
        reply = udp_reply_on(made, target)
    except OSError as error:
        name = errno.errorcode[error.errno or 0]
        return "refused" if name == refusal() else name, target
    return reply.pod, reply.peer


@pytest.mark.parametrize("family", FAMILIES)
def test_a_socket_stays_on_its_backend(hooks: Hooks, family: int) -> None:
    way = Way("datagram", family)
    hooks.serve(dns_on(hooks, "a", "b", "c"))

    def ask() -> set[tuple[str, tuple[str, int]]]:
        with closing(make_socket(way)) as made:
            replies = [udp_reply_on(made, frontend(way, 1)) for _ in range(10)]
        return {(reply.pod, reply.peer) for reply in replies}

    got = hooks.measure(ask)
    assert [peer for _, peer in got.answer] == [frontend(way, 1)]
    assert got.outcomes == {
        Outcome.TRANSLATED: 1,
        Outcome.TRANSLATED_SAME_SOCKET: 9,
        Outcome.REPLY_TRANSLATED: 10,
    }
    assert list(got.chosen.values()) == [10]


def test_sockets_spread_over_the_backends(hooks: Hooks) -> None:
    way = Way("datagram", 4)
    hooks.serve(dns_on(hooks, "a", "b", "c"))

    def ask() -> list[str]:
        pods = []
        for _ in range(60):
            with closing(make_socket(way)) as made:
                pods.append(udp_reply_on(made, frontend(way, 1)).pod)
        return pods

    pods = hooks.client(ask)
    assert set(pods) == {"a", "b", "c"}, "each is missed with a chance of 3·(2/3)^60"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_socket_leaves_a_backend_that_is_gone_and_only_then(hooks: Hooks, family: int) -> None:
    way = Way("datagram", family)
    states = [dns_on(hooks, "a"), dns_on(hooks, "b", "a", "c"), dns_on(hooks, "b"), dns_on(hooks, "c", "b")]
    there = frontend(way, 1)
    assert pods_after_each_change(hooks, way, states) == [[(pod, there)] * 3 for pod in "aabb"]


def test_a_socket_is_refused_while_nobody_is_there_and_goes_on_afterwards(hooks: Hooks) -> None:
    way = Way("datagram", 4)
    empty = [service("dns", both(1), DNS)]
    seen = pods_after_each_change(hooks, way, [dns_on(hooks, "a"), empty, dns_on(hooks, "b")])
    there = frontend(way, 1)
    assert seen == [[(pod, there)] * 3 for pod in ("a", "refused", "b")]


@pytest.mark.parametrize("family", FAMILIES)
def test_replies_of_a_backend_left_behind_still_come_from_the_service(hooks: Hooks, family: int) -> None:
    """A datagram may be under way while the Service changes."""
    way = Way("datagram", family)

    def ask() -> Iterator[list[tuple[str, int]]]:
        with closing(make_socket(way)) as made:
            made.sendto(b"first", frontend(way, 1))
            yield []
            made.sendto(b"second", frontend(way, 1))
            yield [made.recvfrom(4096)[1][:2] for _ in range(2)]

    with in_steps(hooks.client, ask) as client:
        hooks.serve(dns_on(hooks, "a"))
        client.next()
        hooks.serve(dns_on(hooks, "b"))
        assert client.next() == [frontend(way, 1)] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_one_socket_may_talk_to_more_services_than_its_record_holds(hooks: Hooks, family: int) -> None:
    """Every Service has a backend of its own here, so each reply says which one was meant."""
    way = Way("datagram", family)
    pods = [(name, port) for name in ("a", "b", "c") for port in PORTS]
    assert len(pods) > 2 * DATAGRAM_ORIGINS
    objects = []
    for number, (name, port) in enumerate(pods, 1):
        objects.append(service(f"s{number}", both(number), DNS))
        objects += [
            endpoint_slice(f"s{number}", [hooks.cluster.server(name).address(f)], [("dns", port, "UDP")])
            for f in (4, 6)
        ]
    hooks.serve(objects)
    frontends = [frontend(way, number) for number in range(1, len(pods) + 1)]

    def ask() -> list[tuple[str, int]]:
        with closing(make_socket(way)) as made:
            for target in frontends:
                made.sendto(b"x", target)
            told = [made.recvfrom(4096)[1][:2] for _ in frontends]
            # Once more, now that all but the last few are in the overflow map.
            told += [udp_reply_on(made, target).peer for target in frontends]
        return told

    got = hooks.measure(ask)
    count = len(frontends)
    assert sorted(got.answer[:count]) == sorted(frontends)
    assert got.answer[count:] == frontends
    assert got.outcomes[Outcome.REPLY_TRANSLATED] == 2 * count


@pytest.mark.parametrize("family", FAMILIES)
def test_two_services_with_one_backend_are_told_apart_in_turn(hooks: Hooks, family: int) -> None:
    """Replies carry no Service: the one that was sent to last is told. Asking in turn is always right."""
    way = Way("datagram", family)
    hooks.serve([*dns_on(hooks, "a"), *dns_on(hooks, "a", number=2, service_name="dns-too")])

    def ask() -> list[tuple[str, int]]:
        with closing(make_socket(way)) as made:
            return [udp_reply_on(made, frontend(way, number)).peer for number in (1, 2, 1, 1, 2)]

    assert hooks.client(ask) == [frontend(way, number) for number in (1, 2, 1, 1, 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_that_answers_directly_is_not_taken_for_the_service(hooks: Hooks, family: int) -> None:
    """The pod's other ports, and other pods, are what they are on a socket that also uses the Service."""
    way = Way("datagram", family)
    hooks.serve(dns_on(hooks, "a"))
    a, b = hooks.cluster.server("a"), hooks.cluster.server("b")

    def ask() -> list[tuple[str, int]]:
        with closing(make_socket(way)) as made:
            return [
                udp_reply_on(made, target).peer
                for target in (
                    frontend(way, 1),
                    (way.text(a.ipv4, a.ipv6), 8080),
                    (way.text(b.ipv4, b.ipv6), 5353),
                    frontend(way, 1),
                )
            ]

    assert hooks.client(ask) == [
        frontend(way, 1),
        (way.text(a.ipv4, a.ipv6), 8080),
        (way.text(b.ipv4, b.ipv6), 5353),
        frontend(way, 1),
    ]


def test_recvmsg_tells_the_service_too(hooks: Hooks) -> None:
    hooks.serve(dns_on(hooks, "a"))

    def ask() -> tuple[str, int]:
        with closing(make_socket(Way("datagram", 4))) as made:
            made.sendmsg([b"x"], [], 0, frontend(Way("datagram", 4), 1))
            return made.recvmsg(4096)[3]  # type: ignore[no-any-return]

    assert hooks.client(ask) == frontend(Way("datagram", 4), 1)


def test_a_service_of_tcp_alone_refuses_datagrams(hooks: Hooks) -> None:
    hooks.serve([service("web", both(3), [("http", 80, "TCP")])])

    def send() -> str:
        with closing(make_socket(Way("datagram", 4))) as made:
            return errno_of(made.sendto, b"x", (both(3)[0], 80))

    got = hooks.measure(send)
    assert got.answer == refusal()
    assert got.outcomes == {Outcome.REFUSED_UNDEFINED_PORT: 1}
