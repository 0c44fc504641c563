"""Listens to events while a screen shows them: a thread with a bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from pyagent.model.failures import KubesockError
from pyagent.view.event_listener import Asked, Heard
from pyagent.view.event_table import LOST, Chosen
from pyagent.view.tables import Row
from pyagent.view.terminal.sample import Events

KEEP_EVENTS = 2_000
"""Rows of the events view; older ones go, for memory is bounded."""

ASKED = Asked(Chosen(), last=500)
"""All but further datagrams and self-probes; first what the agent remembers."""

PATIENCE = 2.0
MOST_PER_SECOND, FEW_PER_SECOND = 400, 40
"""Above the first the hooks report fewer, below the second more again: a screen must not cost a core."""

WINDOW_SECONDS = 1.0


class Listens(Protocol):
    """See `event_listener.Listener`."""

    def heard(self) -> Iterator[Heard]: ...

    def thin(self, sample: int) -> None: ...


class EventTail:
    """Everything public may be called from any thread.

    Args:
        listen: starts to listen.
    """

    def __init__(self, listen: Callable[[], Listens], clock: Callable[[], float] = time.monotonic) -> None:
        self._listen = listen
        self._clock = clock
        self._sample = 1
        self._window = clock()
        self._in_window = 0
        self._lock = threading.Lock()
        self._rows: deque[Row] = deque(maxlen=KEEP_EVENTS)
        self._total = 0
        self._agent = True
        self._error = ""
        self._heard = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="event-tail", daemon=True)
        self._thread.start()

    def so_far(self, patience: float = 0.0) -> Events:
        """What is remembered, newest first.

        Args:
            patience: seconds to wait for the first word of whoever tells.
        """
        self._heard.wait(patience)
        with self._lock:
            rows = tuple(reversed(self._rows))
            return Events(rows, self._total, self._agent, self._error, self._sample)

    def stop(self) -> None:
        """Listen no more; the hooks may rest."""
        self._stopping = True
        self._thread.join(PATIENCE)

    @property
    def ended(self) -> bool:
        """It has failed, or was stopped."""
        return not self._thread.is_alive()

    def _pace(self, listener: Listens, reported: int) -> None:
        self._in_window += reported
        seconds = self._clock() - self._window
        if seconds < WINDOW_SECONDS:
            return
        rate, self._in_window, self._window = self._in_window / seconds, 0, self._clock()
        if rate > MOST_PER_SECOND:
            self._sample *= 1 + int(2 * rate / MOST_PER_SECOND)
        elif rate < FEW_PER_SECOND and self._sample > 1:
            self._sample = max(1, self._sample // 4)
        else:
            return
        listener.thin(self._sample)

    def _run(self) -> None:
        try:
            listener = self._listen()
            for heard in listener.heard():
                self._pace(listener, sum(1 for row in heard.rows if row["hook"]))
                with self._lock:
                    self._rows.extend(heard.rows)
                    self._total += sum(1 for row in heard.rows if row["event"] != LOST)
                    self._agent = heard.agent
                self._heard.set()
                if self._stopping:
                    return
        except (KubesockError, OSError) as error:
            with self._lock:
                self._error = str(error)
        finally:
            self._heard.set()
