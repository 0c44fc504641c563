"""Counters and sizes that a scrape tells of."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pyagent.agent.traffic import TrafficCounts
from pyagent.model.outcome import Outcome


class KernelCounters(msgspec.Struct, frozen=True):
    """Counters and sizes at one moment.

    Attributes:
        outside_outcomes: of new flows and refused packets.
        outside_devices: device -> whether packets are served there.
        map_memory: bytes.
        hooks_effective: whether attached hooks run at the agent's cgroup, where that can be told.
        sockets: translated ones that are open; None where the kernel cannot list them, or nobody asked.
        sockets_age: seconds since they were listed.
    """

    outcomes: Mapping[Outcome, int] = {}
    outside_outcomes: Mapping[Outcome, int] = {}
    outside_devices: Mapping[str, bool] = {}
    map_entries: Mapping[str, int] = {}
    map_capacity: Mapping[str, int] = {}
    map_memory: Mapping[str, int] = {}
    hooks_effective: Mapping[str, bool] = {}
    traffic: TrafficCounts = TrafficCounts()
    sockets: int | None = None
    sockets_age: float = 0.0
