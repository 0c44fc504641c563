"""Network programming latency: from the change of a pod to the kernel, by the slices' trigger times."""

from __future__ import annotations

import datetime as dt
import time

from pyagent.model.address import Family
from pyagent.model.kube_objects import ANNOTATION_TRIGGER_TIME, EndpointSlice, KubeObject

_FAMILY_OF_TYPE = {family.label: family for family in Family}


class TriggerTimes:
    """Trigger times of the slices that changed since the last plan.

    Times from before our start are left out: they would measure the restart (kube-proxy does the same,
    EndpointsChangeTracker).
    """

    def __init__(self) -> None:
        self._start = time.time()
        self._times: list[tuple[Family, float]] = []
        self.changes = 0

    def note(self, slice_object: KubeObject) -> None:
        self.changes += 1
        family = (
            _FAMILY_OF_TYPE.get(slice_object.addressType) if isinstance(slice_object, EndpointSlice) else None
        )
        if family is None:
            return  # its endpoints are not served
        text = (slice_object.metadata.annotations or {}).get(ANNOTATION_TRIGGER_TIME, "")
        try:
            at = dt.datetime.fromisoformat(text).timestamp()
        except ValueError:
            return  # absent or written by hand: there is nothing to measure
        if at >= self._start:
            self._times.append((family, at))

    def take(self, now: float) -> list[tuple[Family, float]]:
        """The slices' families and the seconds that each took until `now`; starts anew."""
        latencies = [(family, max(0.0, now - at)) for family, at in self._times]
        self._times.clear()
        self.changes = 0
        return latencies
