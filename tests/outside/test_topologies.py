"""Devices beside the plain uplink: VLANs, and the host's ends of pods that no socket hook sees."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from pyroute2 import IPRoute, NetlinkError

from pyagent.demo.children import wait_until
from pyagent.model.outcome import Outcome
from tests.datapath.ground.asking import ask_tcp, ask_udp
from tests.outside import raw
from tests.outside.lan import IFA_F_NODAD, Host
from tests.outside.served import BALANCER, CLUSTER_IP, UDP_NODE_PORT, Served, exposed

pytestmark = pytest.mark.kernel
FAMILIES = (4, 6)
VLAN, DEVICE = 100, "eth0.100"
ON_VLAN = {
    "router": ("192.0.3.254", "fd00:3::fe"),
    "node-a": ("192.0.3.11", "fd00:3::11"),
}


def _add_vlan(host: Host, addresses: tuple[str, str], routes: list[tuple[str, str]]) -> None:
    with IPRoute() as netlink:
        parent = netlink.link_lookup(ifname="eth0")[0]
        netlink.link("add", ifname=DEVICE, kind="vlan", link=parent, vlan_id=VLAN)
        index = netlink.link_lookup(ifname=DEVICE)[0]
        netlink.link("set", index=index, state="up")
        netlink.addr("add", index=index, address=addresses[0], prefixlen=24)
        netlink.addr("add", index=index, address=addresses[1], prefixlen=64, flags=IFA_F_NODAD)
        for destination, gateway in routes:
            family = socket.AF_INET6 if ":" in destination else socket.AF_INET
            netlink.route("add", dst=destination, gateway=gateway, oif=index, family=family)


def _remove_vlan() -> None:
    with IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=DEVICE):
            netlink.link("del", index=index)


@pytest.fixture
def tagged(served: Served) -> Iterator[Served]:
    """The balancer's addresses and the client lie behind a VLAN of node-a's uplink, which is served too."""
    lan = served.lan
    there = [(_alone(address), ON_VLAN["node-a"][":" in address]) for address in BALANCER]
    back = [(_alone(lan.client.address(family)), ON_VLAN["router"][family == 6]) for family in FAMILIES]
    try:
        lan.router.do(partial(_add_vlan, lan.router, ON_VLAN["router"], there))
        lan.node_a.do(partial(_add_vlan, lan.node_a, ON_VLAN["node-a"], back))
        served.cover("auto", DEVICE)
        yield served
    except NetlinkError as error:
        if error.code != errno.EOPNOTSUPP:
            raise
        pytest.skip("this kernel knows no VLAN devices (CONFIG_VLAN_8021Q)")
    finally:
        served.cover("auto")
        for host in (lan.router, lan.node_a):
            host.do(_remove_vlan)


def _alone(address: str) -> str:
    return str(ipaddress.ip_network(address))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["a1", "b1"])
def test_tagged_packets_are_served_at_the_device_of_their_vlan(tagged: Served, family: int, end: str) -> None:
    lan = tagged.lan
    host = next(pod for pod in lan.pods if pod.name == end)
    tagged.serve(exposed((host, "node-a" if end == "a1" else "node-b")))
    address = BALANCER[family == 6]

    def ask() -> None:
        tcp = lan.client.do(partial(ask_tcp, address, 80))
        udp = lan.client.do(partial(ask_udp, address, 53, connected=True))
        assert (tcp.pod, udp.pod) == (end, end)
        if end == "a1":
            assert tcp.seen_client[0] == udp.seen_client[0] == lan.client.address(family)

    assert tagged.gained(ask) == {Outcome.TRANSLATED: 2}, "once each, though the uplink saw them too"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_uplink_leaves_packets_of_vlans_to_their_devices(served: Served, family: int) -> None:
    """A tag that names no VLAN tells a priority alone: such a packet is the uplink's."""
    lan = served.lan
    served.serve(exposed((lan.a1, "node-a")))
    client, node = lan.client.address(family), lan.node_a.address(family)
    there = lan.node_a.do(raw.address_of_link)

    def send(tag: int, port: int) -> None:
        packet = raw.ip(client, node, raw.UDP, raw.udp(client, node, (port, UDP_NODE_PORT), b"x"))
        lan.router.do(partial(raw.inject, "eth0", there, [packet], tag))

    def both() -> None:
        send(VLAN, 4101)
        send(5 << 13, 4102)
        assert wait_until(lambda: bool(served.flows()), 10.0)

    assert served.gained(both) == {Outcome.TRANSLATED: 1}
    assert {flow.key["source_port"] for flow in served.flows() if flow.value["flags"] & 1} == {4102}


@pytest.fixture
def sandboxed(served: Served) -> Iterator[Served]:
    """No hook sees what the pods of node-a do; a1's device is served, a2's too."""
    served.cover("auto", "pods:veth-*")
    yield served
    served.cover("auto")


def asked(host: Host, family: int) -> Iterator[tuple[Callable[[], object], str]]:
    address = CLUSTER_IP[family == 6]
    yield partial(host.do, partial(ask_tcp, address, 80)), "TCP"
    yield partial(host.do, partial(ask_udp, address, 53, connected=True)), "UDP"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("end", ["a2", "b1"])
def test_a_pod_that_no_hook_sees_reaches_services_as_itself(sandboxed: Served, family: int, end: str) -> None:
    lan = sandboxed.lan
    host = next(pod for pod in lan.pods if pod.name == end)
    sandboxed.serve(exposed((host, "node-a" if end == "a2" else "node-b")))
    for ask, protocol in asked(lan.a1, family):
        reply = ask()
        assert (reply.pod, reply.seen_client[0]) == (end, lan.a1.address(family)), protocol  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_that_no_hook_sees_reaches_itself(sandboxed: Served, family: int) -> None:
    """The packet goes back where it came from; with its own address as source the pod would not take it."""
    lan = sandboxed.lan
    sandboxed.serve(exposed((lan.a1, "node-a")))
    gateway = "10.244.1.1" if family == 4 else "fd00:244:1::1"
    for ask, protocol in asked(lan.a1, family):
        reply = ask()
        assert (reply.pod, reply.seen_client[0]) == ("a1", gateway), protocol  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_that_no_hook_sees_is_refused_at_once_where_nobody_serves(
    sandboxed: Served, family: int
) -> None:
    sandboxed.serve(exposed())
    for ask, _protocol in asked(sandboxed.lan.a1, family):
        with pytest.raises(ConnectionRefusedError):
            ask()
