"""Clients outside the cluster reach Services through a node: real packets, both families, TCP and UDP."""

from __future__ import annotations

from functools import partial

import pytest

from tests.datapath.ground.asking import ask_tcp, ask_udp
from tests.outside.lan import transfer
from tests.outside.served import (
    BALANCER,
    BULK_NODE_PORT,
    CLUSTER_IP,
    EXTERNAL,
    NODE_PORT,
    UDP_NODE_PORT,
    Served,
    exposed,
)

pytestmark = pytest.mark.kernel
FAMILIES = (4, 6)
MEGABYTE = 1 << 20


@pytest.mark.parametrize("family", FAMILIES)
def test_a_local_backend_sees_the_client_and_the_client_the_frontend(served: Served, family: int) -> None:
    served.serve(exposed((served.lan.a1, "node-a")))
    node, client = served.lan.node_a.address(family), served.lan.client
    tcp = client.do(partial(ask_tcp, node, NODE_PORT))
    udp = client.do(partial(ask_udp, node, UDP_NODE_PORT, connected=True))
    for reply in (tcp, udp):
        assert (reply.pod, reply.seen_client[0]) == ("a1", client.address(family))
        assert reply.server[0] == served.lan.a1.address(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_on_another_node_answers_through_this_one(served: Served, family: int) -> None:
    served.serve(exposed((served.lan.b1, "node-b")))
    node, client = served.lan.node_a.address(family), served.lan.client
    tcp = client.do(partial(ask_tcp, node, NODE_PORT))
    udp = client.do(partial(ask_udp, node, UDP_NODE_PORT, connected=True))
    for reply in (tcp, udp):
        assert (reply.pod, reply.seen_client[0]) == ("b1", node)
        assert 61_000 <= reply.seen_client[1] <= 61_999


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("where", [CLUSTER_IP, BALANCER, EXTERNAL], ids=["cluster", "balancer", "external"])
@pytest.mark.parametrize("end", ["a1", "b1"])
def test_every_kind_of_address_answers(served: Served, where: tuple[str, str], family: int, end: str) -> None:
    host = next(pod for pod in served.lan.pods if pod.name == end)
    served.serve(exposed((host, "node-a" if end == "a1" else "node-b")))
    address = where[family == 6]
    assert served.lan.client.do(partial(ask_tcp, address, 80)).pod == end
    assert served.lan.client.do(partial(ask_udp, address, 53)).peer == (address, 53)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["a1", "b1"])
def test_a_megabyte_goes_through_and_comes_back(served: Served, family: int, end: str) -> None:
    """The router's link to the client takes less than the nodes' links: path MTU discovery must work."""
    host = next(pod for pod in served.lan.pods if pod.name == end)
    served.serve(exposed((host, "node-a" if end == "a1" else "node-b")))
    address = served.lan.node_a.address(family)
    assert served.lan.client.do(partial(transfer, address, BULK_NODE_PORT, MEGABYTE), 60) == (MEGABYTE, True)
