"""Which devices serve packets from outside (`--outside`)."""

from __future__ import annotations

from collections.abc import Container, Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from pyagent.model.address import Family, family_of
from pyagent.model.device import ETHERNET, LOOPBACK, Covered, Device
from pyagent.model.failures import InvalidField

OFF, AUTO, POD_SIDE = "off", "auto", "pods:"
NOWHERE = bytes(16)

TUNNELS = frozenset(
    {
        "vxlan",
        "geneve",
        "gretap",
        "ip6gretap",
        "gre",
        "ip6gre",
        "ipip",
        "sit",
        "ip6tnl",
        "vti",
        "vti6",
        "xfrm",
    }
    | {"wireguard"}
)
"""What network plugins reach other nodes by."""

_NAME_CHARACTERS = 15


class OutsideChoice(NamedTuple):
    """`--outside`, read.

    Attributes:
        auto: uplinks and tunnels are found by themselves.
        uplinks, pod_side: names, `*` and `?` stand for anything.
    """

    auto: bool = False
    uplinks: tuple[str, ...] = ()
    pod_side: tuple[str, ...] = ()

    @property
    def is_off(self) -> bool:
        return not (self.auto or self.uplinks or self.pod_side)


def read_outside(items: Iterable[str]) -> OutsideChoice:
    """The value of `--outside`: `off`, or `auto`, names of devices and `pods:NAME` in any combination.

    Raises:
        InvalidField: names what is wrong.
    """
    wanted = [text for item in items if (text := item.strip())]
    if OFF in wanted:
        if len(wanted) > 1:
            raise InvalidField("off stands alone", ",".join(wanted))
        return OutsideChoice()
    names = [text for text in wanted if text != AUTO]
    for text in names:
        name = text.removeprefix(POD_SIDE)
        if not name or len(name) > _NAME_CHARACTERS or "/" in name or any(c.isspace() for c in name):
            raise InvalidField("no name of a network device; want off, auto, NAME or pods:NAME", text)
    if not wanted:
        raise InvalidField("nothing; want off, auto, NAME or pods:NAME", "")
    pods = tuple(text.removeprefix(POD_SIDE) for text in names if text.startswith(POD_SIDE))
    return OutsideChoice(AUTO in wanted, tuple(t for t in names if not t.startswith(POD_SIDE)), pods)


def covered_devices(
    choice: OutsideChoice,
    devices: Iterable[Device],
    own_addresses: frozenset[bytes],
    kept: Container[int] = (),
) -> tuple[Covered, ...]:
    """The devices to serve at, in the order of their names.

    `auto` takes those that have one of the node's addresses or a default route, and tunnels to other nodes.
    Ports of a bridge or bond are left to their master, which sees their packets too.

    Args:
        own_addresses: those of the Node object.
        kept: indexes of devices that `auto` takes in any case.
    """
    known = sorted(devices, key=lambda device: device.name)
    lender = _sources([address for device in known for address in device.addresses], own_addresses)
    found = []
    for device in known:
        pod_side = _is_named(device, choice.pod_side)
        named = pod_side or _is_named(device, choice.uplinks)
        if not device.up or device.hardware == LOOPBACK:
            continue
        found_out = device.ifindex in kept or (not device.master and _is_uplink(device, own_addresses))
        if not named and not (choice.auto and found_out):
            continue
        own = _sources(device.addresses, own_addresses)
        ipv4, ipv6 = (own.get(family) or lender.get(family, NOWHERE) for family in Family)
        found.append(Covered(device.ifindex, device.name, device.hardware == ETHERNET, pod_side, ipv4, ipv6))
    return tuple(found)


def _is_named(device: Device, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(device.name, pattern) for pattern in patterns)


def _is_uplink(device: Device, own_addresses: frozenset[bytes]) -> bool:
    return device.default_route or device.kind in TUNNELS or not own_addresses.isdisjoint(device.addresses)


def _sources(addresses: Iterable[bytes], own_addresses: frozenset[bytes]) -> dict[Family, bytes]:
    """An address of each family; the Node's own ones go before others."""
    listed = list(addresses)
    found: dict[Family, bytes] = {}
    for address in sorted(listed, key=lambda one: one not in own_addresses):
        found.setdefault(family_of(address), address)
    return found
