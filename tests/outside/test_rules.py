"""What packets get under policies, source ranges and affinity, and what refuses them."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from pyagent.datapath.layout import CONFIG
from pyagent.datapath.writes import Store
from pyagent.model.address import parse_network
from pyagent.model.outcome import Outcome
from tests.datapath.ground.asking import ask_tcp, ask_udp, tcp_reply_on
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.steps import in_steps
from tests.outside.lan import CLUSTER_RANGE, Host
from tests.outside.served import (
    BALANCER,
    CLUSTER_IP,
    EXTERNAL,
    NODE_PORT,
    SOURCE_PORTS,
    UDP_NODE_PORT,
    Served,
    exposed,
)

pytestmark = pytest.mark.kernel
FAMILIES = (4, 6)
LOCAL: dict[str, Any] = {"externalTrafficPolicy": "Local"}


def told(work: Callable[[], object]) -> str:
    """What a client is told: who answered, or the errno, or SILENCE."""
    try:
        return getattr(work(), "pod", "answered")
    except TimeoutError:
        return "SILENCE"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def connect(host: Host, address: str, port: int, patience: float = 0.5) -> str:
    def dial() -> str:
        with socket.create_connection((address, port), timeout=patience):
            return "answered"

    return host.do(partial(told, dial))


def send(host: Host, address: str, port: int, patience: float = 0.5) -> str:
    def dial() -> bytes:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience)
            sock.connect((address, port))
            sock.send(b"x")
            return sock.recv(4096)

    return host.do(partial(told, dial))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_endpoints_a_client_is_refused_at_once(served: Served, family: int) -> None:
    served.serve(exposed())
    client, node = served.lan.client, served.lan.node_a.address(family)
    outside = (node, BALANCER[family == 6], EXTERNAL[family == 6], CLUSTER_IP[family == 6])
    for address in outside:
        tcp, udp = (NODE_PORT, UDP_NODE_PORT) if address == node else (80, 53)
        assert connect(client, address, tcp, 5) == "ECONNREFUSED"
        assert send(client, address, udp, 5) == "ECONNREFUSED"


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_and_addresses_that_no_service_has_are_refused_at_once(served: Served, family: int) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    client = served.lan.client
    nobody = CLUSTER_RANGE[family == 6].split("/")[0].removesuffix("0") + ("99" if family == 6 else "9")
    for address in (CLUSTER_IP[family == 6], nobody):
        assert connect(client, address, 81, 5) == "ECONNREFUSED"
        assert send(client, address, 81, 5) == "ECONNREFUSED"


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_local_takes_this_nodes_endpoints_alone(served: Served, family: int) -> None:
    lan = served.lan
    served.serve(exposed((lan.a1, "node-a"), (lan.b1, "node-b"), **LOCAL))
    node = lan.node_a.address(family)
    pairs = ((node, NODE_PORT), (BALANCER[family == 6], 80), (EXTERNAL[family == 6], 80))
    for address, port in pairs:
        replies = [lan.client.do(partial(ask_tcp, address, port)) for _ in range(4)]
        assert {r.pod for r in replies} == {"a1"}
        assert {r.seen_client[0] for r in replies} == {lan.client.address(family)}


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_local_is_silent_without_a_local_endpoint(served: Served, family: int) -> None:
    served.serve(exposed((served.lan.b1, "node-b"), **LOCAL))
    node = served.lan.node_a.address(family)
    gained = served.gained(lambda: connect(served.lan.client, node, NODE_PORT))
    assert connect(served.lan.client, node, NODE_PORT) == "SILENCE"
    assert send(served.lan.client, node, UDP_NODE_PORT) == "SILENCE"
    assert gained[Outcome.REFUSED_NO_LOCAL_ENDPOINTS] >= 1
    cluster_ip = served.lan.client.do(partial(ask_tcp, CLUSTER_IP[family == 6], 80))
    assert cluster_ip.pod == "b1", "the policy is about external addresses"


def test_a_terminating_endpoint_serves_where_no_other_is(served: Served) -> None:
    ending = {"ready": False, "serving": True, "terminating": True}
    served.serve(exposed((served.lan.a1, "node-a"), conditions=ending, **LOCAL))
    assert served.lan.client.do(partial(ask_tcp, served.lan.node_a.ipv4, NODE_PORT)).pod == "a1"


@pytest.mark.parametrize("local", [False, True])
def test_source_ranges_keep_clients_from_balancer_addresses_only(served: Served, local: bool) -> None:
    lan = served.lan
    policy: dict[str, Any] = LOCAL if local else {}
    served.serve(exposed((lan.a1, "node-a"), loadBalancerSourceRanges=["203.0.113.8/32"], **policy))
    gained = served.gained(lambda: connect(lan.client, BALANCER[0], 80))
    assert gained[Outcome.REFUSED_SOURCE_RANGE] >= 1
    assert connect(lan.client, BALANCER[0], 80) == "SILENCE"
    assert connect(lan.client, EXTERNAL[0], 80, 5) == "answered"
    assert connect(lan.client, lan.node_a.ipv4, NODE_PORT, 5) == "answered"
    served.serve(exposed((lan.a1, "node-a"), loadBalancerSourceRanges=["203.0.113.0/24"], **policy))
    assert connect(lan.client, BALANCER[0], 80, 5) == "answered"


@pytest.mark.parametrize("family", FAMILIES)
def test_affinity_goes_by_the_clients_address(served: Served, family: int) -> None:
    lan = served.lan
    served.serve(
        exposed((lan.a1, "node-a"), (lan.a2, "node-a"), (lan.b1, "node-b"), sessionAffinity="ClientIP")
    )
    node = lan.node_a.address(family)
    pods = {lan.client.do(partial(ask_tcp, node, NODE_PORT)).pod for _ in range(6)}
    assert len(pods) == 1
    kept = pods.pop()
    others = [(pod, "node-b" if pod is lan.b1 else "node-a") for pod in lan.pods if pod.name != kept]
    served.serve(exposed(*others, sessionAffinity="ClientIP"))
    assert lan.client.do(partial(ask_tcp, node, NODE_PORT)).pod != kept


def test_connections_spread_over_the_endpoints(served: Served) -> None:
    lan = served.lan
    served.serve(exposed((lan.a1, "node-a"), (lan.a2, "node-a"), (lan.b1, "node-b")))

    def ask_often() -> set[str]:
        seen: set[str] = set()
        for _ in range(200):  # that one stays unseen: 3 * (2/3) ** 200
            seen.add(ask_tcp(lan.node_a.ipv4, NODE_PORT).pod)
            if len(seen) == 3:
                break
        return seen

    assert lan.client.do(ask_often, 60) == {"a1", "a2", "b1"}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_endpoint_on_the_nodes_own_address_answers(served: Served, family: int) -> None:
    served.serve(exposed((served.lan.node_a, "node-a")))
    client, node = served.lan.client, served.lan.node_a.address(family)
    for port, ask in ((NODE_PORT, ask_tcp), (UDP_NODE_PORT, partial(ask_udp, connected=True))):
        reply = client.do(partial(ask, node, port))
        assert (reply.pod, reply.seen_client[0]) == ("node-a", client.address(family))


def test_node_ports_of_other_nodes_are_left_to_them(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")), remote_node_ports=True)
    assert connect(served.lan.client, served.lan.node_b.ipv4, NODE_PORT, 5) == "ECONNREFUSED"


def test_only_the_named_addresses_answer_on_node_ports(served: Served) -> None:
    served.serve(exposed((served.lan.a1, "node-a")), node_port_ranges=(parse_network("127.0.0.0/8"),))
    assert connect(served.lan.client, served.lan.node_a.ipv4, NODE_PORT, 5) == "ECONNREFUSED"
    assert connect(served.lan.client, served.lan.node_a.ipv6, NODE_PORT, 5) == "answered"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_source_port_may_dial_two_addresses_of_one_backend(served: Served, family: int) -> None:
    """The backend would see one and the same connection twice."""
    served.serve(exposed((served.lan.a1, "node-a")))
    balancer, external = BALANCER[family == 6], EXTERNAL[family == 6]

    def dial() -> list[tuple[str, int]]:
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        # Bound by name: a port that connect() chooses may be one that an ended connection still holds.
        source = (served.lan.client.address(family), 0)
        with socket.socket(kind) as first, socket.socket(kind) as second:
            for sock, target in ((first, balancer), (second, external)):
                sock.settimeout(5)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(source)
                source = sock.getsockname()[:2]
                sock.connect((target, 80))
            return [tcp_reply_on(sock).seen_client for sock in (first, second, first)]

    first, second, again = served.lan.client.do(dial)
    assert first == again != second
    assert first[0] == second[0] == served.lan.client.address(family)


def test_without_a_free_source_port_a_packet_for_another_node_is_dropped_and_counted(served: Served) -> None:
    served.serve(exposed((served.lan.b1, "node-b")))
    low = CONFIG.offsets["source_port_low"]
    before = struct.pack("=HH", *SOURCE_PORTS)
    served.maps.apply([Store("config", low, struct.pack("=HH", 2, 1))])
    try:
        gained = served.gained(lambda: connect(served.lan.client, served.lan.node_a.ipv4, NODE_PORT))
    finally:
        served.maps.apply([Store("config", low, before)])
    assert gained[Outcome.REFUSED_NO_SOURCE_PORT] >= 1


def test_the_last_source_port_is_used_then_refused_then_used_again(served: Served) -> None:
    """One for each endpoint: what goes to another endpoint may leave by the same port."""
    served.serve(exposed((served.lan.b1, "node-b")))
    node, client = served.lan.node_a.ipv4, served.lan.client
    low = CONFIG.offsets["source_port_low"]

    def hold() -> Iterator[tuple[str, int]]:
        with socket.create_connection((node, NODE_PORT), timeout=5) as sock:
            yield tcp_reply_on(sock).seen_client
        yield "", 0

    served.maps.apply([Store("config", low, struct.pack("=HH", 61_500, 61_500))])
    try:
        with in_steps(InClient(client.netns, None), hold) as holding:
            assert holding.next() == (node, 61_500)
            gained = served.gained(lambda: connect(client, node, NODE_PORT))
            assert gained[Outcome.REFUSED_NO_SOURCE_PORT] >= 1
            assert client.do(partial(ask_udp, node, UDP_NODE_PORT)).seen_client == (node, 61_500)
            holding.next()
        assert connect(client, node, NODE_PORT, 10) == "answered"
    finally:
        served.maps.apply([Store("config", low, struct.pack("=HH", *SOURCE_PORTS))])
