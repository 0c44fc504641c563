"""UDP clients get away from endpoints that are gone, whatever socket they use."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pyagent.demo.children import wait_until
from tests.conformance.ground.clients import UDP, Place, ask_kept, dial_from, drop, keep, talk_kept
from tests.conformance.ground.nodes import Cluster
from tests.conformance.ground.objects import (
    Address,
    Endpoint,
    Object,
    Pod,
    both,
    ready,
    service,
    slices,
    terminating,
    unready,
)
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.dialling import WAYS, Answer, Way

pytestmark = pytest.mark.kernel

WEB = Address("10.96.0.10", "fd44:10:96::10")
OTHER = Address("10.96.0.11", "fd44:10:96::11")
NODE_PORT = 30080
CONNECTED = tuple(way for way in UDP if way.call == "udp")
UNCONNECTED = tuple(way for way in UDP if way.call == "datagram")
TCP_IPV4 = WAYS[0]

# What is left of a connected socket that was ended: recv() tells that, send() that it has no peer any more.
ENDED = {"ECONNABORTED", "EDESTADDRREQ"}


@pytest.fixture(autouse=True)
def sockets_end(two_nodes: Cluster) -> Iterator[None]:
    yield
    for client in two_nodes.clients:
        for way in WAYS:
            client.do(drop, str(way))


def who(answer: Answer) -> str:
    return answer.pod if isinstance(answer, Reply) else answer


def own_port(way: Way, beside: int = 0) -> int:
    return 20_000 + 10 * WAYS.index(way) + beside


def begin(client: Place, way: Way, target: Address | Pod, port: int = 80) -> str:
    """A new socket that stays, with the same source port each time; who answers on it."""
    client.do(keep, str(way), way, own_port(way))
    return who(client.do(ask_kept, str(way), way.text(target.ipv4, target.ipv6), port))


def go_on(client: Place, way: Way, target: Address | Pod = WEB, port: int = 80) -> str:
    """Who answers on that socket now."""
    if way.call == "datagram":
        return who(client.do(ask_kept, str(way), way.text(target.ipv4, target.ipv6), port))
    return who(client.do(talk_kept, str(way)))


def await_end(client: Place, way: Way) -> None:
    """A connected socket is ended: the next call says so, the one after that is the application's."""
    said: list[str] = []

    def ended() -> bool:
        said.append(go_on(client, way))
        return said[-1] in ENDED

    assert wait_until(ended, timeout=5.0), f"{client} by {way} still hears from {said[-1]}"


def frontend(cluster: Cluster, name: str) -> tuple[Object, Address | Pod, int]:
    ports = both(80, node_port=NODE_PORT)
    if name == "internal policy Local":
        return service("web", WEB, ports, internalTrafficPolicy="Local"), WEB, 80
    if name == "NodePort of another node":
        return service("web", WEB, ports), cluster["node-2"], NODE_PORT
    return service("web", WEB, ports), WEB, 80


@pytest.mark.parametrize("client", ["client-1", "node-1"], ids=["pod", "host"])
@pytest.mark.parametrize("name", ["ClusterIP", "NodePort of another node", "internal policy Local"])
def test_a_client_with_one_source_port_follows_the_endpoint(cluster: Cluster, name: str, client: str) -> None:
    web, target, port = frontend(cluster, name)
    place = cluster.place(client)
    cluster.put(web, slices("web", cluster["a1"]))
    for way in UDP:
        assert begin(place, way, target, port) == "a1"
    for pod in ("b1", "a1"):
        cluster.put(web, slices("web", cluster[pod]))
        for way in UNCONNECTED:
            assert go_on(place, way, target, port) == pod
        for way in CONNECTED:
            own = ("::" if way.family != 4 else "0.0.0.0", own_port(way, beside=1))
            dialled = way.text(target.ipv4, target.ipv6)
            assert who(place.do(dial_from, way, own, dialled, port)) == pod
            await_end(place, way)
            assert begin(place, way, target, port) == pod


def test_a_connected_socket_is_ended_when_the_last_endpoint_is_gone(cluster: Cluster) -> None:
    client = cluster.place("client-1")
    for nobody in (slices("web"), None):
        cluster.put(service("web", WEB), slices("web", cluster["a2"]))
        for way in CONNECTED:
            assert begin(client, way, WEB) == "a2"
        if nobody is None:
            cluster.put()  # the Service too
        else:
            cluster.put(service("web", WEB), nobody)
        for way in CONNECTED:
            await_end(client, way)
            assert begin(client, way, WEB) == "ECONNREFUSED"


