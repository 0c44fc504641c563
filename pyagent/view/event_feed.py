"""What happens on this node, as it happens: by the agent where one lives, else from the ring itself.

The ring has one reader. The agent is it, and serves any number of listeners; without an agent the first
listener takes its place, until an agent comes.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from pyagent.datapath.event_filter import filter_writes, union
from pyagent.datapath.layout import CONFIG
from pyagent.kernel.event_ring import EventRing, RingLock
from pyagent.kernel.lock_owner import lock_owner
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.model.failures import KubesockError, NoPermission
from pyagent.model.outcome import Outcome
from pyagent.view.agent_socket import AgentFailed, NoAgent, listen
from pyagent.view.event_stream import Beat, Change, Dial, Told, Wish, decode

TICK_SECONDS = 0.25
"""Between two batches at most."""

SILENT_SECONDS = 15.0
STARTING_SECONDS = 5.0
"""How long an agent that has just started may take until it answers."""

LEASE_SECONDS = 5.0
COUNT_SECONDS = 1.0
LOOK_SECONDS = 0.5
PAUSE_SECONDS = 0.02
CHUNK = 1 << 18


class EventsTaken(KubesockError):
    """Somebody else reads the ring, and there is no agent that could serve both."""


class Batch(NamedTuple):
    """What came since the batch before.

    Attributes:
        told: in the order in which it happened.
        lost: events that the ring had no room for.
        skipped: events that were left out for this listener because it read too slowly.
        agent: an agent tells, so that its own deeds are among them.
    """

    told: list[Told]
    lost: int = 0
    skipped: int = 0
    agent: bool = True


class EventFeed:
    """A listener's end.

    Args:
        wish: what is wanted.
        changed: whether `wish` may say something else by now, as ids and namespaces are not for ever; called
            with the changes of each batch.
    """

    def __init__(
        self,
        bpffs: Path,
        state_dir: Path,
        wish: Callable[[], Wish],
        changed: Callable[[list[Change]], bool] = lambda _changes: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bpffs = bpffs
        self._state_dir = state_dir
        self._wish = wish
        self._changed = changed
        self._clock = clock
        self._lost: int | None = None
        self._count_at = float("-inf")
        self._last = True

    def batches(self) -> Iterator[Batch]:
        """Batches, empty ones too: one comes at least every TICK_SECONDS. Ends if the wish is not to follow.

        Raises:
            PinsMissing, LayoutMismatch, NoPermission, KernelRefused: as `read_live`.
            NoAgent, AgentFailed: an agent lives, but cannot be asked.
            EventsTaken: there is no agent, and another listener reads the ring.
        """
        self._count_lost()
        while True:
            if self._agent_lives():
                yield from self._of_agent()
            elif self._wish().follow:
                yield from self._of_ring()
            else:
                yield Batch([], agent=False)
            if not self._wish().follow:
                return

    def _agent_lives(self) -> bool:
        current_folder(self._bpffs)  # raises what there is to be said if nothing is pinned
        try:
            return lock_owner(self._bpffs).alive
        except PermissionError as error:
            raise NoPermission(f"{self._bpffs}: {error.strerror}; run as root") from error

    def _of_agent(self) -> Iterator[Batch]:
        """Until the agent hangs up, or another wish is due."""
        wish = self._wish()
        connection, rest = self._connect(wish if self._last else wish._replace(last=0))
        self._last = False
        skipped = 0
        heard = self._clock()
        chunk: bytes | None = rest
        rest = b""
        with connection:
            connection.setblocking(False)
            while True:
                *lines, rest = (rest + (chunk or b"")).split(b"\n")
                told = _decoded(lines)
                if told:
                    heard = self._clock()
                elif self._clock() - heard > SILENT_SECONDS:
                    raise AgentFailed(f"the agent is silent for {SILENT_SECONDS:g} s; its log may tell why")
                before = skipped
                skipped = max([skipped, *(one.skipped for one in told if isinstance(one, Beat))])
                news: list[Told] = [one for one in told if not isinstance(one, Beat)]
                yield Batch(news, self._count_lost(), skipped - before)
                changes = [one for one in news if isinstance(one, Change)]
                if self._changed(changes) and self._wish().dials != wish.dials:
                    return
                chunk = _received(connection)
                if chunk == b"":
                    return

    def _connect(self, wish: Wish) -> tuple[socket.socket, bytes]:
        """A lock without a socket is an agent that is starting, or ending."""
        until = self._clock() + STARTING_SECONDS
        while True:
            try:
                return listen(self._state_dir, self._bpffs, wish.path())
            except NoAgent:
                if self._clock() >= until or not self._agent_lives():
                    raise
                time.sleep(TICK_SECONDS)

    def _of_ring(self) -> Iterator[Batch]:
        """Until an agent comes, or has other maps."""
        folder = current_folder(self._bpffs)
        lock = RingLock.take(folder)
        if lock is None:
            if self._agent_lives():
                return
            owner = lock_owner(folder)
            who = f"process {owner.pid}" if owner.pid else "another process"
            raise EventsTaken(
                f"no agent is running, and {who} listens already: there can be one then;"
                " end it, or start `kubesock run`, which serves any number"
            )
        try:
            maps = MapSet.open(folder, writable=True)
            try:
                yield from self._read_ring(maps, folder)
            finally:
                maps.close()
        finally:
            lock.close()

    def _read_ring(self, maps: MapSet, folder: Path) -> Iterator[Batch]:
        ring = EventRing(maps)
        look_at, lease = 0.0, 0
        wanted = self._wish().dials
        try:
            ring.read()  # from before anybody listened
            while True:
                if self._clock() >= look_at:
                    if self._agent_lives() or current_folder(self._bpffs) != folder:
                        return
                    look_at = self._clock() + LOOK_SECONDS
                    lease = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(LEASE_SECONDS * 1e9)
                    maps.apply(filter_writes(union([wanted]), lease))
                if ring.wait(TICK_SECONDS):
                    time.sleep(PAUSE_SECONDS)  # a busy ring is read in batches
                if self._changed([]):
                    wanted, look_at = self._wish().dials, 0.0
                found: list[Told] = [Dial(record) for record in ring.read() if wanted.accepts(record)]
                yield Batch(found, self._count_lost(), agent=False)
        finally:
            offset = CONFIG.offsets["event_lease"]
            if struct.unpack_from("=Q", maps.memory("config"), offset)[0] == lease:  # no agent's by now
                maps.apply(filter_writes(None, 0))
            ring.close()

    def _count_lost(self) -> int:
        """How many found no room since it was looked the last time."""
        now = self._clock()
        if now < self._count_at:
            return 0
        self._count_at = now + COUNT_SECONDS
        maps = MapSet.open(current_folder(self._bpffs))
        try:
            counts = maps.get("outcomes", struct.pack("=I", Outcome.EVENT_NOT_STORED)) or b""
        finally:
            maps.close()
        total = sum(count for (count,) in struct.iter_unpack("=Q", counts))
        before, self._lost = self._lost, total
        return max(0, total - before) if before is not None else 0


def _received(connection: socket.socket) -> bytes | None:
    """What is there within a tick; None: nothing, empty: the agent has hung up."""
    readable, _, _ = select.select([connection], [], [], TICK_SECONDS)
    if not readable:
        return None
    try:
        return connection.recv(CHUNK)
    except ConnectionError:
        return b""


def _decoded(lines: list[bytes]) -> list[Told]:
    found: list[Told] = []
    for line in lines:
        try:
            found.append(decode(line))
        except msgspec.MsgspecError:
            continue  # a newer agent's, of a kind that is not known here
    return found
