"""Network programming latency: from the change of a pod to the kernel, by the slices' trigger times."""

from __future__ import annotations

import datetime as dt
import time

from pyagent.model.kube_objects import ANNOTATION_TRIGGER_TIME, KubeObject


class TriggerTimes:
    """Trigger times of the slices that changed since the last plan.

    Times from before our start are left out: they would measure the restart (kube-proxy does the same,
    EndpointsChangeTracker).
    """

    def __init__(self) -> None:
        self._start = time.time()
        self._times: list[float] = []
        self.changes = 0

    def note(self, slice_object: KubeObject) -> None:
        self.changes += 1
        text = (slice_object.metadata.annotations or {}).get(ANNOTATION_TRIGGER_TIME, "")
        try:
            at = dt.datetime.fromisoformat(text).timestamp()
        except ValueError:
            return  # absent or written by hand: there is nothing to measure
        if at >= self._start:
            self._times.append(at)

    def take(self, now: float) -> list[float]:
        """Seconds that each took until `now`; starts anew."""
        latencies = [max(0.0, now - at) for at in self._times]
        self._times.clear()
        self.changes = 0
        return latencies
