"""Services for packets: the programs of `bpf/outside.c` on the devices that the agent names."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyagent.datapath.flow_layout import OUTSIDE_DEVICE, DeviceFlag
from pyagent.datapath.writes import Put, Remove
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache
from pyagent.kernel.tc_links import KIND, Place, Point, TcLinks
from pyagent.model.device import Covered
from pyagent.model.failures import KubesockError

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
                self._covered = ()  # not as wanted: who looks after them covers them again

    def is_whole(self) -> bool:
        """Whether our programs run where they should and nowhere else, and read of devices what we wrote."""
        wanted = {Place(one.ifindex, p): self._program(p, one) for one in self._covered for p in Point}
        told = {_INDEX.pack(one.ifindex): _encoded(one) for one in self._covered}
        return (
            self.links.places() == wanted.keys()
            and all(self.links.runs(place, program) for place, program in wanted.items())
            and dict(self._maps.items(MAP)) == told
        )

    @property
    def covered(self) -> tuple[Covered, ...]:
        """The devices that `cover` was last told."""
        return self._covered

    def use(self, programs: Programs) -> None:
        """Run these from the next `cover` on; they are closed with this object."""
        self._close_programs()
        self._programs = programs

    def cover(self, devices: Iterable[Covered]) -> list[str]:
        """Serve at these devices and at no others.

        A device that is served already gets the program of `use` in one step, so that no packet goes
        unserved. At a new one what leaves is understood before anything arrives.

        Returns:
            A line for each device that was begun with or given up.

        Raises:
            KernelRefused: names the device.
        """
        with self._lock:
            return self._cover(tuple(devices))

    def _cover(self, wanted: tuple[Covered, ...]) -> list[str]:
        before = {_INDEX.unpack(key)[0] for key, _value in self._maps.items(MAP)}
        self._maps.apply([Put(MAP, _INDEX.pack(one.ifindex), _encoded(one)) for one in wanted])
        told = []
        for one in wanted:
            begun = [self.links.attach(Place(one.ifindex, p), self._program(p, one)) for p in reversed(Point)]
            if any(begun):
                told.append(f"serving packets at {one.name}")
        indexes = {one.ifindex for one in wanted}
        names = {one.ifindex: one.name for one in self._covered}
        for point in Point:
            for place in [p for p in self.links.places() if p.point is point and p.device not in indexes]:
                self.links.detach(place)
                if point is Point.ARRIVE:
                    told.append(f"no longer serving packets at {names.get(place.device, place.device)}")
        self._maps.apply([Remove(MAP, _INDEX.pack(index)) for index in before - indexes])
        self._covered = wanted
        return told

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
