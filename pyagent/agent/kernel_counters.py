"""What a scrape reads from the kernel's maps."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pyagent.model.outcome import Outcome


class KernelCounters(msgspec.Struct, frozen=True):
    """Counters and sizes at one moment."""

    outcomes: Mapping[Outcome, int] = {}
    map_entries: Mapping[str, int] = {}
    map_capacity: Mapping[str, int] = {}
