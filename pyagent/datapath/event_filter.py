"""Which events the hooks report: what one listener wants, what several do, and how the hooks are told.

The hooks know one filter. Of several listeners they get the union; each one's share is narrowed afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from pyagent.datapath.layout import CONFIG, EVENT
from pyagent.datapath.writes import Store
from pyagent.model.outcome import Outcome

ALL_OUTCOMES = (1 << 32) - 1
_FACTS = struct.Struct("=BBI")
_NETNS, _OUTCOME = EVENT.offsets["netns"], EVENT.offsets["outcome"]


class EventFilter(NamedTuple):
    """What to report.

    Attributes:
        outcomes: a bit for each outcome.
        service_ports: ids; empty: all. What belongs to no service port is reported in any case.
        netns: cookie of the client's network namespace; 0: all.
        sample: one event in this many.
    """

    outcomes: int = ALL_OUTCOMES
    service_ports: frozenset[int] = frozenset()
    netns: int = 0
    sample: int = 1

    def accepts(self, record: bytes) -> bool:
        """Whether an event of the ring passes, sampling left aside."""
        outcome, _hook, service_port = _FACTS.unpack_from(record, _OUTCOME)
        if not self.outcomes >> outcome & 1:
            return False
        if self.service_ports and service_port and service_port not in self.service_ports:
            return False
        return not self.netns or self.netns == struct.unpack_from("=Q", record, _NETNS)[0]


def union(filters: Iterable[EventFilter]) -> EventFilter | None:
    """The narrowest filter of the hooks that reports what any of these wants; None: nobody wants anything.

    Its `service_ports` are one at most, for the hooks compare with one.
    """
    wanted = [one for one in filters if one.outcomes]
    if not wanted:
        return None
    outcomes = 0
    for one in wanted:
        outcomes |= one.outcomes
    ports = {one.service_ports for one in wanted}
    same = ports.pop() if len(ports) == 1 else frozenset[int]()
    namespaces = {one.netns for one in wanted}
    return EventFilter(
        outcomes,
        same if len(same) == 1 else frozenset(),
        namespaces.pop() if len(namespaces) == 1 else 0,
        min(max(1, one.sample) for one in wanted),
    )


def filter_writes(wanted: EventFilter | None, until: int) -> tuple[Store, ...]:
    """What tells the hooks.

    Args:
        wanted: with one service port at most; None: nobody listens.
        until: end of the lease, nanoseconds since boot; must be renewed before.
    """
    at = CONFIG.offsets
    if wanted is None:
        return (Store("config", at["event_lease"], struct.pack("=Q", 0)),)
    return (
        Store("config", at["event_outcomes"], struct.pack("=I", wanted.outcomes)),
        Store("config", at["event_service_port"], struct.pack("=I", next(iter(wanted.service_ports), 0))),
        Store("config", at["event_netns"], struct.pack("=Q", wanted.netns)),
        Store("config", at["event_sample"], struct.pack("=I", wanted.sample)),
        Store("config", at["event_lease"], struct.pack("=Q", until)),
    )


class Thinning:
    """Passes one event in some, evenly: for a listener that wants fewer than the hooks report."""

    def __init__(self) -> None:
        self._credit = 0.0

    def passes(self, wanted: int, reported: int) -> bool:
        """Whether this event passes.

        Args:
            wanted, reported: one in this many is wanted, and is reported.
        """
        if wanted <= reported:
            return True
        self._credit += reported / wanted
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True


def mask_of(outcomes: Iterable[Outcome]) -> int:
    """The bit set of some outcomes."""
    mask = 0
    for outcome in outcomes:
        mask |= 1 << outcome
    return mask
