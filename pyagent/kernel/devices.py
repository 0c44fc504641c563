"""The network devices of this namespace, read and followed over rtnetlink (RFC 3549)."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from pyagent.kernel.node_addresses import attributes, messages, open_netlink
from pyagent.model.address import V4_MAPPED_PREFIX, is_link_local, is_loopback
from pyagent.model.device import Device

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_INFO_KIND = 3, 10, 18, 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_SECONDARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
RTA_OIF, RTA_MULTIPATH, RTN_UNICAST, RT_TABLE_MAIN = 4, 9, 1, 254
IFF_UP = 1
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes
SETTLE_SECONDS = 0.2
"""How long changes are gathered: a device that comes up changes several times."""
RETRY_SECONDS = 1.0

_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
RECEIVE = 1 << 17


def devices() -> tuple[Device, ...]:
    """All devices of the caller's network namespace.

    Raises:
        OSError: netlink refused.
    """
    defaults = frozenset(_default_devices())
    addresses: dict[int, list[tuple[bool, bytes]]] = {}
    for body in _dump(RTM_GETADDR, RTM_NEWADDR, _IFADDR.size):
        index, secondary, address = _address(body)
        if address is not None:
            addresses.setdefault(index, []).append((secondary, address))
    return tuple(_device(body, addresses, defaults) for body in _dump(RTM_GETLINK, RTM_NEWLINK, _IFINFO.size))


def _device(body: bytes, addresses: dict[int, list[tuple[bool, bytes]]], defaults: frozenset[int]) -> Device:
    _family, hardware, index, flags, _change = _IFINFO.unpack_from(body)
    found = dict(attributes(body[_IFINFO.size :]))
    info = dict(attributes(found.get(IFLA_LINKINFO, b"")))
    return Device(
        index,
        found.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        hardware,
        bool(flags & IFF_UP),
        struct.unpack("=I", found[IFLA_MASTER])[0] if IFLA_MASTER in found else 0,
        tuple(address for _secondary, address in sorted(addresses.get(index, []), key=lambda one: one[0])),
        index in defaults,
    )


def _address(body: bytes) -> tuple[int, bool, bytes | None]:
    """(device, whether another one is preferred, address or None where it is no source)."""
    family, _prefix, flags, _scope, index = _IFADDR.unpack_from(body)
    found = dict(attributes(body[_IFADDR.size :]))
    raw = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if IFA_FLAGS in found:
        flags = struct.unpack("=I", found[IFA_FLAGS])[0]
    if raw is None or flags & (IFA_F_DADFAILED | IFA_F_TENTATIVE | IFA_F_DEPRECATED):
        return index, False, None
    address = V4_MAPPED_PREFIX + raw if family == socket.AF_INET else raw
    if is_link_local(address) or is_loopback(address):
        return index, False, None
    # An IPv6 address is "secondary" where it is a temporary one (RFC 8981).
    return index, bool(flags & IFA_F_SECONDARY), address


def _default_devices() -> Iterator[int]:
    for body in _dump(RTM_GETROUTE, RTM_NEWROUTE, _ROUTE.size):
        _family, bits, _source, _tos, table, _protocol, _scope, kind, _flags = _ROUTE.unpack_from(body)
        if bits or table != RT_TABLE_MAIN or kind != RTN_UNICAST:
            continue
        found = dict(attributes(body[_ROUTE.size :]))
        if RTA_OIF in found:
            yield struct.unpack("=I", found[RTA_OIF])[0]
        hops = found.get(RTA_MULTIPATH, b"")
        while len(hops) >= 8:  # struct rtnexthop: length, flags, hops, device
            length, device = struct.unpack_from("=HxxI", hops)
            yield device
            if length < 8:
                break
            hops = hops[(length + 3) & ~3 :]


def _dump(request: int, wanted: int, size: int) -> Iterator[bytes]:
    with open_netlink(0) as query:
        query.send(_HEADER.pack(_HEADER.size + size, request, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + bytes(size))
        while True:
            for kind, body in messages(query.recv(RECEIVE)):
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", body)[0], "read network devices over netlink")
                if kind == wanted:
                    yield body


class DeviceWatch:
    """A thread that calls `look` at its start, after changes, and now and then."""

    def __init__(self, look: Callable[[], None], seconds: Callable[[], float]) -> None:
        """
        Args:
            look: must not raise.
            seconds: until the next look if nothing changes.
        """
        self._look = look
        self._seconds = seconds
        self._events = open_netlink(GROUPS)
        self._events.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="devices", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look soon, whatever the kernel says."""
        self._wake.send(b"x")

    def stop(self) -> None:
        self._stopping.set()
        self.wake()
        self._thread.join(timeout=5)
        for made in (self._events, self._wake, self._woken):
            made.close()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._look()
            if self._stopping.is_set():  # a look may compile for seconds, and what is waited for be closed
                return
            select.select([self._events, self._woken], [], [], self._seconds())
            if not self._stopping.wait(SETTLE_SECONDS):
                for source in (self._events, self._woken):
                    _drain(source)


def _drain(source: socket.socket) -> None:
    try:
        while source.recv(RECEIVE):
            pass
    except OSError:  # empty; or ENOBUFS, some were lost: the look that follows reads everything
        return
