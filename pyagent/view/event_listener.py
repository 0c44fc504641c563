"""A listener to events as a whole: what is asked for by name goes in, rows come out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyagent.datapath.event_filter import EventFilter
from pyagent.kernel.client_names import find_netns
from pyagent.kernel.features import kernel_version
from pyagent.view.event_feed import EventFeed
from pyagent.view.event_names import EventNames
from pyagent.view.event_stream import Change, Wish
from pyagent.view.event_table import LOST, Chosen, EventRows, of_client
from pyagent.view.names import is_service, service_port_names
from pyagent.view.pins import read_live
from pyagent.view.tables import Row

ALL_REMEMBERED = 1 << 20
FIND_SECONDS = 5.0
"""Between two looks for the network namespace of a pod, which gets another one when it is made anew."""

_RING_FULL = "the ring was full; --event, --service, --pod or --sample make fewer"
_TOO_SLOW = "they were read too slowly"


class Asked(NamedTuple):
    """What somebody wants to hear.

    Attributes:
        service: [NAMESPACE/]NAME[:PORT][/PROTOCOL]; empty: of all.
        client: [NAMESPACE/]NAME of a pod, or a network namespace's name; empty: of all.
        sample: of the hooks' events one in this many.
        last: so many of what the agent remembers come first; None: all.
        follow: go on with what happens.
    """

    chosen: Chosen
    service: str = ""
    client: str = ""
    sample: int = 1
    last: int | None = 0
    follow: bool = True

    def accepts(self, row: Row) -> bool:
        """Whether the row is what was asked for; the kernel has narrowed it as far as it can."""
        service = (row["namespace"], row["name"], row["port"], row["protocol"])
        return row["event"] == LOST or (
            self.chosen.accepts(row)
            and (not self.service or is_service(self.service, *service))
            and (not self.client or of_client(row, self.client))
        )


class Heard(NamedTuple):
    """What came since the rows before; `agent`: one told it, so that its own deeds are among them."""

    rows: list[Row]
    agent: bool


class Listener:
    """Hears of events until it is let go. Used by one thread.

    Raises:
        PinsMissing, LayoutMismatch, NoPermission, KernelRefused: as `read_live`.
    """

    def __init__(self, bpffs: Path, state_dir: Path, asked: Asked) -> None:
        self._bpffs = bpffs
        self._asked = asked
        self._names = EventNames(bpffs)
        self._rows = EventRows(self._names, kernel_version() >= (5, 18))
        self._feed = EventFeed(bpffs, state_dir, self._wish, self._may_have_changed)
        self._netns = 0
        self._find_at = 0.0
        self._sample = asked.sample
        self._other_sample = False

    def thin(self, sample: int) -> None:
        """From now on one of the hooks' events in this many."""
        self._other_sample = sample != self._sample
        self._sample = sample

    def heard(self) -> Iterator[Heard]:
        """Rows as they come; an item without any comes now and then.

        Raises:
            KubesockError: as `EventFeed.batches`.
        """
        try:
            for batch in self._feed.batches():
                rows = [row for row in self._rows.rows(batch.told) if self._asked.accepts(row)]
                for count, why in ((batch.lost, _RING_FULL), (batch.skipped, _TOO_SLOW)):
                    if count:
                        rows.append(self._rows.lost(count, why))
                yield Heard(rows, batch.agent)
        finally:
            self._names.close()

    def _wish(self) -> Wish:
        asked = self._asked
        dials = EventFilter(asked.chosen.outcomes, self._ports(), self._client(), self._sample)
        return Wish(dials, ALL_REMEMBERED if asked.last is None else asked.last, asked.follow)

    def _ports(self) -> frozenset[int]:
        """None of them known: all are let through, and told apart by their names."""
        if not self._asked.service:
            return frozenset()
        names = service_port_names(read_live(self._bpffs, {"names"}).raw.names)
        return frozenset(
            one.identifier
            for one in names
            if is_service(self._asked.service, one.namespace, one.name, one.port, one.protocol)
        )

    def _client(self) -> int:
        if self._asked.client and time.monotonic() >= self._find_at:
            self._find_at = time.monotonic() + FIND_SECONDS
            self._netns = find_netns(self._asked.client)
        return self._netns

    def _may_have_changed(self, changes: list[Change]) -> bool:
        if self._other_sample or (self._asked.client and time.monotonic() >= self._find_at):
            self._other_sample = False
            return True
        wanted = self._asked.service.rpartition("/")[2].partition(":")[0] if self._asked.service else ""
        return bool(wanted) and any(wanted in one.service for one in changes)
