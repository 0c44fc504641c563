"""Walks over the translated sockets: how many each Service and backend has, and which they are."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pyagent.kernel.connections import Connection, connections, open_pinned
from pyagent.kernel.map_set import current_folder
from pyagent.model.failures import KernelRefused, KubesockError

SHARE = 0.02
"""The part of the time that walks may take at most: a table of 100,000 sockets is walked less often."""


class Walk(NamedTuple):
    """The sockets at one moment.

    Attributes:
        found: the first ones, as many as were asked for.
        total: how many there are.
        ports: sockets by (service-port id, incarnation).
        backends: sockets by word: backend id << 32 | incarnation.
        taken: when, on the monotonic clock.
        seconds: how long it took.
        error: why nothing is known of them, with the remedy.
    """

    found: tuple[Connection, ...] = ()
    total: int = 0
    ports: Mapping[tuple[int, int], int] = {}
    backends: Mapping[int, int] = {}
    taken: float = 0.0
    seconds: float = 0.0
    error: KubesockError | None = None


def counted(found: Iterable[Connection], keep: int | None, taken: float) -> Walk:
    """A walk over these sockets. `keep`: how many to hold on to; None: all."""
    ports: Counter[tuple[int, int]] = Counter()
    backends: Counter[int] = Counter()
    kept: list[Connection] = []
    total = 0
    for one in found:
        total += 1
        ports[one.service_port, one.service_port_incarnation] += 1
        backends[one.backend_id << 32 | one.backend_incarnation] += 1
        if keep is None or total <= keep:
            kept.append(one)
    return Walk(tuple(kept), total, ports, backends, taken)


def pace_text(walk: Walk) -> str:
    """Why they are not looked at more often."""
    return (
        f"a walk over {walk.total} takes {walk.seconds:.2g} s, and walks may take {SHARE:.0%} of the time,"
        f" so there is one every {walk.seconds / SHARE:.2g} s"
    )


class SocketWalker:
    """Walks when asked, but no more often than `SHARE` of the time allows."""

    def __init__(self, bpffs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._bpffs = bpffs
        self._clock = clock
        self._last = Walk(taken=float("-inf"))
        self._complete = False

    def look(self, keep: int | None = None) -> Walk:
        """The table now, or the one of the last walk where that was too costly to be done again so soon.

        Args:
            keep: how many sockets to hold on to; None: all, 0: only count.
        """
        now = self._clock()
        more = (keep is None or keep > 0) and not self._complete
        if now - self._last.taken >= self._last.seconds / SHARE or more:
            self._last = self._walk(keep, now)
            self._complete = keep is None or keep > 0
        return self._last

    def _walk(self, keep: int | None, now: float) -> Walk:
        try:
            link = open_pinned(current_folder(self._bpffs))
            try:
                walk = counted(connections(link), keep, now)
            finally:
                os.close(link)
        except KubesockError as error:
            return Walk(taken=now, error=error)
        except OSError as error:
            return Walk(taken=now, error=KernelRefused(f"list the sockets: {error.strerror}"))
        return walk._replace(seconds=self._clock() - now)
