"""Takes the startup taint off this node once it is served: no pod starts before it can dial Services."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from pyagent.cluster.backoff import Backoff
from pyagent.model.failures import KubesockError
from pyagent.model.kube_objects import KubeObject, Node
from pyagent.model.source_events import Changed, Emit, Replaced, SourceEvent

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5


class Taint(Protocol):
    """As `cluster.node_taint.NodeTaint`."""

    def remove(self) -> bool: ...

    def cut(self) -> None: ...

    def close(self) -> None: ...


class StartupTaint:
    """Watches the own Node for the taint, whenever it comes; removes it when `ready` says so.

    Args:
        key: the taint's.
        ready: as /readyz.
    """

    def __init__(
        self,
        key: str,
        node_name: str,
        taint: Taint,
        ready: Callable[[], bool],
        *,
        every: float = LOOK_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self._key = key
        self._node_name = node_name
        self._taint = taint
        self._ready = ready
        self._every = every
        self._backoff = backoff or Backoff(random.random, 1.0, 60.0)
        self._seen = threading.Event()
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="startup taint", daemon=True)

    def noted(self, emit: Emit) -> Emit:
        """The same events, seen in passing."""

        def passing(event: SourceEvent, /) -> None:
            match event:
                case Replaced(kind="Node"):
                    self._look(event.objects)
                case Changed(kind="Node"):
                    self._look((event.object,))
            emit(event)

        return passing

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._seen.set()
        self._taint.cut()
        self._thread.join(timeout=2)

    def _look(self, objects: Iterable[KubeObject]) -> None:
        for found in objects:
            if not isinstance(found, Node) or found.metadata.name != self._node_name:
                continue
            if any(taint.key == self._key for taint in (found.spec and found.spec.taints) or ()):
                self._seen.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._seen.wait()
            while not self._ready() and not self._stopping.wait(self._every):
                pass
            if self._stopping.is_set():
                break
            self._seen.clear()
            self._stopping.wait(self._remove())
        self._taint.close()

    def _remove(self) -> float:
        """Seconds to wait before anything else is tried."""
        try:
            removed = self._taint.remove()
        except KubesockError as error:
            if not self._failing:
                log.warning("taint %s stays on this node: %s", self._key, error)
            self._failing = True
            self._seen.set()
            return self._backoff.next()
        if removed:
            log.info("removed taint %s from this node: it is served", self._key)
        self._failing = False
        self._backoff.worked()
        return 0.0
