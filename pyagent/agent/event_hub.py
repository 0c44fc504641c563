"""Everything that happens, to everybody who listens: one thread drains the ring and fans out.

It never waits for a listener: what one does not read is counted and left out for that one. Without listeners
the hooks report nothing, and the thread sleeps.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pyagent.datapath.event_filter import EventFilter, Thinning, union
from pyagent.kernel.event_ring import EventRing, RingLock, unknown_source
from pyagent.kernel.map_set import MapSet
from pyagent.view.event_stream import BEAT_SECONDS, Beat, Dial, Kept, Wish, encode

log = logging.getLogger(__name__)

MAX_LISTENERS = 16
UNREAD = 1 << 19
"""Bytes that may wait for a listener; what comes beyond is skipped."""

STUCK_SECONDS = 120.0
"""Who has read nothing for so long is let go: it would keep the hooks reporting."""

KEPT = 1000
LEASE_SECONDS, RENEW_SECONDS = 15.0, 5.0
LOCK_SECONDS, RETRY_SECONDS = 0.5, 10.0
PAUSE_SECONDS = 0.02
"""Between two looks into the ring, so that a busy one is read in batches."""


class EventsWanted(msgspec.Struct, frozen=True):
    """To the loop: tell the hooks what to report, until a moment in nanoseconds since boot."""

    filter: EventFilter | None
    until: int


class _Client(NamedTuple):
    """A listener that has just come."""

    socket: socket.socket
    wish: Wish


class _Listener:
    """One that listens: what waits for it, and what it missed."""

    def __init__(self, wish: Wish, now: float) -> None:
        self.wish = wish
        self.thinning = Thinning()
        self.unread = bytearray()
        self.skipped = 0
        self.moved = self.beat = now

    def add(self, line: bytes) -> None:
        if len(self.unread) + len(line) > UNREAD:
            self.skipped += 1
        else:
            self.unread += line


class EventHub:
    """See the module. Everything public may be called from any thread and never blocks.

    Args:
        wanted: tells the loop, which alone writes maps.
        unknown: hears of refusals for want of a client's address: network namespace cookie, process.
    """

    def __init__(
        self,
        maps: MapSet,
        wanted: Callable[[EventsWanted], None],
        unknown: Callable[[int, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = maps.folder
        self._ring = EventRing(maps)
        self._wanted = wanted
        self._unknown = unknown
        self._clock = clock
        self._lock: RingLock | None = None
        self._lock_at = 0.0
        self._kept: deque[Kept] = deque(maxlen=KEPT)
        self._news: deque[Kept | _Client] = deque()
        self._listeners: dict[socket.socket, _Listener] = {}
        self._reported: EventFilter | None = None
        self._renew_at = 0.0
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector = selectors.EpollSelector()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join(timeout=2)

    def tell(self, *happened: Kept) -> None:
        """Remember these, and hand them on."""
        self._news.extend(happened)
        os.eventfd_write(self._wake, 1)

    def attach(self, client: socket.socket, wish: Wish) -> None:
        """Let a connected, non-blocking socket listen; it is the hub's from now on."""
        self._news.append(_Client(client, wish))
        os.eventfd_write(self._wake, 1)

    @property
    def is_full(self) -> bool:
        """Nobody more may listen."""
        return len(self._listeners) >= MAX_LISTENERS

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # whatever it is, source ranges depend on this thread
                log.exception("events: a turn failed")
                time.sleep(RETRY_SECONDS)
        self._shut()

    def _turn(self) -> None:
        ready = self._selector.select(self._patience())
        for key, mask in ready:
            self._serve(key.fileobj, mask)
        self._take_news()
        self._upkeep()
        self._flush()
        if self._listeners and any(key.fileobj is self._ring for key, _ in ready):
            time.sleep(PAUSE_SECONDS)

    def _patience(self) -> float | None:
        dues = [max(0.0, self._lock_at - self._clock())] if self._lock is None else []
        return min([BEAT_SECONDS / 2, *dues]) if self._listeners else min(dues, default=None)

    def _serve(self, ready: object, mask: int) -> None:
        if ready is self._ring:
            self._drain()
        elif ready == self._wake:
            os.eventfd_read(self._wake)
        elif isinstance(ready, socket.socket) and mask & selectors.EVENT_READ and ready in self._listeners:
            try:
                gone = not ready.recv(4096)
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            if gone:
                self._drop(ready)

    def _drain(self) -> None:
        reported = self._reported.sample if self._reported is not None else 1
        for record in self._ring.read():
            unknown = unknown_source(record)
            if unknown is not None:
                self._unknown(*unknown)
            line = b""
            for listener in self._listeners.values():
                dials = listener.wish.dials
                if dials.accepts(record) and listener.thinning.passes(dials.sample, reported):
                    line = line or encode(Dial(record)) + b"\n"
                    listener.add(line)

    def _take_news(self) -> None:
        while self._news:
            one = self._news.popleft()
            if isinstance(one, _Client):
                self._greet(one)
                continue
            self._kept.append(one)
            line = encode(one) + b"\n"
            for listener in self._listeners.values():
                listener.add(line)

    def _greet(self, client: _Client) -> None:
        listener = _Listener(client.wish, self._clock())
        for one in list(self._kept)[-client.wish.last :] if client.wish.last else ():
            listener.add(encode(one) + b"\n")
        listener.unread += encode(Beat()) + b"\n"
        self._listeners[client.socket] = listener
        self._selector.register(client.socket, selectors.EVENT_READ)

    def _upkeep(self) -> None:
        now = self._clock()
        if self._lock is None and now >= self._lock_at:
            self._lock_at = now + LOCK_SECONDS
            self._take_ring()
        wanted = union(one.wish.dials for one in self._listeners.values() if one.wish.follow)
        if wanted != self._reported or (wanted is not None and now >= self._renew_at):
            self._reported = wanted
            self._renew_at = now + RENEW_SECONDS
            until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(LEASE_SECONDS * 1e9)
            self._wanted(EventsWanted(wanted, until))

    def _take_ring(self) -> None:
        """Whoever reads it meanwhile without an agent lets go as soon as it sees this one."""
        try:
            self._lock = RingLock.take(self._folder)
        except OSError as error:
            log.error("events are not read, tried again in %g s: %s", RETRY_SECONDS, error)
            self._lock_at = self._clock() + RETRY_SECONDS
        if self._lock is not None:
            self._selector.register(self._ring, selectors.EVENT_READ)

    def _flush(self) -> None:
        now = self._clock()
        for client, listener in list(self._listeners.items()):
            if now - listener.beat >= BEAT_SECONDS:
                listener.beat = now
                listener.unread += encode(Beat(listener.skipped)) + b"\n"
            if not listener.unread:
                continue
            try:
                del listener.unread[: client.send(listener.unread)]
                listener.moved = now
            except BlockingIOError:
                if now - listener.moved > STUCK_SECONDS:
                    self._drop(client)
            except OSError:
                self._drop(client)  # it has gone
                continue
            if not (listener.unread or listener.wish.follow):
                self._drop(client)  # it has all that it wanted
            elif client in self._listeners:
                waits = selectors.EVENT_WRITE if listener.unread else 0
                self._selector.modify(client, selectors.EVENT_READ | waits)

    def _drop(self, client: socket.socket) -> None:
        del self._listeners[client]
        self._selector.unregister(client)
        client.close()

    def _shut(self) -> None:
        for client in list(self._listeners):
            self._drop(client)
        for one in self._news:
            if isinstance(one, _Client):
                one.socket.close()
        self._selector.close()  # not the eventfd: others may still tell something
        if self._lock is not None:
            self._lock.close()
        self._ring.close()
