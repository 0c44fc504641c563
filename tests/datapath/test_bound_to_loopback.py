"""Sockets bound to loopback: the kernel lets them reach this host alone, so we send them nowhere else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from pyagent.model.outcome import Outcome
from tests.datapath.ground import Reply, endpoint_slice, service
from tests.datapath.ground.asking import udp_reply_on
from tests.datapath.ground.dialling import WAYS, Way, ask_on, make_socket, refusal
from tests.datapath.ground.hooks import Hooks
from tests.datapath.ground.steps import in_steps

pytestmark = pytest.mark.kernel

CLUSTER_IPS = ["10.96.5.1", "fd44:10:96::5:1"]


def web(hooks: Hooks, *names: str, port: int = 8080, **spec: Any) -> list[dict[str, Any]]:
    pods = [hooks.cluster.node if name == "node" else hooks.cluster.server(name) for name in names]
    targets = [("t", port, "TCP"), ("u", port, "UDP")]
    return [
        service("web", CLUSTER_IPS, [("t", 80, "TCP"), ("u", 80, "UDP")], **spec),
        *(
            endpoint_slice("web", [pod.address(family)], targets, suffix=f"{pod.name}-{family}")
            for pod in pods
            for family in (4, 6)
        ),
    ]


def bound_socket(way: Way) -> socket.socket:
    made = make_socket(way)
    made.bind((way.text("127.0.0.1", "::1"), 0))
    return made


def ask_bound(way: Way) -> Reply | str:
    with closing(bound_socket(way)) as made:
        return ask_on(made, way, way.text(*CLUSTER_IPS), 80)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_without_an_endpoint_on_the_host_the_call_goes_on_as_it_was(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, "a", "b"))
    got = hooks.measure(lambda: ask_bound(way), hooks.client.of(hooks.cluster.node))
    assert got.answer in ("ENETUNREACH", "EINVAL"), "the kernel's own word about the Service's address"
    assert got.outcomes == {Outcome.PASSED_BOUND_TO_LOOPBACK: 1}
    assert got.chosen == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_endpoint_on_the_host_is_preferred(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, "a", "b", "node"))
    there = (way.text(*CLUSTER_IPS), 80)

    def ask() -> set[tuple[str, tuple[str, int]]]:
        answers = [ask_bound(way) for _ in range(8)]
        return {
            (answer.pod, answer.peer) if isinstance(answer, Reply) else (answer, ("", 0))
            for answer in answers
        }

    got = hooks.measure(ask, hooks.client.of(hooks.cluster.node))
    assert got.answer == {("node", there)}
    assert got.outcomes[Outcome.TRANSLATED] == 8


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_refusals_are_the_same_for_them(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks))
    got = hooks.measure(lambda: ask_bound(way), hooks.client.of(hooks.cluster.node))
    assert got.answer == refusal()
    assert got.outcomes == {Outcome.REFUSED_NO_ENDPOINTS: 1}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_their_client_keeps_its_affinity(hooks: Hooks, way: Way) -> None:
    """Where they must go says nothing about where the client's other sockets belong."""
    hooks.serve(web(hooks, "a", sessionAffinity="ClientIP"))
    client = hooks.client.of(hooks.cluster.node)

    def ask_free() -> str:
        with closing(make_socket(way)) as made:
            answer = ask_on(made, way, way.text(*CLUSTER_IPS), 80)
        return answer.pod if isinstance(answer, Reply) else answer

    assert client(ask_free) == "a"
    hooks.serve(web(hooks, "a", "b", "node", sessionAffinity="ClientIP"))
    got = hooks.measure(lambda: ask_bound(way), client)
    assert isinstance(got.answer, Reply)
    assert got.answer.pod == "node"
    assert Outcome.TRANSLATED_BY_AFFINITY not in got.outcomes
    assert client(lambda: {ask_free() for _ in range(6)}) == {"a"}


@pytest.mark.parametrize("family", [4, 6, 46])
def test_a_datagram_socket_stays_on_its_endpoint_of_the_host(hooks: Hooks, family: int) -> None:
    """Another one comes, and stands before it in the set."""
    way = Way("datagram", family)
    there = (way.text(*CLUSTER_IPS), 80)
    node, a = hooks.cluster.node, hooks.cluster.server("a")
    Endpoint = tuple[str, str, int]
    pod: Endpoint = (a.ipv4, a.ipv6, 8080)
    one, two = ((node.ipv4, node.ipv6, port) for port in (8080, 8081))

    def served(*endpoints: Endpoint) -> list[dict[str, Any]]:
        return [
            service("web", CLUSTER_IPS, [("u", 80, "UDP")]),
            *(
                endpoint_slice(
                    "web", [address], [("u", port, "UDP")], suffix=f"{address.replace(':', '-')}-{port}"
                )
                for *addresses, port in endpoints
                for address in addresses
            ),
        ]

    def ask() -> Iterator[tuple[int, tuple[str, int]]]:
        with closing(bound_socket(way)) as made:
            while True:
                reply = udp_reply_on(made, there)
                yield reply.server[1], reply.peer

    with in_steps(hooks.client.of(node), ask) as client:
        seen = []
        for state in (served(pod, one), served(two, one), served(two), served(two, pod)):
            hooks.serve(state)
            seen.append(client.next())
    assert seen == [(port, there) for port in (8080, 8080, 8081, 8081)]


def test_several_endpoints_of_the_host_share_the_work(hooks: Hooks) -> None:
    way = Way("tcp", 4)
    objects = web(hooks, "a", "node")
    node = hooks.cluster.node
    objects.append(endpoint_slice("web", [node.ipv4], [("t", 8081, "TCP")], suffix="second"))
    hooks.serve(objects)

    def ask() -> set[int | str]:
        answers = [ask_bound(way) for _ in range(60)]
        return {answer.server[1] if isinstance(answer, Reply) else answer for answer in answers}

    assert hooks.client.of(node)(ask) == {8080, 8081}
