"""Maps that get full are exchanged for larger ones, while everything goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import msgspec

from pyagent.agent.flows import CROWDED
from pyagent.datapath.layout import Capacities
from pyagent.kernel.datapath import Datapath, Larger
from pyagent.model.failures import KubesockError

log = logging.getLogger(__name__)

NEARLY_FULL = 0.8
FACTOR = 2
MOST = 4_194_304
"""No map grows beyond this many entries."""

MOST_FLOWS = 1_048_576
"""The same for `flows`, of 200 bytes each, which anybody outside can fill."""

RETRY_SECONDS = 60.0

_CAPACITY_OF_MAP = {
    "frontends": "frontends",
    "sets": "sets",
    "slots": "slots",
    "backends": "backends",
    "names": "service_ports",
    "service_ports": "service_ports",
    "refused": "service_ports",
    "service_addresses": "service_addresses",
    "node_addresses": "node_addresses",
    "source_ranges": "source_ranges",
    "flows": "flows",
}


class LargerReady(msgspec.Struct, frozen=True):
    """Larger maps, or None where they could not be had."""

    larger: Larger | None


def larger_capacities(
    now: Capacities, usage: Mapping[str, tuple[int, int]], full: Mapping[str, int]
) -> Capacities | None:
    """Sizes with room again; None if there is room everywhere.

    Args:
        usage: map -> (entries, capacity).
        full: map -> how many things found no room there; each needs one entry at least.
    """
    wanted: dict[str, int] = {}
    for name, field in _CAPACITY_OF_MAP.items():
        used, room = usage.get(name, (0, getattr(now, field)))
        missing = full.get(name, 0)
        if missing or used > (CROWDED if name == "flows" else NEARLY_FULL) * room:
            most = MOST_FLOWS if name == "flows" else MOST
            # What found no room may do so by being large, so the entries in use say too little of it.
            wanted[field] = max(wanted.get(field, 0), _doubled(getattr(now, field), used + missing, most))
    larger = now._replace(**wanted)
    return None if larger == now else larger


def _doubled(now: int, needed: int, most: int) -> int:
    size = now * FACTOR
    while needed > NEARLY_FULL * size and size < most:
        size *= FACTOR
    return max(now, min(most, size))  # an operator may have asked for more than we would make


class Growth:
    """Decides in the loop's thread, prepares in another.

    Args:
        put: hands `LargerReady` to the loop.
    """

    def __init__(
        self,
        datapath: Datapath,
        put: Callable[[LargerReady], None],
        clock: Callable[[], float],
    ) -> None:
        self._datapath = datapath
        self._put = put
        self._clock = clock
        self._preparing = False
        self._not_before = 0.0

    def consider(self, usage: Mapping[str, tuple[int, int]], full: Mapping[str, int]) -> None:
        """Have larger maps prepared if these get full; not before hooks use them at all."""
        if self._preparing or not self._datapath.attached or self._clock() < self._not_before:
            return
        wanted = larger_capacities(self._datapath.capacities, usage, full)
        if wanted is None:
            return
        now = self._datapath.capacities
        names = [n for n in Capacities._fields if getattr(wanted, n) != getattr(now, n)]
        grown = ", ".join(f"{name} {getattr(now, name)} -> {getattr(wanted, name)}" for name in names)
        log.warning("maps are nearly full, larger ones are made: %s", grown)
        self._preparing = True
        threading.Thread(target=self._prepare, args=(wanted,), name="growth", daemon=True).start()

    def _prepare(self, wanted: Capacities) -> None:
        try:
            larger: Larger | None = self._datapath.larger(wanted)
        except (KubesockError, OSError) as error:
            log.error("no larger maps, tried again in %.0f s: %s", RETRY_SECONDS, error)
            larger = None
        self._put(LargerReady(larger))

    def switch(self, ready: LargerReady) -> bool:
        """Use the larger maps; whether there are any. The loop must restore and plan in full afterwards."""
        self._preparing = False
        if ready.larger is None:
            self._not_before = self._clock() + RETRY_SECONDS
            return False
        try:
            self._datapath.grow(ready.larger)
        except (KubesockError, OSError) as error:
            log.error("larger maps are not used, tried again in %.0f s: %s", RETRY_SECONDS, error)
            self._not_before = self._clock() + RETRY_SECONDS
            return False
        log.info("the larger maps are in use")
        return True
