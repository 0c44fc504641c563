"""Source ranges of service ports as entries of `source_ranges`.

What is added goes in before the plan that makes it matter, what is removed after it, so that no client
that may dial is refused in between. A range that finds no room keeps its clients out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from pyagent.datapath.draft import Unfit
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import SOURCE_RANGE_KEY
from pyagent.datapath.writes import Put, Remove
from pyagent.model.address import Network
from pyagent.model.service import ServicePort, ServicePortKey

ADMITTED = (1).to_bytes(4, "little")
MAP = "source_ranges"
_OWNER_BITS = 32


class RangeWrites(NamedTuple):
    before: tuple[Put, ...]
    after: tuple[Remove, ...]
    unfit: tuple[Unfit, ...]


class SourceRangePlan:
    """What the map holds, by service port.

    Args:
        entries: keys in the map; of an earlier agent until the first complete plan.
        capacity: of the map.
    """

    def __init__(self, entries: Iterable[bytes], capacity: int) -> None:
        self._entries = set(entries)
        self._capacity = capacity
        self._of_port: dict[ServicePortKey, frozenset[bytes]] = {}
        self._left_out: frozenset[bytes] = frozenset()  # found no room

    @property
    def entries(self) -> Set[bytes]:
        """Keys that the map has once the last plan is carried out."""
        return self._entries

    def plan(
        self,
        ports: Mapping[ServicePortKey, ServicePort | None],
        held: HeldState,
        complete: bool,
    ) -> RangeWrites:
        """The writes for changed service ports; with `complete`, of all there are.

        Args:
            held: after the plan for the same change, which gave the service ports their ids.
        """
        if complete:
            self._of_port.clear()
        before = self._ranges_of(ports)
        for key, port in ports.items():
            if port is not None and port.source_ranges and key in held.service_ports:
                owner = held.service_ports[key].identifier
                self._of_port[key] = frozenset(_key(owner, network) for network in port.source_ranges)
            else:
                self._of_port.pop(key, None)
        after = self._ranges_of(ports)
        added = after - self._entries
        if complete or self._left_out or len(self._entries) + len(added) > self._capacity:
            return self._towards()
        return self._exchange(added, before - after)

    def _ranges_of(self, ports: Iterable[ServicePortKey]) -> set[bytes]:
        return set().union(*[self._of_port[key] for key in ports if key in self._of_port])

    def _exchange(self, added: set[bytes], removed: set[bytes]) -> RangeWrites:
        self._entries |= added
        self._entries -= removed
        return RangeWrites(
            tuple(Put(MAP, key, ADMITTED) for key in sorted(added)),
            tuple(Remove(MAP, key) for key in sorted(removed)),
            (),
        )

    def _towards(self) -> RangeWrites:
        wanted: set[bytes] = set().union(*self._of_port.values())
        added = sorted(wanted - self._entries)
        room = max(0, self._capacity - len(self._entries))
        self._left_out = left_out = frozenset(added[room:])
        removed = sorted(self._entries - wanted)
        self._entries = wanted - left_out
        unfit = [Unfit(key, MAP) for key, keys in self._of_port.items() if keys & left_out]
        return RangeWrites(
            tuple(Put(MAP, key, ADMITTED) for key in added[:room]),
            tuple(Remove(MAP, key) for key in removed),
            tuple(unfit),
        )


def _key(owner: int, network: Network) -> bytes:
    return SOURCE_RANGE_KEY.pack(_OWNER_BITS + network.prefix, owner, network.address)
