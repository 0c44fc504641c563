"""The addresses of this network namespace's interfaces, read and followed over rtnetlink (RFC 3549).

A raw socket instead of pyroute2: the agent runs on every node, and that import costs it 20 MB.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pyagent.model.address import V4_MAPPED_PREFIX, Family, is_link_local, parse_address

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0
RTM_NEWADDR, RTM_GETADDR = 20, 22
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_TENTATIVE, IFA_F_DADFAILED = 0x40, 0x08
GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
ROUTE_GROUPS = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_HEADER = struct.Struct("=IHHII")
_IFADDR = struct.Struct("=BBBBI")
RECEIVE = 1 << 16


class InterfaceAddress(NamedTuple):
    address: bytes  # 16 bytes
    interface: int


def node_addresses() -> frozenset[InterfaceAddress]:
    """All usable addresses of the caller's network namespace.

    Tentative ones are left out, and link-local ones of IPv6, which mean nothing without their interface.
    """
    with open_netlink(0) as query:
        request = _HEADER.pack(_HEADER.size + _IFADDR.size, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        query.send(request + bytes(_IFADDR.size))
        found: set[InterfaceAddress] = set()
        while True:
            for kind, body in messages(query.recv(RECEIVE)):
                if kind == NLMSG_DONE:
                    return frozenset(found)
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, "read interface addresses over netlink")
                if kind == RTM_NEWADDR:
                    address = _usable(body)
                    if address is not None:
                        found.add(address)


def usual_source(family: Family) -> bytes | None:
    """The address of a packet to nowhere in particular (RFC 5737, RFC 3849); None without a route there.

    connect() of UDP asks the kernel for it and sends nothing.
    """
    is_ipv4 = family is Family.IPV4
    try:
        with socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM) as made:
            made.connect(("192.0.2.1" if is_ipv4 else "2001:db8::1", 9))
            return parse_address(made.getsockname()[0])
    except OSError:
        return None


def open_netlink(groups: int) -> socket.socket:
    """A route netlink socket of the caller's network namespace that hears of `groups`."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message."""
    while len(data) >= _HEADER.size:
        length, kind, *_rest = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _usable(body: bytes) -> InterfaceAddress | None:
    family, _prefix, flags, _scope, interface = _IFADDR.unpack_from(body)
    found = dict(attributes(body[_IFADDR.size :]))
    raw = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
    if IFA_FLAGS in found:
        flags = struct.unpack("=I", found[IFA_FLAGS])[0]
    if raw is None or flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED):
        return None
    if family == socket.AF_INET:
        return InterfaceAddress(V4_MAPPED_PREFIX + raw, interface)
    return None if is_link_local(raw) else InterfaceAddress(raw, interface)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each netlink attribute; nested ones are attributes again."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


class AddressWatch:
    """A thread that tells the addresses at its start and after each change."""

    def __init__(self, changed: Callable[[frozenset[InterfaceAddress]], None]) -> None:
        self._changed = changed
        self._events = open_netlink(GROUPS)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._follow, name="node-addresses", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._wake.send(b"x")
        self._thread.join(timeout=2)
        for made in (self._events, self._wake, self._woken):
            made.close()

    def _follow(self) -> None:
        known: frozenset[InterfaceAddress] | None = None
        self._events.setblocking(True)
        while True:
            patience = None
            try:
                current = node_addresses()
            except OSError as error:  # no memory or descriptor now: the watch must outlive it
                log.warning("interface addresses not read, tried again: %s", error)
                patience = RETRY_SECONDS
            else:
                if current != known:
                    known = current
                    self._changed(current)
            if not self._wait(patience):
                return

    def _wait(self, patience: float | None) -> bool:
        ready, _w, _x = select.select([self._events, self._woken], [], [], patience)
        if self._woken in ready:
            return False
        if ready:
            with contextlib.suppress(OSError):  # ENOBUFS: some were lost; the full read that follows makes up
                self._events.recv(RECEIVE)
        return True
