"""The ground itself: servers say who they are, clients are where they should be, with no hook attached."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import pytest

from pyagent.demo import dns
from pyagent.demo.echo import Listener, spawn_server
from pyagent.model.failures import KubesockError
from tests.datapath.ground import (
    Manifests,
    SmallCluster,
    StartAgent,
    ask_tcp,
    ask_udp,
    endpoint_slice,
    service,
)
from tests.datapath.ground.asking import tcp_reply_on
from tests.datapath.ground.cluster import PORTS, SERVICE_NETWORK, InClient

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", ["a", "b", "c", "node"])
def test_every_server_answers_with_its_name_and_the_client_it_saw(
    cluster: SmallCluster, in_client: InClient, name: str, family: int
) -> None:
    pod = cluster.node if name == "node" else cluster.server(name)
    address = pod.address(family)

    def ask_all() -> list[tuple[str, str, str]]:
        replies = [ask_tcp(address, port) for port in PORTS]
        replies += [
            ask_udp(address, port, connected=connected) for port in PORTS for connected in (False, True)
        ]
        return [(reply.pod, reply.peer[0], reply.seen_client[0]) for reply in replies]

    assert set(in_client(ask_all)) == {(name, address, cluster.client.address(family))}


def test_one_connection_carries_many_lines(cluster: SmallCluster, in_client: InClient) -> None:
    address = cluster.server("a").ipv4

    def talk() -> list[str]:
        with socket.create_connection((address, 8080), timeout=3.0) as sock:
            return [tcp_reply_on(sock, text).text for text in ("one", "two", "x" * 20_000)]

    assert in_client(talk) == ["one", "two", "x" * 20_000]


def test_http_is_answered_as_http(cluster: SmallCluster, in_client: InClient) -> None:
    address = cluster.server("b").ipv6

    def get() -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection(address, 8080, timeout=3.0)
        try:
            connection.request("GET", "/cart")
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    status, said = in_client(get)
    assert status == 200
    assert (said["pod"], said["text"]) == ("b", "GET /cart HTTP/1.1")


def test_data_in_the_syn_is_accepted(cluster: SmallCluster, in_client: InClient) -> None:
    address = cluster.server("a").ipv4

    def fast_open() -> str:
        with socket.socket() as sock:
            sock.sendto(b"early\n", socket.MSG_FASTOPEN, (address, 8080))
            return str(json.loads(sock.recv(4096))["text"])

    assert in_client(fast_open) == "early"  # asks for the cookie
    assert in_client(fast_open) == "early"  # sends it


def test_a_v4_mapped_address_reaches_the_same_server(cluster: SmallCluster, in_client: InClient) -> None:
    address = cluster.server("c").ipv4
    mapped = f"::ffff:{address}"

    def ask() -> tuple[str, str]:
        tcp = ask_tcp(mapped, 8080, family=socket.AF_INET6)
        udp = ask_udp(mapped, 8080, family=socket.AF_INET6)
        return tcp.pod, udp.peer[0]

    assert in_client(ask) == ("c", mapped)


def test_nothing_leads_to_a_service_address(cluster: SmallCluster, in_client: InClient) -> None:
    for network in SERVICE_NETWORK:
        address = network.split("/")[0] + ("0" if ":" in network else "")
        with pytest.raises(OSError, match="Network is unreachable"):
            in_client(lambda address=address: ask_tcp(address.replace("::0", "::1"), 80))  # type: ignore[misc]


def test_each_test_has_a_cgroup_of_its_own(cgroup: Path, in_client: InClient) -> None:
    assert in_client(lambda: Path("/proc/self/cgroup").read_text()).rstrip().endswith(cgroup.name)
    assert "kubesock-test" not in in_client.unhooked(lambda: Path("/proc/self/cgroup").read_text())


def test_a_taken_address_is_told_by_server_and_address(cluster: SmallCluster) -> None:
    pod = cluster.server("a")
    with pytest.raises(OSError, match=rf"server again: {pod.ipv4} port 8080: .*in use"):
        spawn_server(
            lambda work: cluster.sandbox.spawn(work, netns=pod.netns), "again", [Listener(pod.ipv4, 8080)]
        )


def test_dns_is_answered_over_udp_and_tcp(cluster: SmallCluster, in_client: InClient) -> None:
    pod = cluster.server("b")
    app = dns.DnsApp({"web.shop.svc.cluster.local": ["10.96.0.7", "fd44:10:96::7"]})
    listeners = [Listener(pod.ipv4, 53, protocol) for protocol in ("TCP", "UDP")]
    spawn_server(
        lambda work: cluster.sandbox.spawn(work, netns=pod.netns), "coredns", listeners, lambda _name: app
    )

    def ask() -> list[dns.DnsAnswer]:
        with (
            socket.create_connection((pod.ipv4, 53), timeout=3.0) as tcp,
            socket.socket(type=socket.SOCK_DGRAM) as udp,
        ):
            udp.settimeout(3.0)
            tcp.sendall(dns.framed(dns.query(7, "web.shop.svc.cluster.local")))
            udp.sendto(dns.query(8, "WEB.shop.svc.cluster.local", dns.TYPE_AAAA), (pod.ipv4, 53))
            answers = [dns.decode(tcp.recv(512)[2:]), dns.decode(udp.recv(512))]
            udp.sendto(dns.query(9, "nobody.shop.svc.cluster.local"), (pod.ipv4, 53))
            return [*answers, dns.decode(udp.recv(512))]

    assert in_client(ask) == [
        dns.DnsAnswer(7, ("10.96.0.7",), "coredns", 0),
        dns.DnsAnswer(8, ("fd44:10:96::7",), "coredns", 0),
        dns.DnsAnswer(9, (), "coredns", dns.NO_SUCH_NAME),
    ]


def test_manifests_appear_and_go_whole(manifests: Manifests) -> None:
    path = manifests.write("web", [service("web", ["10.96.0.1"], [("http", 80, "TCP")])])
    assert json.loads(path.read_text())["items"][0]["spec"]["clusterIP"] == "10.96.0.1"
    assert [entry.name for entry in manifests.folder.iterdir()] == ["web.json"]
    manifests.remove("web")
    assert list(manifests.folder.iterdir()) == []


def test_an_agent_becomes_ready_and_serves_what_the_manifests_say(
    cluster: SmallCluster, in_client: InClient, manifests: Manifests, start_agent: StartAgent
) -> None:
    server = cluster.server("a")
    manifests.write(
        "web",
        [
            service("web", ["10.96.0.1"], [("http", 80, "TCP")]),
            endpoint_slice("web", [server.ipv4], [("http", 8080, "TCP")]),
        ],
    )
    agent = start_agent(manifests.folder)
    reply = in_client(lambda: ask_tcp("10.96.0.1", 80))
    assert (reply.pod, reply.peer, reply.server) == ("a", ("10.96.0.1", 80), (server.ipv4, 8080))
    assert [row["backend"] for row in agent.rows("backends")] == [f"{server.ipv4}:8080"]
    assert "translated" in agent.get("/metrics", metrics=True)[1]
    assert agent.stop() == 0
    assert in_client(lambda: ask_tcp("10.96.0.1", 80)).pod == "a", "programs serve without the agent"
    assert agent.verb("cleanup")[0] == 0
    assert not agent.bpffs.exists()


def test_an_agent_that_does_not_start_is_told_with_its_log(
    manifests: Manifests, start_agent: StartAgent
) -> None:
    with pytest.raises(KubesockError, match=r"ended with 2\n(.|\n)*no-such-flag"):
        start_agent(manifests.folder, arguments=("--no-such-flag",))
