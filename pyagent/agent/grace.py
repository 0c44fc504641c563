"""Waits for RCU grace periods in a thread of its own, one for everything that came meanwhile."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from pyagent.datapath.held import Freed
from pyagent.kernel.grace import GracePeriod

log = logging.getLogger(__name__)
AGAIN_SECONDS = 1.0


class GraceKeeper:
    """Takes what plans freed and gives it back once no running program can still see it."""

    def __init__(self, period: GracePeriod, ended: Callable[[tuple[Freed, ...]], None]) -> None:
        self._period = period
        self._ended = ended
        self._freed: queue.SimpleQueue[Freed | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="grace-period", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
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
            if not self._waited():
                return
            self._ended(tuple(f for f in batch if f is not None))

    def _waited(self) -> bool:
        """Whether a grace period ended; False to stop. Without this thread no room would ever return."""
        while not self._stopping.is_set():
            try:
                self._period.wait()
            except OSError as error:
                log.warning("no grace period, tried again in %g s: %s", AGAIN_SECONDS, error)
                self._stopping.wait(AGAIN_SECONDS)
            else:
                return True
        return False
