"""nodePorts for clients of the node: which address answers from where, and what stays as it is."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import Any

import pytest

from pyagent.model.outcome import Outcome
from tests.datapath.ground import Reply, endpoint_slice, node, service
from tests.datapath.ground.dialling import WAYS, Way, ask, errno_of, make_socket, refusal
from tests.datapath.ground.hooks import NODE_NAME, Hooks

pytestmark = pytest.mark.kernel

NODE_PORT = 30080
TARGETS = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
CLUSTER_IPS = ["10.96.4.1", "fd44:10:96::4:1"]
ELSEWHERE = {"m": 20, "o": 30, "p": 40}
"""Other nodes and the last number of their addresses; p has no endpoint."""


def node_address(way: Way, number: int) -> str:
    return way.text(f"172.30.0.{number}", f"fd44:172:30::{number}")


def loopback(way: Way) -> str:
    return way.text("127.0.0.1", "::1")


def web(hooks: Hooks, places: dict[str, str], **spec: Any) -> list[dict[str, Any]]:
    """A Service with a nodePort, by server name and the node that the server is said to be on."""
    made = service("web", CLUSTER_IPS, [("t", 80, "TCP"), ("u", 80, "UDP")], **{"type": "NodePort", **spec})
    for port in made["spec"]["ports"]:
        port["nodePort"] = NODE_PORT
    slices = [
        endpoint_slice(
            "web",
            [hooks.cluster.server(name).address(family)],
            TARGETS,
            suffix=f"{name}-{family}",
            node_name=node_name,
        )
        for name, node_name in places.items()
        for family in (4, 6)
    ]
    nodes = [
        node(name, [f"172.30.0.{number}", f"fd44:172:30::{number}"])
        for name, number in {NODE_NAME: 10, **ELSEWHERE}.items()
    ]
    return [made, *slices, *nodes]


def pod(answer: Reply | str) -> str:
    return answer.pod if isinstance(answer, Reply) else answer


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_nodes_own_address_answers_from_a_pod(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))
    dialled = (node_address(way, 10), NODE_PORT)
    got = hooks.measure(lambda: ask(way, *dialled))
    assert isinstance(got.answer, Reply)
    assert (got.answer.pod, got.answer.peer) == ("a", dialled)
    assert got.outcomes[Outcome.TRANSLATED] == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_loopback_answers_in_the_nodes_own_namespace(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))
    dialled = (loopback(way), NODE_PORT)
    got = hooks.measure(lambda: ask(way, *dialled), hooks.client.of(hooks.cluster.node))
    assert isinstance(got.answer, Reply)
    assert (got.answer.pod, got.answer.peer) == ("a", dialled)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_pods_own_loopback_is_its_own(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))
    got = hooks.measure(lambda: ask(way, loopback(way), NODE_PORT))
    assert got.answer in ("ECONNREFUSED", "timeout"), "nobody listens there; a datagram just goes"
    assert got.outcomes == {}


def test_what_a_pod_serves_on_its_loopback_is_reached(hooks: Hooks) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))

    def serve_and_dial() -> tuple[str, int]:
        with socket.create_server(("127.0.0.1", NODE_PORT)), closing(make_socket(Way("tcp", 4))) as made:
            made.connect(("127.0.0.1", NODE_PORT))
            return made.getpeername()  # type: ignore[no-any-return]

    got = hooks.measure(serve_and_dial)
    assert got.answer == ("127.0.0.1", NODE_PORT)
    assert got.outcomes == {}


@pytest.mark.parametrize("family", [4, 6, 46])
@pytest.mark.parametrize("where", ["pod", "node"])
def test_the_unspecified_address_is_untouched(hooks: Hooks, family: int, where: str) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))
    way = Way("tcp", family)
    here = hooks.cluster.node if where == "node" else hooks.cluster.client
    got = hooks.measure(lambda: ask(way, way.text("0.0.0.0", "::"), NODE_PORT), hooks.client.of(here))
    assert got.answer == "ECONNREFUSED"
    assert got.outcomes == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_other_ports_of_the_node_are_untouched(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))
    got = hooks.measure(lambda: ask(way, node_address(way, 10), 8080))
    assert pod(got.answer) == "node"
    assert got.outcomes == {}


def test_a_port_between_nodeports_is_untouched(hooks: Hooks) -> None:
    objects = web(hooks, {"a": NODE_NAME})
    objects[0]["spec"]["ports"][1]["nodePort"] = NODE_PORT + 10
    hooks.serve(objects)

    def serve_and_dial() -> str:
        with socket.create_server(("172.30.0.10", NODE_PORT + 5)), closing(socket.socket()) as made:
            return errno_of(made.connect, ("172.30.0.10", NODE_PORT + 5))

    got = hooks.measure(serve_and_dial, hooks.client.of(hooks.cluster.node))
    assert got.answer == ""
    assert got.outcomes == {}


def test_a_nodeport_of_the_other_protocol_is_untouched(hooks: Hooks) -> None:
    objects = web(hooks, {"a": NODE_NAME})
    del objects[0]["spec"]["ports"][1]
    hooks.serve(objects)
    got = hooks.measure(lambda: ask(Way("udp", 4), "172.30.0.10", NODE_PORT))
    assert got.answer == "ECONNREFUSED", "by the node itself: nobody listens"
    assert got.outcomes == {}


def test_a_nodeport_goes_with_its_service(hooks: Hooks) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}))
    hooks.serve([])
    got = hooks.measure(lambda: ask(Way("tcp", 4), "172.30.0.10", NODE_PORT))
    assert got.answer == "ECONNREFUSED"
    assert got.outcomes == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nodeports_without_endpoints_refuse(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {}))
    got = hooks.measure(lambda: ask(way, node_address(way, 10), NODE_PORT))
    assert got.answer == refusal()
    assert got.outcomes == {Outcome.REFUSED_NO_ENDPOINTS: 1}


# --- other nodes


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_nodeport_of_another_node_is_translated_here(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {"a": "m"}), remote_node_ports=True)
    for name, number in ELSEWHERE.items():
        dialled = (node_address(way, number), NODE_PORT)
        got = hooks.measure(lambda dialled=dialled: ask(way, *dialled))  # type: ignore[misc]
        assert isinstance(got.answer, Reply), name
        assert (got.answer.pod, got.answer.peer) == ("a", dialled)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_under_a_local_policy_another_node_offers_its_own_endpoints_alone(hooks: Hooks, way: Way) -> None:
    places = {"a": "m", "b": "o", "c": NODE_NAME}
    hooks.serve(web(hooks, places, externalTrafficPolicy="Local"), remote_node_ports=True)

    def dial() -> list[set[str]]:
        return [
            {pod(ask(way, node_address(way, number), NODE_PORT)) for _ in range(6)} for number in (20, 30, 40)
        ]

    got = hooks.measure(dial)
    assert got.answer == [{"a"}, {"b"}, {refusal("EHOSTUNREACH")}]
    assert got.outcomes[Outcome.REFUSED_NO_LOCAL_ENDPOINTS] == 6


def test_under_a_local_policy_the_own_node_offers_every_endpoint(hooks: Hooks) -> None:
    """Clients inside the cluster are not what the policy is about: kube-proxy's short-circuit."""
    way = Way("tcp", 4)
    hooks.serve(web(hooks, {"a": "m", "b": "o"}, externalTrafficPolicy="Local"), remote_node_ports=True)
    got = hooks.measure(lambda: {pod(ask(way, "172.30.0.10", NODE_PORT)) for _ in range(40)})
    assert got.answer == {"a", "b"}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_under_a_local_policy_nobody_anywhere_is_a_plain_refusal(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, {}, externalTrafficPolicy="Local"), remote_node_ports=True)
    got = hooks.measure(lambda: ask(way, node_address(way, 20), NODE_PORT))
    assert got.answer == refusal()
    assert got.outcomes == {Outcome.REFUSED_NO_ENDPOINTS: 1}


