"""Interfaces, addresses and routes inside network namespaces. Only importer of pyroute2 in this package.

Everything happens in the calling process's current namespaces, so callers run it in a fork.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2 import IPRoute

from pyagent.demo.syscalls import enter_network

BRIDGE = "cni0"
BRIDGE_ADDRESS = "02:00:0a:f4:00:01"
POD_INTERFACE = "eth0"
IFA_F_NODAD = 0x02


class Attachment(NamedTuple):
    """One namespace on the bridge."""

    name: str  # of the veth's end beside the bridge; up to 15 characters, unique in the node
    namespace: Path
    addresses: tuple[str, ...]  # ADDRESS/BITS
    routes: tuple[str, ...] = ()  # CIDRs reached directly over the bridge


def make_bridge(node: Path, addresses: Iterable[str]) -> None:
    """Give a namespace a bridge with addresses. It has no other interface, so nothing leads outside."""
    enter_network(node)
    with IPRoute() as netlink:
        _loopback_up(netlink)
        # Without an address of its own a bridge takes its ports' lowest one, and changes it as pods come and
        # go: whoever has the old one in its neighbour table waits for seconds.
        netlink.link("add", ifname=BRIDGE, kind="bridge", address=BRIDGE_ADDRESS, br_mcast_snooping=0)
        _set_up(netlink, BRIDGE, addresses, ())


def attach(node: Path, attachments: Sequence[Attachment]) -> None:
    """Connect namespaces to the node's bridge by veth pairs. There is no default route."""
    enter_network(node)
    with IPRoute() as netlink:
        bridge = _index(netlink, BRIDGE)
        for attachment in attachments:
            name = attachment.name
            with attachment.namespace.open("rb") as namespace:
                peer = {"ifname": POD_INTERFACE, "net_ns_fd": namespace.fileno()}
                netlink.link("add", ifname=name, kind="veth", peer=peer)
            netlink.link("set", index=_index(netlink, name), master=bridge, state="up")
    for attachment in attachments:
        enter_network(attachment.namespace)
        with IPRoute() as netlink:
            _loopback_up(netlink)
            _set_up(netlink, POD_INTERFACE, attachment.addresses, attachment.routes)
        # A server may accept MSG_FASTOPEN; where /proc/sys is read-only the kernel falls back to a plain SYN.
        with contextlib.suppress(OSError):
            Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3")


def loopback_only(namespace: Path) -> None:
    """Give a namespace nothing but its loopback interface."""
    enter_network(namespace)
    with IPRoute() as netlink:
        _loopback_up(netlink)


def _loopback_up(netlink: Any) -> None:
    netlink.link("set", index=1, state="up")


def _set_up(netlink: Any, name: str, addresses: Iterable[str], routes: Iterable[str]) -> None:
    index = _index(netlink, name)
    for text in addresses:
        address = ipaddress.ip_interface(text)
        # Duplicate address detection would keep an IPv6 address unusable for a second.
        flags = {"flags": IFA_F_NODAD} if address.version == 6 else {}
        netlink.addr(
            "add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **flags
        )
    netlink.link("set", index=index, state="up")
    for text in routes:
        netlink.route("add", dst=text, oif=index, scope="link")


def _index(netlink: Any, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise LookupError(f"no interface {name} in this network namespace")
    return int(found[0])
