"""Waits for RCU grace periods in a thread of its own, one for everything that came meanwhile."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from pyagent.datapath.held import Freed
from pyagent.kernel.grace import GracePeriod


class GraceKeeper:
    """Takes what plans freed and gives it back once no running program can still see it."""

    def __init__(self, period: GracePeriod, ended: Callable[[tuple[Freed, ...]], None]) -> None:
        self._period = period
        self._ended = ended
        self._freed: queue.SimpleQueue[Freed | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._keep, name="grace-period", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._freed.put(None)
        self._thread.join(timeout=2)

    def free(self, freed: Freed) -> None:
        self._freed.put(freed)

    def _keep(self) -> None:
        while True:
            batch = [self._freed.get()]
            while not self._freed.empty():
                batch.append(self._freed.get())
            if None in batch:
                return
            self._period.wait()
            self._ended(tuple(f for f in batch if f is not None))
