"""Keeps the map of connections from outside: what is over goes, and there is room for what comes.

The kernel gives up the connections that were quiet longest when the map is full, open ones too. So the agent
counts what is new once a second, and when half of the map may be in use, takes out those that both sides have
closed and asks for a larger map.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable

from pyagent.datapath.flow_layout import FLOW, FLOW_KEY
from pyagent.datapath.flow_records import FlowRecord, flow_records, over
from pyagent.datapath.writes import Remove
from pyagent.kernel.map_readings import outcome_counts
from pyagent.kernel.outside import Outside
from pyagent.model.address import Protocol
from pyagent.model.failures import KubesockError
from pyagent.model.outcome import Outcome

log = logging.getLogger(__name__)

COUNT_SECONDS = 1.0
"""Between two readings of how many connections are new."""

SWEEP_SECONDS = 15.0
CROWDED = 0.5
"""How full the map may get before it is swept, and enlarged if that does not help."""

ENTRIES = 4
"""That a connection has at most: two pairs of halves."""

PORTION = 8192
REST = 10
"""A sweep that took a second is followed by so many seconds without one."""

MAP, COUNTS = "flows", "outside_outcomes"
BEGUN = (Outcome.TRANSLATED, Outcome.TRANSLATED_BY_AFFINITY)

Used = tuple[int, int, int, int, bytes, int]
"""Service port, its incarnation, backend id, its incarnation, address, port."""


class FlowKeeper:
    """A thread of its own: to go through many connections must delay neither plans nor devices.

    Args:
        crowded: asks for a larger map.
    """

    def __init__(
        self, outside: Outside, crowded: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._outside = outside
        self._crowded = crowded
        self._clock = clock
        self._entries = 0
        self._begun: int | None = None  # connections ever begun, at the last sweep; None: not swept yet
        self._due = clock()
        self._not_before = clock()
        self._failure = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flows", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=2)

    @property
    def entries(self) -> int:
        """In the map when it was last swept."""
        return self._entries

    def _run(self) -> None:
        while not self._stopping.wait(COUNT_SECONDS):
            try:
                self.look()
            except (KubesockError, OSError) as error:
                if str(error) != self._failure:
                    log.error("connections from outside are not swept, tried again: %s", error)
                self._failure = str(error)
            else:
                self._failure = ""

    def look(self) -> None:
        """Sweep if it is time, or if the map may be half full.

        Raises:
            KernelRefused, OSError: the map cannot be read or written.
        """
        now = self._clock()
        if now < self._not_before:
            return
        with self._outside.maps_in_use() as maps:
            begun = sum(outcome_counts(maps, COUNTS, BEGUN).values())
            room = CROWDED * maps.specs[MAP].max_entries
        new = begun - self._begun if self._begun is not None else 0
        crowded = self._entries + ENTRIES * new > room
        if now >= self._due or crowded:
            self._sweep(crowded)
            self._begun, self._due = begun, now + SWEEP_SECONDS
            self._not_before = now + REST * (self._clock() - now)
            if self._entries > room:
                self._crowded()

    def _sweep(self, crowded: bool) -> None:
        """A portion at a time: there may be a million, and others wait for the maps."""
        cursor: bytes | None = None
        left, removed = 0, 0
        while not self._stopping.is_set():
            with self._outside.maps_in_use() as maps:
                portion = maps.portion(MAP, cursor, PORTION)
                entries = portion.items()
                gone = over(entries, time.clock_gettime_ns(time.CLOCK_MONOTONIC), crowded=crowded)
                maps.apply(Remove(MAP, key) for key in gone)
            left, removed, cursor = left + len(entries) - len(gone), removed + len(gone), portion.following
            if cursor is None:
                break
        self._entries = left
        if removed:
            log.debug("%d entries of flows were over, %d are left", removed, left)

    def used(self, protocols: Collection[Protocol]) -> set[Used]:
        """The backends that flows of these protocols go to."""
        with self._outside.maps_in_use() as maps:
            entries = maps.items(MAP)
        return {
            (*_service_port_and_backend(one), one.backend, one.backend_port)
            for one in flow_records(entries)
            if one.protocol in protocols
        }

    def end(self, doomed: Iterable[Used], protocols: Collection[Protocol]) -> int:
        """Forget the flows to these backends: the client's next packet chooses anew.

        Returns:
            How many entries went.
        """
        words = {(one[0], one[1], one[2] << 32 | one[3]) for one in doomed}
        numbers = frozenset(map(int, protocols))
        with self._outside.maps_in_use() as maps:
            gone = [key for key, value in maps.items(MAP) if _owner(key, value, numbers) in words]
            maps.apply(Remove(MAP, key) for key in gone)
        return len(gone)


def _service_port_and_backend(one: FlowRecord) -> tuple[int, int, int, int]:
    return one.service_port, one.service_port_incarnation, one.backend_id, one.backend_incarnation


def _owner(key: bytes, value: bytes, protocols: Collection[int]) -> tuple[int, int, int] | None:
    if key[FLOW_KEY.offsets["protocol"]] not in protocols:
        return None
    fields = FLOW.as_dict(value)
    return int(fields["service_port"]), int(fields["service_port_incarnation"]), int(fields["backend"])
