"""Services for packets: the programs of `bpf/outside.c` on the devices that the agent names."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pyagent.datapath.flow_layout import OUTSIDE_DEVICE, DeviceFlag
from pyagent.datapath.writes import Put, Remove
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_pins import FOLDER_GONE, GONE
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache
from pyagent.kernel.tc_links import KIND, Place, Point, TcLinks
from pyagent.model.device import Covered
from pyagent.model.failures import KernelRefused, KubesockError

log = logging.getLogger(__name__)

FOLDER = "outside"
"""Where links and filters are pinned, below `--bpffs`."""

MAP = "outside_devices"
_PROGRAMS = {
    (Point.ARRIVE, True): "arrive_ether",
    (Point.LEAVE, True): "leave_ether",
    (Point.ARRIVE, False): "arrive_plain",
    (Point.LEAVE, False): "leave_plain",
}
_INDEX = struct.Struct("=I")

Programs = dict[str, int]


class Kept(NamedTuple):
    """What `Outside.keep` had to do, a line for each.

    Attributes:
        changed: devices that were begun with or given up.
        repaired: what somebody else had done, and what is made good.
        refused: what could not be done.
    """

    changed: list[str]
    repaired: list[str]
    refused: list[str]


def load(maps: MapSet, cache: ProgramCache | None) -> Programs:
    """Name -> fd of the programs, loaded on these maps.

    Raises:
        CompilerMissing, KernelRefused: with the remedy.
    """
    return Unit("outside.c", maps, cache).load(dict.fromkeys(_PROGRAMS.values(), KIND))


class Outside:
    """What one agent has at devices. A lock keeps its thread and the one that exchanges maps apart."""

    def __init__(
        self, bpffs: Path, maps: MapSet, cache: ProgramCache | None = None, tcx: bool | None = None
    ) -> None:
        self.links = TcLinks(bpffs / FOLDER, tcx)
        self._maps = maps
        self._cache = cache
        self._programs: Programs = {}
        self._covered: tuple[Covered, ...] = ()
        self._failed: set[int] = set()  # of the covered ones, what could not be served
        self._told: dict[bytes, bytes] | None = None  # in the map; None: by an earlier agent, or half of it
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def maps_in_use(self) -> Iterator[MapSet]:
        """The maps, not exchanged for others meanwhile."""
        with self._lock:
            yield self._maps

    def load(self) -> None:
        """Compile or take from the cache, once. May take seconds.

        Raises:
            CompilerMissing, KernelRefused: with the remedy.
        """
        with self._lock:
            if not self._programs:
                self._programs = load(self._maps, self._cache)

    def for_larger(self, maps: MapSet) -> Programs:
        """The programs on other maps, for `exchange`; none where none are in use."""
        return load(maps, self._cache) if self._programs else {}

    def exchange(self, programs: Programs) -> None:
        """Run these, which are on the maps that took the place of ours, wherever ours run."""
        if programs:
            self.use(programs)
            try:
                self.cover(self._covered)
            except (KubesockError, OSError) as error:
                log.error("packets from outside go by the earlier maps, tried again soon: %s", error)

    def keep(self, devices: Iterable[Covered]) -> Kept:
        """As `cover`, where there is anything to do; tells apart what somebody else did from what is new.

        Raises:
            KernelRefused: a map cannot be read or written.
        """
        with self._lock:
            wanted = tuple(devices)
            faults = self._faults(wanted)
            if wanted == self._covered and not (faults or self._failed or self._told is None):
                return Kept([], [], [])
            changed, refused = self._cover(wanted)
            left = set(self._faults(wanted)) if faults else set()
            return Kept(changed, [line for line in faults if line not in left], refused)

    def faults(self) -> list[str]:
        """What is not as it was left. Never waits: nothing is told while devices are being seen to."""
        if not self._lock.acquire(blocking=False):
            return []
        try:
            return self._faults(self._covered)
        finally:
            self._lock.release()

    def _faults(self, wanted: tuple[Covered, ...]) -> list[str]:
        """What is not as we left it, at devices that are to be served on: others may have gone."""
        if self._told is None:
            return []
        wanted_still = {one.ifindex for one in wanted} - self._failed
        staying = [one for one in self._covered if one.ifindex in wanted_still]
        found = [line for one in staying for line in self._faults_at(one)]
        if staying and not self.links.is_there:
            found = [f"{FOLDER}: {FOLDER_GONE}", *(line for line in found if not line.endswith(GONE))]
        ours = {one.ifindex for one in self._covered}
        strange = sorted(place.pin for place in self.links.places() if place.device not in ours)
        found += [f"{FOLDER}/{pin}: somebody else's pin" for pin in strange]
        if dict(self._maps.items(MAP)) != self._told:
            found.append(f"map {MAP}: entries were changed from outside")
        return found

    def _faults_at(self, device: Covered) -> Iterator[str]:
        for point in Point:
            fault = self.links.fault(Place(device.ifindex, point), self._program(point, device))
            if fault:
                yield f"{_PROGRAMS[point, device.ethernet]} at {device.name}: {fault}"

    def served(self) -> frozenset[int]:
        """Indexes of the devices where programs run, an earlier agent's too."""
        return frozenset(place.device for place in self.links.places())

    def use(self, programs: Programs) -> None:
        """Run these from the next `cover` on; they are closed with this object."""
        self._close_programs()
        self._programs = programs

    def cover(self, devices: Iterable[Covered]) -> list[str]:
        """Serve at these devices and at no others. One that is refused does not stop the others.

        A device that is served already gets the program of `use` in one step, so that no packet goes
        unserved. At a new one what leaves is understood before anything arrives.

        Returns:
            A line for each device that was begun with or given up.

        Raises:
            KernelRefused: names the device.
        """
        with self._lock:
            changed, refused = self._cover(tuple(devices))
        if refused:
            raise KernelRefused("; ".join(refused))
        return changed

    def _cover(self, wanted: tuple[Covered, ...]) -> tuple[list[str], list[str]]:
        """(what changed, what was refused)."""
        self._told = None
        told = {_INDEX.pack(one.ifindex): _encoded(one) for one in wanted}
        before = {key for key, _value in self._maps.items(MAP)}
        self._maps.apply([Put(MAP, key, value) for key, value in told.items()])
        changed, refused = [], []
        self._failed.clear()
        for one in wanted:
            try:
                begun = [
                    self.links.attach(Place(one.ifindex, p), self._program(p, one)) for p in reversed(Point)
                ]
            except (KubesockError, OSError) as error:
                self._failed.add(one.ifindex)
                refused.append(f"{one.name}: {error}")
                continue
            if any(begun):
                changed.append(f"serving packets at {one.name}")
        changed += self._give_up({one.ifindex for one in wanted})
        self._maps.apply([Remove(MAP, key) for key in before - told.keys()])
        self._covered, self._told = wanted, told
        return changed, refused

    def _give_up(self, but: set[int]) -> list[str]:
        """Detach from all devices but these, what leads packets here first."""
        names = {one.ifindex: one.name for one in self._covered}
        changed = []
        for point in Point:
            for place in [p for p in self.links.places() if p.point is point and p.device not in but]:
                self.links.detach(place)
                if point is Point.ARRIVE and (place.device in names or not names):
                    changed.append(f"no longer serving packets at {names.get(place.device, place.device)}")
        return changed

    def _program(self, point: Point, device: Covered) -> int:
        return self._programs[_PROGRAMS[point, device.ethernet]]

    def close(self) -> None:
        """Let go; what is attached goes on serving."""
        self.links.close()
        self._close_programs()

    def _close_programs(self) -> None:
        for fd in self._programs.values():
            os.close(fd)
        self._programs = {}


def _encoded(device: Covered) -> bytes:
    flags = DeviceFlag.POD_SIDE if device.pod_side else DeviceFlag(0)
    return OUTSIDE_DEVICE.pack(device.ipv4, device.ipv6, flags, 0)
