"""Network devices of this node, as the kernel tells them."""

from __future__ import annotations

from typing import NamedTuple

ETHERNET, LOOPBACK = 1, 772
"""`ARPHRD_*` of include/uapi/linux/if_arp.h."""


class Device(NamedTuple):
    """One network device of the node's namespace.

    Attributes:
        kind: what made it (`veth`, `vxlan`, `bridge`, ...); empty for hardware.
        hardware: `ARPHRD_*`: only Ethernet devices put a header of their own in front of the IP header.
        master: index of the bridge or bond that it is a port of; 0: none.
        addresses: 16 bytes each, usable as a source, the preferred one of each family first.
        default_route: whether packets for addresses that nothing else is known of leave by it.
    """

    ifindex: int
    name: str
    kind: str
    hardware: int
    up: bool
    master: int
    addresses: tuple[bytes, ...] = ()
    default_route: bool = False


class Covered(NamedTuple):
    """A device at which packets for Services are served.

    Attributes:
        ethernet: whether its packets begin with an Ethernet header.
        pod_side: workloads are behind it, not other nodes and clients.
        ipv4, ipv6: the source of packets that go on to another node; zeros: none.
    """

    ifindex: int
    name: str
    ethernet: bool
    pod_side: bool
    ipv4: bytes
    ipv6: bytes
