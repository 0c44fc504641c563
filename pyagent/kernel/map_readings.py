"""Counters and fill of open maps, for a scrape."""

from __future__ import annotations

import struct

from pyagent.kernel.map_set import MapSet
from pyagent.model.outcome import Outcome


def outcome_counts(maps: MapSet) -> dict[Outcome, int]:
    """Hook runs by outcome, summed over the CPUs."""
    counts = {}
    for outcome in Outcome:
        value = maps.get("outcomes", struct.pack("=I", outcome)) or b""
        counts[outcome] = sum(struct.unpack(f"={len(value) // 8}Q", value))
    return counts
