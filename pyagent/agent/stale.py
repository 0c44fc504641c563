"""Ends sockets that would talk into a backend that is gone.

A connected UDP socket runs no hook when it sends, so a resolver would ask a dead pod for ever. The reaper's
thread lists the translated sockets, asks the loop about the backends they have, and ends those that the
loop gives up. Unconnected UDP sockets choose anew by themselves and are never touched.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import NamedTuple, Protocol

import msgspec

from pyagent.agent.facts import Facts
from pyagent.datapath.held import HeldState
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.stale_endpoints import Fate, fate
from pyagent.kernel.connections import Connection, connections
from pyagent.kernel.stale_sockets import destroy
from pyagent.model.address import Protocol as Transport
from pyagent.model.address import family_of, format_endpoint
from pyagent.model.failures import KubesockError
from pyagent.model.service import ServicePortKey

log = logging.getLogger(__name__)
AGAIN_SECONDS = 5.0
PASS_SECONDS = 0.25
"""At most one walk over the sockets in this time."""


class UsedBackend(NamedTuple):
    """A backend that sockets are connected to, as their records name it."""

    service_port: int
    service_port_incarnation: int
    backend_id: int
    backend_incarnation: int
    address: bytes
    port: int


class BackendsUsed(msgspec.Struct, frozen=True):
    """The reaper asks the loop: which of these are to be given up?"""

    backends: frozenset[UsedBackend]


WordsOf = Callable[[ServicePortKey], Mapping[tuple[bytes, int], tuple[int, int]]]
"""`HeldState.backend_words`."""


class Judge:
    """Decides about backends; used by the loop's thread only.

    Args:
        grace: seconds that sockets stay on a backend that is merely not ready (`--udp-grace`).
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._unready_since: dict[UsedBackend, float] = {}

    def judge(
        self, used: frozenset[UsedBackend], held: HeldState, snapshot: Snapshot, now: float
    ) -> tuple[frozenset[UsedBackend], float | None]:
        """Those to give up, and when to ask again for the sake of a grace that runs (None: no need)."""
        doomed = set()
        waiting: dict[UsedBackend, float] = {}
        # Thousands of sockets may be on one service port, which is looked at once for all of them.
        words = cache(held.backend_words)
        for backend in used:
            found = self._fate(backend, held, snapshot, words)
            if found is Fate.GONE:
                doomed.add(backend)
            elif found is Fate.UNREADY:
                since = self._unready_since.get(backend, now)
                if now - since >= self._grace and self._another_is_eligible(backend, held):
                    doomed.add(backend)
                else:
                    waiting[backend] = since
        self._unready_since = waiting
        return frozenset(doomed), min(waiting.values()) + self._grace if waiting else None

    @staticmethod
    def _fate(backend: UsedBackend, held: HeldState, snapshot: Snapshot, words: WordsOf) -> Fate:
        key = held.service_port_keys.get(backend.service_port)
        if key is None or held.service_ports[key].incarnation != backend.service_port_incarnation:
            return Fate.GONE
        found = words(key).get((backend.address, backend.port))
        if found == (backend.backend_id, backend.backend_incarnation):
            return Fate.SERVES
        return fate(snapshot.slices_of((key.namespace, key.name)), key, backend.address, backend.port)

    @staticmethod
    def _another_is_eligible(backend: UsedBackend, held: HeldState) -> bool:
        key = held.service_port_keys.get(backend.service_port)
        return key is not None and bool(held.backend_words(key))


class Flows(Protocol):
    """Connections of packets; what they go to is judged as sockets' backends are."""

    def used(self, protocols: Collection[Transport]) -> set[tuple[int, int, int, int, bytes, int]]:
        """The backends that they go to, with the fields of `UsedBackend`."""

    def end(
        self, doomed: Iterable[tuple[int, int, int, int, bytes, int]], protocols: Collection[Transport]
    ) -> int:
        """Forget those that go to these backends; how many there were."""


class Reaper:
    """The thread that walks over sockets and ends them."""

    def __init__(
        self,
        open_connections: Callable[[], int],
        facts: Facts,
        ask: Callable[[BackendsUsed], None],
        protocols: frozenset[Transport],
        tell: Callable[[list[Connection]], None],
        flows: Flows,
    ) -> None:
        """
        Args:
            open_connections: loads the connection table, once, in the reaper's thread.
            ask: hands a question to the loop, which answers by `answer`.
            protocols: whose sockets may be ended: UDP, and TCP with --terminate-tcp.
            tell: hears of the sockets that were ended.
            flows: connections from outside, which have no socket here.
        """
        self._tell = tell
        self._flows = flows
        self._open_connections = open_connections
        self._facts = facts
        self._ask = ask
        self._protocols = protocols
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._doomed: frozenset[UsedBackend] = frozenset()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="stale-sockets", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=2)

    def look(self) -> None:
        """Backends have changed: walk over the sockets soon."""
        self._wake.set()

    def answer(self, doomed: frozenset[UsedBackend]) -> None:
        """What the loop gives up."""
        if doomed:
            with self._lock:
                self._doomed |= doomed
            self._wake.set()

    def _run(self) -> None:
        link: int | None = None
        try:
            link = self._open_connections()
        except (KubesockError, OSError) as error:
            log.warning("no connection table: stale UDP sockets are not ended: %s", error)
            self._facts.sockets_kept((str(error),))
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._walk(link)
            except (KubesockError, OSError) as error:  # no descriptor now: this thread must outlive it
                log.warning("sockets were not looked at, tried again in %g s: %s", AGAIN_SECONDS, error)
                self._wake.set()
                self._stopping.wait(AGAIN_SECONDS)
            self._stopping.wait(PASS_SECONDS)

    def _walk(self, link: int | None) -> None:
        with self._lock:
            doomed, self._doomed = self._doomed, frozenset()
        used, found = self._of_packets(doomed), []
        for one in connections(link) if link is not None else ():
            if one.protocol not in self._protocols:
                continue
            backend = UsedBackend(*one[11:15], one.peer, one.peer_port)
            if backend in doomed:
                found.append(one)
            else:
                used.add(backend)
        if found:
            self._end(found)
        if used:
            self._ask(BackendsUsed(frozenset(used)))

    def _of_packets(self, doomed: frozenset[UsedBackend]) -> set[UsedBackend]:
        try:
            if doomed and (count := self._flows.end(doomed, self._protocols)):
                log.info("%d entries of flows on backends that are gone were removed", count)
            return {UsedBackend(*one) for one in self._flows.used(self._protocols)}
        except (KubesockError, OSError) as error:
            log.warning("flows from outside stay on their backends: %s", error)
            return set()

    def _end(self, found: list[Connection]) -> None:
        started = time.monotonic()
        result = destroy(found)
        families = Counter(family_of(one.frontend) for one in result.destroyed)
        self._facts.sockets_destroyed(families, time.monotonic() - started)
        if result.destroyed:
            self._tell(result.destroyed)
        for one in result.destroyed:
            log.info(
                "ended a socket on a backend that is gone: dialled %s, backend %s",
                format_endpoint(one.frontend, one.frontend_port),
                format_endpoint(one.peer, one.peer_port),
            )
        if result.refused:
            self._facts.sockets_kept([reason for _one, reason in result.refused])
        for one, reason in result.refused:
            log.warning("a socket stays on %s: %s", format_endpoint(one.peer, one.peer_port), reason)
