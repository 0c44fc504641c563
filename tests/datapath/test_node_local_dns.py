"""NodeLocal DNSCache: cluster DNS in a pod, a cache on the node, and clients that dial the ClusterIP."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial

import pytest

from pyagent.demo import dns
from pyagent.demo.calls import call
from pyagent.demo.dns import DnsApp
from pyagent.demo.echo import Listener, spawn_server
from pyagent.demo.sandbox import Sandbox
from pyagent.model.kube_objects import ANNOTATION_NODE_LOCAL
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.asking import ASK_SECONDS
from tests.datapath.ground.cluster import InClient, Pod
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

CLUSTER_DNS, CACHE = "10.96.0.53", "169.254.20.10"
NAME = "web.shop.svc.cluster.local"
PORTS = [("dns", 53, "UDP"), ("dns-tcp", 53, "TCP")]


def ip(netns: Pod, *arguments: str) -> None:
    call(partial(_run, ["ip", *arguments]), netns=netns.netns)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def serve(sandbox: Sandbox, pod: Pod, name: str, address: str) -> None:
    listeners = [Listener(address, 53, protocol, "dns") for protocol in ("UDP", "TCP")]
    place = partial(sandbox.spawn, netns=pod.netns, label=name)
    spawn_server(place, name, listeners, lambda _app: DnsApp({NAME: ["10.244.1.99"]}))


@pytest.fixture
def cache(sandbox: Sandbox, cluster: SmallCluster) -> Iterator[Pod]:
    """The node, which pods can reach at the cache's address once it has it."""
    ip(cluster.client, "route", "add", f"{CACHE}/32", "via", "10.244.0.1")
    yield cluster.node
    ip(cluster.client, "route", "del", f"{CACHE}/32")


def ask_udp() -> tuple[str, str]:
    """(who answered, from which address the answer came)"""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
        made.settimeout(ASK_SECONDS)
        made.sendto(dns.query(7, NAME), (CLUSTER_DNS, 53))
        message, source = made.recvfrom(4096)
    return dns.decode(message).served_by, source[0]


def ask_tcp() -> tuple[str, str]:
    with closing(socket.create_connection((CLUSTER_DNS, 53), timeout=ASK_SECONDS)) as made:
        made.sendall(dns.framed(dns.query(8, NAME)))
        received = b""
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2]):
            piece = made.recv(4096)
            assert piece, received
            received += piece
        return dns.decode(received[2:]).served_by, made.getpeername()[0]


def answered(in_client: InClient) -> set[tuple[str, str]]:
    with suppress(TimeoutError, ConnectionError):  # the cache is just going
        return {in_client(ask_udp), in_client(ask_tcp)}
    return set()


def test_the_cache_answers_while_it_is_there_and_cluster_dns_when_it_is_not(
    sandbox: Sandbox,
    cluster: SmallCluster,
    in_client: InClient,
    manifests: Manifests,
    start_agent: StartAgent,
    cache: Pod,
) -> None:
    pod = cluster.server("a")
    serve(sandbox, pod, "cluster-dns", pod.ipv4)
    made = service("kube-dns", [CLUSTER_DNS], PORTS)
    made["metadata"]["annotations"] = {ANNOTATION_NODE_LOCAL: CACHE}
    manifests.write("dns", [made, endpoint_slice("kube-dns", [pod.ipv4], PORTS)])
    agent = start_agent(manifests.folder)
    from_pod, from_cache = {("cluster-dns", CLUSTER_DNS)}, {("cache", CLUSTER_DNS)}
    assert answered(in_client) == from_pod

    ip(cache, "addr", "add", f"{CACHE}/32", "dev", "lo")
    serve(sandbox, cache, "cache", CACHE)
    wait_for(lambda: answered(in_client), lambda seen: seen == from_cache, "the cache's answer")
    _, explained, _ = agent.verb("explain", f"--state-dir={agent.state_dir}", f"{CLUSTER_DNS}:53/UDP")
    assert f"{CACHE}:53" in explained
    assert ANNOTATION_NODE_LOCAL in explained
    assert agent.verb("diff", f"--state-dir={agent.state_dir}")[0] == 0

    ip(cache, "addr", "del", f"{CACHE}/32", "dev", "lo")
    wait_for(lambda: answered(in_client), lambda seen: seen == from_pod, "cluster DNS's answer")