@pytest.mark.parametrize("family", [4, 6, 46])
def test_other_nodes_are_untouched_when_that_is_switched_off(hooks: Hooks, family: int) -> None:
    hooks.serve(web(hooks, {"a": "m"}), remote_node_ports=False)
    way = Way("udp", family)

    def connect() -> str:
        with closing(make_socket(way)) as made:
            made.connect((node_address(way, 20), NODE_PORT))
            return str(made.getpeername()[0])

    got = hooks.measure(connect)
    assert got.answer == node_address(way, 20)
    assert got.outcomes == {}


# --- external addresses


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_external_and_load_balancer_addresses_are_translated(hooks: Hooks, way: Way) -> None:
    objects = web(hooks, {"a": NODE_NAME}, type="LoadBalancer", externalIPs=["198.51.100.7", "2001:db8::7"])
    objects[0]["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}, {"ip": "2001:db8::8"}]}}
    hooks.serve(objects)
    for ipv4, ipv6 in (("198.51.100.7", "2001:db8::7"), ("203.0.113.8", "2001:db8::8")):
        dialled = (way.text(ipv4, ipv6), 80)
        got = hooks.measure(lambda dialled=dialled: ask(way, *dialled))  # type: ignore[misc]
        assert isinstance(got.answer, Reply)
        assert (got.answer.pod, got.answer.peer) == ("a", dialled)


def test_other_ports_of_external_addresses_are_untouched(hooks: Hooks) -> None:
    hooks.serve(web(hooks, {"a": NODE_NAME}, externalIPs=["198.51.100.7"]))
    got = hooks.measure(lambda: ask(Way("tcp", 4), "198.51.100.7", 81))
    assert got.answer == "ENETUNREACH"
    assert got.outcomes == {}
