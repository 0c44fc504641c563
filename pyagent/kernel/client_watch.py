"""Which addresses the network namespaces of this node have, followed as they come, change and go.

The node's own is among them from the start, those of pods are in /run/netns.

Source ranges are about client addresses, but a socket that is not bound shows none in connect(): what
it will get is the address of its namespace. A container runtime makes the namespace and its addresses
before it starts the pod's first process, so the map is filled by then.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import inotify_simple

from pyagent.kernel.network_namespaces import RUN_NETNS, inside, named, of_processes, paths_by_inode
from pyagent.kernel.node_addresses import (
    GROUPS,
    RECEIVE,
    ROUTE_GROUPS,
    node_addresses,
    open_netlink,
    usual_source,
)
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.address import Family, family_of, is_link_local, is_loopback
from pyagent.model.failures import KernelRefused

log = logging.getLogger(__name__)
NO_ADDRESS = bytes(16)
OWN = Path("/proc/self/ns/net")  # the node's, in which the agent runs
RETRY_SECONDS = 0.005
FIND_SECONDS = 1.0
AGAIN_SECONDS = 5.0
REVIEW_SECONDS = 10.0
"""Between two looks at the namespaces without a name, of which nothing tells that they change or go."""

RETRIES = 40
"""A new file in /run/netns becomes a namespace when it is mounted over, a moment later."""


class ClientAddresses(NamedTuple):
    """Of one network namespace; NO_ADDRESS where it has none of that family."""

    ipv4: bytes
    ipv6: bytes


class _Followed(NamedTuple):
    cookie: int
    changes: socket.socket


def addresses_here(preferred: Collection[bytes] = ()) -> ClientAddresses:
    """Of the caller's network namespace; loopback left out.

    Of several a preferred one, else what a packet along the default route would have, else the lowest.
    """
    by_route = {usual_source(family) for family in Family}
    usable = sorted(
        (a.address for a in node_addresses() if not is_loopback(a.address) and not is_link_local(a.address)),
        key=lambda address: (address not in preferred, address not in by_route, address),
    )
    first = {family: next((a for a in usable if family_of(a) is family), NO_ADDRESS) for family in Family}
    return ClientAddresses(first[Family.IPV4], first[Family.IPV6])


class ClientWatch:
    """The thread that follows them.

    Args:
        changed: called with all namespaces, cookie -> addresses, after each change; first with all that
            were there at the start.
    """

    def __init__(self, changed: Callable[[Mapping[int, ClientAddresses]], None]) -> None:
        self._changed = changed
        self._known: dict[int, ClientAddresses] = {}
        self._news = True
        self._followed: dict[Path, _Followed] = {}
        self._pending: dict[Path, int] = {}
        self._wake, self._woken = socket.socketpair()
        self._stopping = threading.Event()
        self._unknown: dict[int, int] = {}  # cookie -> a process there
        self._unnamed: dict[int, int] = {}  # cookie -> inode of a namespace that was found by a process
        self._review_at = 0.0
        self._preferred: frozenset[bytes] = frozenset()
        self._preferred_is_new = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="clients", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.send(b"x")
        self._thread.join(timeout=2)

    def prefer(self, addresses: frozenset[bytes]) -> None:
        """The Node's addresses: what its own processes are known by, of all that its interfaces have."""
        with self._lock:
            self._preferred_is_new = self._preferred_is_new or addresses != self._preferred
            self._preferred = addresses
        self._wake.send(b"x")

    def find(self, cookie: int, pid: int) -> None:
        """A socket of this namespace was refused because nobody knows its address: look for it now.

        Args:
            pid: the process that made the call.
        """
        with self._lock:
            self._unknown[cookie] = pid
        self._wake.send(b"x")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._watch()
            except OSError as error:
                log.error(
                    "clients' addresses are not followed, tried again in %g s: %s", AGAIN_SECONDS, error
                )
                self._stopping.wait(AGAIN_SECONDS)

    def _watch(self) -> None:
        for followed in self._followed.values():
            followed.changes.close()
        self._followed.clear()
        with contextlib.closing(inotify_simple.INotify(nonblocking=True)) as files:
            self._files = files
            self._watched = False
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._woken, selectors.EVENT_READ, None)
            self._selector.register(files.fileno(), selectors.EVENT_READ, None)
            self._rescan()
            while not self._stopping.is_set():
                self._tell()
                ready = self._selector.select(RETRY_SECONDS if self._pending else 1.0)
                self._handle([key.data for key, _events in ready if key.data is not None])

    def _handle(self, changed_in: list[Path]) -> None:
        if select_has_data(self._woken):
            self._woken.recv(4096)
            with self._lock:
                again, self._preferred_is_new = self._preferred_is_new, False
            if again:
                changed_in = list(self._followed)
            self._find_unknown()
        if not self._watched or self._files.read(timeout=0):
            self._rescan()
        for path in [*self._pending, *changed_in]:
            self._refresh(path)
        if self._unnamed and time.monotonic() >= self._review_at:
            self._review_unnamed()

    def _rescan(self) -> None:
        if not self._watched and RUN_NETNS.is_dir():
            flags = inotify_simple.flags
            mask = flags.CREATE | flags.DELETE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE_SELF
            self._files.add_watch(str(RUN_NETNS), mask)
            self._watched = True
        there = {OWN, *named()}
        for path in self._followed.keys() - there:
            self._forget(path)
        for path in there - self._followed.keys():
            self._pending.setdefault(path, 0)
            self._refresh(path)

    def _forget(self, path: Path) -> None:
        # An open socket would keep the namespace alive after its pod.
        gone = self._followed.pop(path)
        self._selector.unregister(gone.changes)
        gone.changes.close()
        if all(other.cookie != gone.cookie for other in self._followed.values()):  # it may have two names
            self._news = self._known.pop(gone.cookie, None) is not None or self._news

    def _refresh(self, path: Path) -> None:
        try:
            if path not in self._followed:
                self._follow(path)
            followed = self._followed[path]
            with contextlib.suppress(OSError):  # nothing waits, or some were lost: what follows reads all
                followed.changes.recv(RECEIVE, socket.MSG_DONTWAIT)
            self._learn(followed.cookie, inside(path, self._addresses_here))
        except (OSError, KernelRefused) as error:
            self._later(path, error)

    def _follow(self, path: Path) -> None:
        # The node's address is not its routes', which change with every pod.
        groups = GROUPS if path == OWN else GROUPS | ROUTE_GROUPS
        cookie, changes = inside(path, lambda: (netns_cookie(), open_netlink(groups)))
        self._followed[path] = _Followed(cookie, changes)
        self._selector.register(changes, selectors.EVENT_READ, path)
        self._pending.pop(path, None)

    def _addresses_here(self) -> ClientAddresses:
        return addresses_here(self._preferred)

    def _later(self, path: Path, error: Exception) -> None:
        tries = self._pending.get(path, 0) + 1
        if path in self._followed:
            self._forget(path)
        if tries <= RETRIES and path.exists():
            self._pending[path] = tries
            return
        self._pending.pop(path, None)
        if path.exists():
            log.warning("addresses of %s are not known: %s", path, error)

    def _learn(self, cookie: int, addresses: ClientAddresses) -> None:
        if self._known.get(cookie) != addresses:
            self._known[cookie] = addresses
            self._news = True

    def _tell(self) -> None:
        if self._news:
            self._news = False
            self._changed(dict(self._known))

    def _find_unknown(self) -> None:
        """Look at the process that called, then among all processes' namespaces."""
        with self._lock:
            unknown, self._unknown = self._unknown, {}
        wanted = {cookie: pid for cookie, pid in unknown.items() if cookie not in self._known}
        callers = [Path(f"/proc/{pid}/ns/net") for pid in wanted.values()]
        seen: set[int] = set()
        until = time.monotonic() + FIND_SECONDS
        for path in itertools.chain(callers, of_processes()):
            if not wanted or time.monotonic() > until:
                return
            with contextlib.suppress(OSError, KernelRefused):  # gone meanwhile, or not ours to enter
                inode = path.stat().st_ino
                if inode in seen:
                    continue
                seen.add(inode)
                cookie, addresses = inside(path, lambda: (netns_cookie(), self._addresses_here()))
                if wanted.pop(cookie, None) is not None:
                    self._unnamed[cookie] = inode
                    self._learn(cookie, addresses)
                    self._tell()

    def _review_unnamed(self) -> None:
        """Read their addresses again, and forget those that no process is in any more."""
        paths = paths_by_inode(set(self._unnamed.values()))
        named_now = {one.cookie for one in self._followed.values()}
        for cookie, inode in list(self._unnamed.items()):
            there = None
            if inode in paths and cookie not in named_now:
                with contextlib.suppress(OSError, KernelRefused):  # gone meanwhile
                    there, addresses = inside(paths[inode], lambda: (netns_cookie(), self._addresses_here()))
            if there == cookie:
                self._learn(cookie, addresses)
                continue
            del self._unnamed[cookie]
            if cookie not in named_now:
                self._news = self._known.pop(cookie, None) is not None or self._news
        self._review_at = time.monotonic() + REVIEW_SECONDS


def select_has_data(one: socket.socket) -> bool:
    """Whether a read would not wait."""
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ)
        return bool(selector.select(0))
