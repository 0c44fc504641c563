"""Listens to events while a screen shows them: a thread with a bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

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


class EventTail:
    """Everything public may be called from any thread.

    Args:
        listen: starts to listen.
    """

    def __init__(self, listen: Callable[[], Iterator[Heard]]) -> None:
        self._listen = listen
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
            return Events(tuple(reversed(self._rows)), self._total, self._agent, self._error)

    def stop(self) -> None:
        """Listen no more; the hooks may rest."""
        self._stopping = True
        self._thread.join(PATIENCE)

    @property
    def ended(self) -> bool:
        """It has failed, or was stopped."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            for heard in self._listen():
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
