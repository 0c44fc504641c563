"""What a scrape reads from the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pyagent.agent.kernel_counters import KernelCounters
from pyagent.agent.traffic import OpenSockets, Traffic, TrafficCounts
from pyagent.kernel.links import pinned_states
from pyagent.kernel.map_memory import map_memory
from pyagent.kernel.map_readings import outcome_counts
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.outside_devices import outside_devices
from pyagent.view.node_status import LINKS, hook_statuses
from pyagent.view.socket_walk import SocketWalker, Walk


class KernelReader:
    """Reads it all, through pins and file descriptors of its own: the loop may exchange maps meanwhile."""

    def __init__(
        self,
        bpffs: Path,
        cgroup: Path,
        usage: Callable[[], Mapping[str, tuple[int, int]]],
        flows: Callable[[], int],
        traffic: Traffic,
        detail: str,
    ) -> None:
        """
        Args:
            usage: map -> (entries, capacity), as of the last plan.
            flows: entries of `flows`, as of the last sweep.
            detail: `--metrics-by`: none, service or backend.
        """
        self._bpffs = bpffs
        self._cgroup = cgroup
        self._usage = usage
        self._flows_now = flows
        self._traffic = traffic
        self._detail = detail
        self._walker = SocketWalker(bpffs)

    def read(self) -> KernelCounters:
        """All of it now.

        Raises:
            KubesockError, OSError: the pins cannot be read.
        """
        usage = self._usage()
        walk = self._walker.look(keep=0) if self._detail != "none" else None
        maps = MapSet.open(current_folder(self._bpffs))
        try:
            return KernelCounters(
                outcomes=outcome_counts(maps),
                outside_outcomes=outcome_counts(maps, "outside_outcomes"),
                outside_devices={one.name: one.served for one in outside_devices(self._bpffs, maps)},
                map_entries={name: used for name, (used, _capacity) in usage.items()} | self._flows(),
                map_capacity={name: capacity for name, (_used, capacity) in usage.items()}
                | {"flows": maps.specs["flows"].max_entries},
                map_memory={name: map_memory(maps.fd(name)) for name in maps.specs},
                hooks_effective=self._effective(),
                traffic=self._counts(maps, walk),
                sockets=walk.total if walk is not None and walk.error is None else None,
                sockets_age=time.monotonic() - walk.taken if walk is not None else 0.0,
            )
        finally:
            maps.close()

    def _flows(self) -> dict[str, int]:
        return {"flows": self._flows_now()}

    def _counts(self, maps: MapSet, walk: Walk | None) -> TrafficCounts:
        if walk is None:
            return TrafficCounts()
        sockets = OpenSockets(walk.ports, walk.backends) if walk.error is None else None
        return self._traffic.read(maps, sockets, self._detail == "backend")

    def _effective(self) -> dict[str, bool]:
        states = hook_statuses(pinned_states(self._bpffs / LINKS), self._cgroup)
        return {one.hook: one.effective for one in states if one.attached and one.effective is not None}