def test_a_socket_stays_on_a_terminating_endpoint_that_still_serves(cluster: Cluster) -> None:
    client, a2, b2 = cluster.place("client-1"), cluster["a2"], cluster["b2"]
    web = service("web", WEB)
    stays, goes = CONNECTED[0], CONNECTED[1]
    cluster.put(web, slices("web", a2))
    assert begin(client, stays, WEB) == "a2"
    cluster.put(web, slices("web", terminating(a2), ready(b2)), _api(cluster, True))
    assert begin(client, goes, OTHER) == "a3"
    cluster.put(web, slices("web", terminating(a2), ready(b2)), _api(cluster, False))
    await_end(client, goes)  # one walk over the sockets has been made
    assert go_on(client, stays) == "a2"
    cluster.put(web, slices("web", terminating(a2, serving=False), ready(b2)))
    await_end(client, stays)


def _api(cluster: Cluster, served: bool) -> list[Object]:
    """Another Service, whose sockets show when the agent has looked."""
    return [service("api", OTHER), *slices("api", *([cluster["a3"]] if served else []))]


def test_a_socket_on_an_unready_endpoint_is_ended_only_once_there_is_another(cluster: Cluster) -> None:
    client, web, way = cluster.place("client-1"), service("web", WEB), CONNECTED[0]
    cluster.put(web, slices("web", cluster["a2"]))
    assert begin(client, way, WEB) == "a2"
    cluster.put(web, slices("web", unready(cluster["a2"])))
    time.sleep(1.2)  # more than twice the grace that the agents have
    assert go_on(client, way) == "a2"
    cluster.put(web, slices("web", unready(cluster["a2"]), ready(cluster["b2"])))
    await_end(client, way)
    assert begin(client, way, WEB) == "b2"


def test_a_published_endpoint_that_is_not_serving_keeps_its_sockets(cluster: Cluster) -> None:
    client, pod = cluster.place("client-1"), cluster["a2"]
    published = Endpoint(pod, pod.node, ready=True, serving=False)
    stays, goes = CONNECTED[0], CONNECTED[1]
    cluster.put(service("web", WEB), slices("web", published, ready(cluster["b2"])), _api(cluster, True))
    assert begin(client, goes, OTHER) == "a3"
    while begin(client, stays, WEB) != "a2":
        pass
    cluster.put(service("web", WEB), slices("web", published, ready(cluster["a1"])), _api(cluster, False))
    await_end(client, goes)
    assert go_on(client, stays) == "a2"


def test_tcp_connections_and_other_flows_are_left_alone(cluster: Cluster) -> None:
    client, udp, beside = cluster.place("client-1"), CONNECTED[0], CONNECTED[1]
    direct = cluster["a2"]
    cluster.put(service("web", WEB), slices("web", cluster["a2"]))
    assert begin(client, TCP_IPV4, WEB) == begin(client, udp, WEB) == "a2"
    assert begin(client, beside, direct, 8080) == "a2"
    cluster.put(service("web", WEB), slices("web", cluster["b2"]))
    await_end(client, udp)
    assert go_on(client, TCP_IPV4) == "a2", "a pod that ends closes its own connections"
    assert go_on(client, beside) == "a2", "this socket never dialled a Service"


def test_an_endpoint_that_was_unready_at_first_is_reached_once_it_is_ready(cluster: Cluster) -> None:
    client, web = cluster.place("client-1"), service("web", WEB, both(80, node_port=NODE_PORT))
    cluster.put(web, slices("web", unready(cluster["a2"])))
    for way in UNCONNECTED:
        assert begin(client, way, WEB) == "ECONNREFUSED"
    cluster.put(web, slices("web", cluster["a2"]))
    for way in UNCONNECTED:
        assert go_on(client, way) == "a2", "on the same socket"
    for way in CONNECTED:
        assert begin(client, way, WEB) == "a2"


def test_a_changed_target_port_reaches_sockets_too(cluster: Cluster) -> None:
    client, web = cluster.place("client-1"), service("web", WEB, both(80, node_port=NODE_PORT))
    node = cluster["node-2"]
    for target in (8080, 8081):
        cluster.put(web, slices("web", cluster["a2"], ports=both(target)))
        if target == 8081:
            for way in CONNECTED:
                await_end(client, way)
            for way in UNCONNECTED:
                answer = client.do(ask_kept, str(way), way.text(node.ipv4, node.ipv6), NODE_PORT)
                assert isinstance(answer, Reply)
                assert answer.server[1] == target
        for way in UDP:
            assert begin(client, way, node, NODE_PORT) == "a2"


def test_sockets_of_a_backend_that_went_while_the_agent_was_away_are_ended(cluster: Cluster) -> None:
    client, web, way = cluster.place("client-1"), service("web", WEB), CONNECTED[0]
    cluster.put(web, slices("web", cluster["a2"]))
    assert begin(client, way, WEB) == "a2"
    cluster.stop_agent("node-1")
    cluster.put(web, slices("web", cluster["b2"]))
    assert go_on(client, way) == "a2"
    cluster.start_agents()
    await_end(client, way)
    assert begin(client, way, WEB) == "b2"
