"""Counters of ids that were given up: whoever gets the id next starts at zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pyagent.datapath.held import Freed
from pyagent.datapath.layout import CHOSEN_SHARDS, WORD, Capacities
from pyagent.datapath.writes import Store

ZERO = bytes(WORD.size)


def counter_resets(freed: Iterable[Freed], capacities: Capacities) -> Iterator[Store]:
    """Stores that clear `chosen` and `refused` of what was freed.

    Only after the grace period: until then a program may still count there.
    """
    for one in freed:
        for backend in one.backends:
            for shard in range(CHOSEN_SHARDS):
                yield Store("chosen", (shard * capacities.backends + backend) * WORD.size, ZERO)
        for service_port in one.service_ports:
            yield Store("refused", service_port * WORD.size, ZERO)
