"""From programs on maps of another layout to programs on ours, while clients go on.

1. Reverse hooks that know both layouts' records, then forward hooks that do: what a socket dialled before is
   still shown, what it dials from now on is recorded in ours.
2. When no program can still write the earlier maps, what they hold of sockets is copied by an iterator, and
   affinity and counts by us.
3. Programs that know ours alone.

Each step may be the last before a crash: the next agent begins again with the first.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pyagent.datapath.earlier_text import CROSSED
from pyagent.datapath.layout import Hook
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.btf import socket_facts
from pyagent.kernel.connections import ATTACH_ITER, PROGRAM_TRACING
from pyagent.kernel.earlier import EARLIER, Earlier, earlier_maps
from pyagent.kernel.grace import GracePeriod
from pyagent.kernel.links import Links, program_name, programs
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_pins import point_to
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache
from pyagent.model.failures import KubesockError

log = logging.getLogger(__name__)

CARRIED = {"carry_origin": "origin", "carry_origin_udp": "origin_udp"}
"""Iterator program -> the map that it walks."""

MOST_PASSES = 20
CHUNK = 1 << 16


class Crossing:
    """The way of the hooks from `earlier`'s maps to others."""

    def __init__(self, earlier: Earlier) -> None:
        self._earlier = earlier
        self._maps: MapSet | None = None
        self._programs: dict[Hook, int] = {}
        self._iterators: dict[str, int] = {}

    def load(self, maps: MapSet, hooks: frozenset[Hook], cache: ProgramCache | None) -> None:
        """Compile the programs for the way, as far as this kernel can run them. May take a second."""
        self._maps = maps
        definitions = self._earlier.definitions
        if definitions is None:
            log.warning("records of open sockets are not understood: those sockets will show their backend")
            return
        there = self._earlier.maps
        try:
            loaded = Unit("translate.c", maps, cache, definitions, there, CROSSED).load(programs(hooks))
            self._programs = {hook: loaded[program_name(hook)] for hook in hooks}
            # Iterators cannot make records before Linux 5.11.
            kind = bpf.ProgramKind(PROGRAM_TRACING, ATTACH_ITER, socket_facts().iterator)
            carry = Unit("carry.c", maps, cache, definitions, there, CROSSED)
            self._iterators = carry.load(dict.fromkeys(CARRIED, kind))
        except KubesockError as error:
            log.warning("records of open sockets cannot be copied, they will show their backend: %s", error)

    def begin(self, bpffs: Path) -> None:
        """Say where the hooks come from: an agent that finds this begins anew."""
        point_to(bpffs / EARLIER, self._earlier.maps.folder.name)

    def end(self, bpffs: Path) -> None:
        """All is done; the earlier maps may go."""
        (bpffs / EARLIER).unlink(missing_ok=True)
        self.close()

    def run(self, links: Links, ours: dict[Hook, int], grace: GracePeriod) -> None:
        """Lead the hooks over to `ours`.

        Raises:
            KernelRefused: a hook cannot be attached.
        """
        if self._maps is None:
            raise ValueError("not loaded")
        links.point_to(self._programs or ours)
        grace.wait()
        self._earlier.copy_late(self._maps)
        copied = refused = 0
        for program, name in CARRIED.items():
            if program in self._iterators:
                counts = self._carry(self._iterators[program], name)
                copied, refused = copied + counts[0], refused + counts[1]
        log.info(
            "%d records of open sockets were carried over; %d were not: their sockets close, or have no"
            " room for them (net.core.optmem_max)",
            copied,
            refused,
        )
        links.point_to(ours)
        grace.wait()

    def _carry(self, program: int, name: str) -> tuple[int, int]:
        """(copied, refused): walks until there is nothing left, for sockets that close may hide others."""
        link = bpf.iter_link_create(program, ATTACH_ITER, self._earlier.maps.fd(name))
        copied = refused = 0
        try:
            for _ in range(MOST_PASSES):
                told = _walk(link)
                copied += told.count(1)
                refused = told.count(0)
                if not told.count(1):
                    break
        finally:
            os.close(link)
        return copied, refused

    def close(self) -> None:
        for fd in (*self._programs.values(), *self._iterators.values()):
            os.close(fd)
        self._programs, self._iterators = {}, {}
        self._earlier.close()


def unfinished(bpffs: Path) -> Crossing | None:
    """What an agent that was ended on the way left."""
    earlier = earlier_maps(bpffs, EARLIER)
    return Crossing(earlier) if earlier else None


def _walk(link: int) -> bytes:
    fd = bpf.iter_create(link)
    told = bytearray()
    try:
        while chunk := os.read(fd, CHUNK):
            told += chunk
    finally:
        os.close(fd)
    return bytes(told)
