"""A client outside the cluster, a router, two nodes with pods, every one a network namespace; no way out.

    client 203.0.113.7 -- router -- 192.0.2.0/24 -- node-a 192.0.2.11  pods a1 a2  (10.244.1.0/24)
                                              |---- node-b 192.0.2.12  pod  b1     (10.244.2.0/24)

The router sends LB_RANGE and the ClusterIPs to node-a. Nodes forward; pods have their node as default route.
IPv6 likewise, fd00::/16.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pyroute2 import IPRoute

from pyagent.demo.calls import call
from pyagent.demo.echo import Listener, spawn_server
from pyagent.demo.sandbox import Sandbox
from pyagent.demo.syscalls import enter_network

T = TypeVar("T")
IFA_F_NODAD = 0x02
RTAX_MTU = 2
PORTS = (8080, 5353)
BULK_PORT = 9000
LB_RANGE = ("198.51.100.0/24", "fd00:51::/64")
CLUSTER_RANGE = ("10.96.0.0/16", "fd00:96::/112")
CLIENT_MTU = 1400
"""Between router and client: the router tells senders of longer packets so."""


class Host(NamedTuple):
    """A namespace with an address of each family."""

    name: str
    netns: Path
    ipv4: str
    ipv6: str

    def address(self, family: int) -> str:
        return self.ipv4 if family == 4 else self.ipv6

    def do(self, work: Callable[[], T], timeout: float = 15.0) -> T:
        """What `work()` returns there."""
        return call(work, netns=self.netns, timeout=timeout)


class Port(NamedTuple):
    """One end of a veth pair: ADDRESS/BITS each, and routes as (destination, gateway or "")."""

    netns: Path
    name: str
    addresses: Sequence[str]
    routes: Sequence[tuple[str, str]] = ()
    mtu: int = 0  # of its routes, as a router along the way would have it; 0: the device's


class Lan:
    """All of it, with servers on every pod and on node-a, under their names."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.client = self._host("client", "203.0.113.7", "fd00:113::7")
        self.router = self._host("router", "192.0.2.254", "fd00:2::fe")
        self.node_a = self._host("node-a", "192.0.2.11", "fd00:2::11")
        self.node_b = self._host("node-b", "192.0.2.12", "fd00:2::12")
        self.a1 = self._host("a1", "10.244.1.2", "fd00:244:1::2")
        self.a2 = self._host("a2", "10.244.1.3", "fd00:244:1::3")
        self.b1 = self._host("b1", "10.244.2.2", "fd00:244:2::2")
        self.pods = (self.a1, self.a2, self.b1)
        self._connect()
        for host in (*self.pods, self.node_a):
            self._serve(host)

    def _host(self, name: str, ipv4: str, ipv6: str) -> Host:
        return Host(name, self.sandbox.new_namespace(name), ipv4, ipv6)

    def _connect(self) -> None:
        lan = self.sandbox.new_namespace("lan")
        call(partial(_bridge, lan, "lan0"))
        for host in (self.router, self.node_a, self.node_b):
            call(partial(_forward, host.netns))
        _join(
            Port(
                self.router.netns,
                "down",
                ("203.0.113.1/32", "fd00:113::1/128"),
                (("203.0.113.0/24", ""), ("fd00:113::/64", "")),
                CLIENT_MTU,
            ),
            Port(
                self.client.netns,
                "eth0",
                ("203.0.113.7/24", "fd00:113::7/64"),
                (("0.0.0.0/0", "203.0.113.1"), ("::/0", "fd00:113::1")),
            ),
        )
        to_pods = {
            "node-a": (("10.244.2.0/24", "192.0.2.12"), ("fd00:244:2::/64", "fd00:2::12")),
            "node-b": (("10.244.1.0/24", "192.0.2.11"), ("fd00:244:1::/64", "fd00:2::11")),
        }
        outwards = (("0.0.0.0/0", "192.0.2.254"), ("::/0", "fd00:2::fe"))
        to_services = tuple(
            (network, self.node_a.address(6 if ":" in network else 4))
            for network in (*LB_RANGE, *CLUSTER_RANGE)
        )
        for host in (self.router, self.node_a, self.node_b):
            routes = to_services if host is self.router else (*to_pods[host.name], *outwards)
            addresses = (f"{host.ipv4}/24", f"{host.ipv6}/64")
            _join(Port(lan, host.name, ()), Port(host.netns, "eth0", addresses, routes), bridge="lan0")
        for pod in self.pods:
            node = self.node_b if pod is self.b1 else self.node_a
            number = 2 if pod is self.b1 else 1
            gateways = (f"10.244.{number}.1", f"fd00:244:{number}::1")
            _join(
                Port(
                    node.netns,
                    f"veth-{pod.name}",
                    (f"{gateways[0]}/32", f"{gateways[1]}/128"),
                    ((f"{pod.ipv4}/32", ""), (f"{pod.ipv6}/128", "")),
                ),
                Port(
                    pod.netns,
                    "eth0",
                    (f"{pod.ipv4}/32", f"{pod.ipv6}/128"),
                    (
                        (f"{gateways[0]}/32", ""),
                        (f"{gateways[1]}/128", ""),
                        ("0.0.0.0/0", gateways[0]),
                        ("::/0", gateways[1]),
                    ),
                ),
            )

    def _serve(self, host: Host) -> None:
        listeners = [
            Listener(address, port, protocol)
            for address in (host.ipv4, host.ipv6)
            for port in PORTS
            for protocol in ("TCP", "UDP")
        ]
        place = partial(self.sandbox.spawn, netns=host.netns, label=f"server {host.name}")
        spawn_server(place, host.name, listeners)
        for address in (host.ipv4, host.ipv6):
            self.sandbox.spawn(partial(_bulk, address), netns=host.netns, label="bulk")


