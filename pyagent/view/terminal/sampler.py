"""The thread that looks at the node and makes frames, so that the screen never waits for the kernel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pyagent.model.failures import KubesockError
from pyagent.view.live import LiveMaps
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.frame import VIEWS, Frame, frame
from pyagent.view.terminal.sample import Reader, Sample
from pyagent.view.terminal.view_kinds import Request

SHARE = 0.03
"""The part of a core that looking may take, beside drawing: where a look is costly, looks come less often."""

FASTEST, SLOWEST = 0.25, 60.0


class Sampler:
    """Looks every `interval` seconds, or when asked to; everything else may be called from any thread."""

    def __init__(
        self,
        reader: Reader,
        deliver: Callable[[Frame], None],
        failed: Callable[[BaseException], None],
        request: Request,
        interval: float,
    ) -> None:
        """
        Args:
            deliver: called with each new frame, in the sampler's thread.
            failed: called with what should never have happened; no frames come after that.
        """
        self._reader = reader
        self._deliver = deliver
        self._failed = failed
        self._request = request
        self._interval = interval
        self._paused = False
        self._stopping = False
        self._asked = True
        self._forced = False
        self._wake = threading.Condition()
        self._activity = Activity()
        self._sample: Sample | None = None
        self._seen = ""
        self._cost = 0.0
        self._looked = float("-inf")
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float = 5.0) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(patience)

    def show(self, request: Request) -> None:
        """From now on frames are for this request; the next one comes at once."""
        with self._wake:
            self._request = request
            self._asked = True
            self._wake.notify()

    def pause(self, paused: bool) -> None:
        with self._wake:
            self._paused = paused
            self._asked = self._asked or not paused
            self._wake.notify()

    def every(self, interval: float) -> None:
        """Look that often, if a look is cheap enough."""
        with self._wake:
            self._interval = interval
            self._wake.notify()

    def refresh(self) -> None:
        """Look now, even while paused."""
        with self._wake:
            self._asked = self._forced = True
            self._wake.notify()

    @property
    def wait(self) -> float:
        """Seconds between looks now."""
        return min(max(self._interval, self._cost / SHARE), SLOWEST)

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._stopping or self._asked or self._is_due()):
                        self._wake.wait(None if self._paused else self._due_in())
                    if self._stopping:
                        return
                    request, self._asked = self._request, False
                    look = self._forced or self._seen != request.view or self._is_due()
                    self._forced = False
                began = time.thread_time()
                self._make(request, look)
                if look:
                    self._cost = time.thread_time() - began
                    self._looked = time.monotonic()
        except BaseException as error:  # noqa: BLE001  handed to the screen, which ends with it
            self._failed(error)
        finally:
            self._reader.close()

    def _due_in(self) -> float:
        return max(0.0, self._looked + self.wait - time.monotonic())

    def _is_due(self) -> bool:
        return not self._paused and not self._due_in()

    def _make(self, request: Request, look: bool) -> None:
        error = ""
        if look:
            try:
                sample = self._reader.look(VIEWS[request.view].needs)
            except (KubesockError, OSError) as failure:
                error = str(failure)
            else:
                self._sample, self._seen = sample, request.view
                self._activity.follow(sample)
        if self._sample is None:
            self._sample = Sample(LiveMaps(), time.monotonic())
        if error and self._seen != request.view:
            self._deliver(Frame(request, self._sample, (), [], 0, (), error))
            return
        self._deliver(frame(request, self._sample, self._activity)._replace(error=error))