def _bridge(netns: Path, name: str) -> None:
    enter_network(netns)
    with IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="bridge", br_mcast_snooping=0)
        netlink.link("set", index=netlink.link_lookup(ifname=name)[0], state="up")


def _forward(netns: Path) -> None:
    enter_network(netns)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")


def _join(one: Port, other: Port, bridge: str = "") -> None:
    """A veth pair; the first end becomes a port of a bridge if that is named."""
    call(partial(_make_pair, one, other, bridge), timeout=20)


def _make_pair(one: Port, other: Port, bridge: str) -> None:
    enter_network(one.netns)
    with IPRoute() as netlink, other.netns.open("rb") as there:
        peer = {"ifname": other.name, "net_ns_fd": there.fileno()}
        netlink.link("add", ifname=one.name, kind="veth", peer=peer)
        if bridge:
            index = netlink.link_lookup(ifname=one.name)[0]
            netlink.link("set", index=index, master=netlink.link_lookup(ifname=bridge)[0], state="up")
    enter_network(other.netns)
    with IPRoute() as netlink:
        _set_up(netlink, other)
    if not bridge:
        enter_network(one.netns)
        with IPRoute() as netlink:
            _set_up(netlink, one)


def _set_up(netlink: Any, port: Port) -> None:
    netlink.link("set", index=1, state="up")
    index = netlink.link_lookup(ifname=port.name)[0]
    netlink.link("set", index=index, state="up")
    for text in port.addresses:
        address, _, bits = text.partition("/")
        flags = {"flags": IFA_F_NODAD} if ":" in address else {}
        netlink.addr("add", index=index, address=address, prefixlen=int(bits), **flags)
    for destination, gateway in port.routes:
        family = socket.AF_INET6 if ":" in destination else socket.AF_INET
        how: dict[str, Any] = {"gateway": gateway} if gateway else {"scope": 253}
        if port.mtu:
            how["metrics"] = {"attrs": [["RTAX_LOCK", 1 << RTAX_MTU], ["RTAX_MTU", port.mtu]]}
        netlink.route("add", dst=destination, oif=index, family=family, **how)


def _bulk(address: str) -> None:
    """Sends everything back, until the client has said all."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, BULK_PORT), family=family) as listening:
        while True:
            with contextlib.suppress(OSError):
                sock, _ = listening.accept()
                with sock:
                    while data := sock.recv(1 << 16):
                        sock.sendall(data)


def transfer(address: str, port: int, size: int) -> tuple[int, bool]:
    """Send `size` bytes and read them back: (how many came, whether they are the same)."""
    sent = struct.pack("=I", 0x6B756265) * (size // 4)
    came = bytearray()
    with socket.create_connection((address, port), timeout=10) as sock:
        sock.settimeout(10)
        for at in range(0, size, 1 << 16):
            sock.sendall(sent[at : at + (1 << 16)])
            wanted = min(at + (1 << 16), size)
            while len(came) < wanted:
                chunk = sock.recv(1 << 16)
                if not chunk:
                    return len(came), False
                came += chunk
        sock.shutdown(socket.SHUT_WR)
    return len(came), bytes(came) == sent
