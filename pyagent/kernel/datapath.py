"""The whole kernel side of one agent: one set of maps, the programs on them, their links."""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

from pyagent.datapath.decoded import RawMaps
from pyagent.datapath.description import own_text
from pyagent.datapath.layout import CONFIG, LAYOUT_VERSION, META, Capacities, Hook
from pyagent.datapath.writes import Store
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import connections, outside
from pyagent.kernel.bpffs_lock import BpffsLock
from pyagent.kernel.crossing import Crossing, unfinished
from pyagent.kernel.earlier import EARLIER, earlier_maps
from pyagent.kernel.grace import GracePeriod
from pyagent.kernel.links import (
    LINKS,
    UNCONNECTED_UDP,
    Links,
    LinkState,
    effective_programs,
    program_name,
    programs,
)
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_copy import copy_contents, copy_late
from pyagent.kernel.map_pins import (
    FOLDER_GONE,
    GONE,
    clear,
    is_folder,
    is_pinned,
    pin_again,
    point_to,
    target,
)
from pyagent.kernel.map_readings import used
from pyagent.kernel.map_set import CURRENT, MapSet, capacities_of, current_folder
from pyagent.kernel.mounts import check_cgroup, ensure_bpffs
from pyagent.kernel.outside import Outside
from pyagent.kernel.program_cache import ProgramCache
from pyagent.kernel.readers import Readers
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.failures import KubesockError, LayoutMismatch, PinsMissing, UsageError

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """What was found below `--bpffs`.

    Attributes:
        reused: maps of an earlier agent go on.
        mounted: where a BPF file system had to be mounted.
    """

    reused: bool
    mounted: str | None


class Repairs(NamedTuple):
    """What `Datapath.repair` found: a line for each thing that is made good, and for what cannot be now."""

    lines: list[str]
    failures: list[str]


class Larger(NamedTuple):
    """A set of maps to grow into, with programs on it."""

    maps: MapSet
    unit: Unit
    programs: dict[Hook, int]
    packets: outside.Programs


class Datapath:
    """Opened by the agent alone, under the lock of `--bpffs`."""

    def __init__(
        self,
        bpffs: Path,
        cgroup: Path,
        capacities: Capacities,
        unconnected_udp: bool = True,
        cache: ProgramCache | None = None,
        observing: bool = False,
        readers: Readers | None = None,
    ) -> None:
        """
        Args:
            capacities: of the maps, if they must be made.
            unconnected_udp: whether sendmsg and recvmsg are hooked (`--udp=all`).
            cache: for compiled programs.
            observing: fill maps, and never attach anything.
            readers: who may read the pins; None: root alone.
        """
        self.observing = observing
        self.bpffs = bpffs
        self.cgroup = cgroup
        self.hooks = frozenset(Hook) if unconnected_udp else frozenset(Hook) - UNCONNECTED_UDP
        self.capacities = capacities
        self.cache = cache
        self._programs: dict[Hook, int] = {}
        self._connections: int | None = None
        self._readers = readers or Readers(None)
        self._crossing: Crossing | None = None
        self._node: tuple[Store, ...] = ()
        self._meta: tuple[Store, ...] = ()

    def open(self) -> Opened:
        """Take the lock and open the pinned maps, or make new ones. Nothing is attached or written.

        Raises:
            UsageError, AgentRunning, NoPermission, KernelRefused: with the remedy.
        """
        check_cgroup(self.cgroup)
        mounted = ensure_bpffs(self.bpffs)
        self._lock = BpffsLock(self.bpffs)
        self.links = Links(self.bpffs / LINKS, self.cgroup)
        self._found = self.links.adopt()
        if self.observing and self._found:
            self._lock.close()
            raise UsageError(
                f"--observe: hooks are attached already, pinned in {self.bpffs}; they would go on serving:"
                f" `kubesock cleanup --bpffs {self.bpffs}` detaches them, or give another --bpffs"
            )
        self.maps, reused = self._open_maps()
        self.capacities = capacities_of(self.maps)
        self.grace = GracePeriod()
        self.outside = Outside(self.bpffs, self.maps, self.cache)
        self.unit = Unit("translate.c", self.maps, self.cache)
        return Opened(reused, mounted)

    def _open_maps(self) -> tuple[MapSet, bool]:
        """The maps in use; else new ones, which come into use when programs on them are attached."""
        self._crossing = unfinished(self.bpffs)
        used = {Path(target(self.bpffs, link)).name for link in (CURRENT, EARLIER)}
        try:
            found = MapSet.open(current_folder(self.bpffs), writable=True)
            self._remove_sets_but(used)  # what an agent left that ended while it made larger ones
            return found, True
        except (PinsMissing, LayoutMismatch) as reason:
            log.info("making new maps: %s", str(reason).split("; ")[0])  # the remedy is one for readers
        if self._crossing:
            self._crossing.close()
        self._remove_sets_but(used)
        earlier = earlier_maps(self.bpffs, CURRENT)
        self._crossing = Crossing(earlier) if earlier else None
        if not earlier:
            return MapSet.create(self._new_folder(), self.capacities), False
        return earlier.continued(self.bpffs, self._new_folder()), earlier.readable

    def _new_folder(self) -> Path:
        generations = [int(n) for p in self.bpffs.glob("v*-*") if (n := p.name.split("-")[1]).isdigit()]
        return self.bpffs / f"v{LAYOUT_VERSION}-{1 + max(generations, default=0)}"

    @property
    def keeps_programs(self) -> bool:
        """The pinned links run just the programs that we would load: nothing to compile."""
        if self._crossing:
            return False
        meta = META.as_dict(self.maps.window("meta", META.size)[: META.size])
        attached = {state.hook for state in self.links.states() if state.attached}
        return meta["program_tag"] == self.unit.tag and attached == self.hooks

    def load_programs(self) -> None:
        """Compile the programs and hold them, ready for `attach`."""
        if self._crossing:
            self._crossing.load(self.maps, self.hooks, self.cache)
        loaded = self.unit.load(programs(self.hooks))
        self._programs = {hook: loaded[program_name(hook)] for hook in self.hooks}

    @property
    def programs_ready(self) -> bool:
        return self._programs.keys() == self.hooks

    def hooks_not_effective(self) -> list[str]:
        """Hooks whose program does not run for sockets of our cgroup, by the kernel's own word."""
        ours = {s.hook: s.program_id for s in self.links.states()}
        effective = effective_programs(self.cgroup)
        return [program_name(h) for h in self.hooks if ours.get(h) not in effective.get(h, ())]

    def attach(self) -> None:
        """Make every hook run our programs; swapped in place where links live, so no call goes unhooked."""
        self._store_meta(program_tag=0)  # an agent that ends on the way is not taken for done
        if self._crossing:
            self._crossing.begin(self.bpffs)
            point_to(self.bpffs / CURRENT, self.maps.folder.name)
            self._crossing.run(self.links, self._programs, self.grace)
        else:
            self.links.point_to(self._programs)
        self._store_meta(self.unit.tag)
        if self._crossing:
            self._crossing.end(self.bpffs)
            self._crossing = None
        self._use(self.maps.folder)

    def show(self) -> None:
        """Let readers find the maps, though nothing is attached to them."""
        self._store_meta(program_tag=0)
        self._use(self.maps.folder)

    @property
    def attached(self) -> bool:
        """Hooks run programs on these maps alone."""
        return (
            not self.observing
            and self._crossing is None
            and target(self.bpffs, CURRENT) == self.maps.folder.name
        )

    def _use(self, folder: Path) -> None:
        """Readers find these maps from now on; all others go."""
        point_to(self.bpffs / CURRENT, folder.name)
        self._remove_sets_but({folder.name})

    def larger(self, capacities: Capacities) -> Larger:
        """Maps of these sizes beside those in use, with programs on them; nothing uses them yet.

        Takes as long as a compilation; may be called from another thread.

        Raises:
            KernelRefused: no memory for them.
        """
        folder = self._new_folder()
        try:
            maps = MapSet.create(folder, capacities, like=self.maps)
            unit = Unit("translate.c", maps, self.cache)
            loaded = unit.load(programs(self.hooks))
            packets = self.outside.for_larger(maps)
        except BaseException:
            self._remove_sets_but({self.maps.folder.name})
            raise
        return Larger(maps, unit, {hook: loaded[program_name(hook)] for hook in self.hooks}, packets)

    def grow(self, larger: Larger) -> None:
        """Copy what the maps hold and make the hooks use the larger ones. Ids and slots stay what they are.

        Between the copy and the last hook's switch, new affinity entries and a few counts may be lost; new
        flows are not.

        Raises:
            KubesockError, OSError: a hook cannot be attached now; the maps that were in use are so still.
        """
        with self.outside.maps_in_use():
            self._store_meta(program_tag=0)
            try:
                if not larger.packets:  # those at devices may have been loaded since it was made
                    larger = larger._replace(packets=self.outside.for_larger(larger.maps))
                copy_contents(self.maps, larger.maps)
                self.links.point_to(larger.programs)
            except (KubesockError, OSError):
                self._discard(larger)
                raise
            old_programs, self._programs = self._programs, larger.programs
            self.outside.exchange(larger.packets)
            try:
                copy_late("flows", self.maps, larger.maps)
            except (KubesockError, OSError) as error:
                log.error("connections from outside that just began choose a backend anew: %s", error)
            self.unit = larger.unit
            self.capacities = capacities_of(larger.maps)
            self.maps.become(larger.maps)
        self._store_meta(self.unit.tag)
        try:
            if self._connections is not None:
                connections.pin(self._connections, self.maps.folder)
            self._use(self.maps.folder)
        except OSError as error:
            log.warning("larger maps are in use, not all are pinned, the next repair does it: %s", error)
        for fd in old_programs.values():
            os.close(fd)

    def _discard(self, larger: Larger) -> None:
        with contextlib.suppress(KubesockError, OSError):  # the next repair tries it again, and tells
            self.links.point_to(self._programs)
        for fd in (*larger.programs.values(), *larger.packets.values()):
            os.close(fd)
        larger.maps.close()
        self._remove_sets_but({self.maps.folder.name})
        self._store_meta(self.unit.tag)

    def adopt_programs(self) -> bool:
        """Hold the programs that the links run, for repairs without a compiler.

        Returns:
            False if the kernel does not hand them out, for which it wants CAP_SYS_ADMIN
            (BPF_PROG_GET_FD_BY_ID): they must be loaded.
        """
        states = self.links.states()
        try:
            for state in states:
                self._programs[state.hook] = bpf.program_fd_by_id(state.program_id)
        except PermissionError:
            return False
        self._store_meta(self.unit.tag)
        return True

    def _store_meta(self, program_tag: int) -> None:
        started = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        values = META.pack(LAYOUT_VERSION, started, program_tag, os.getpid(), bytes(32))
        self._meta = (Store("meta", 0, values),)
        self.maps.apply(self._meta)

    def _remove_sets_but(self, kept: set[str]) -> None:
        for folder in self.bpffs.glob("v*-*"):
            if folder.name not in kept:
                clear(folder)

    def store_node(self, features: int, source_ports: tuple[int, int]) -> None:
        """Tell the programs which network namespace is the node's, and which features are on.

        Args:
            source_ports: first and last port for packets from outside that go on to other nodes.
        """
        offsets = CONFIG.offsets
        self._node = (
            Store("config", offsets["node_netns"], struct.pack("=Q", netns_cookie())),
            Store("config", offsets["features"], struct.pack("=I", features)),
            Store("config", offsets["source_port_low"], struct.pack("=HH", *source_ports)),
        )
        self.maps.apply(self._node)

    def altered(self) -> list[str]:
        """Maps in which somebody else wrote over what `store_node` and we ourselves told."""
        found = ["config"] if not self._are_there(self._node) else []
        found += ["meta"] if not self._are_there(self._meta) else []
        with self.maps.borrowed("layout") as text:
            return found if text[:] == own_text() else [*found, "layout"]

    def _are_there(self, stores: tuple[Store, ...]) -> bool:
        memories = ((self.maps.window(s.map, s.offset + len(s.data)), s) for s in stores)
        return all(memory[s.offset : s.offset + len(s.data)] == s.data for memory, s in memories)

    def undo_others(self) -> list[str]:
        """Make good what is altered; the names of those maps.

        Raises:
            KernelRefused: a map cannot be written.
        """
        found = self.altered()
        if found:
            self.maps.apply((*self._node, *self._meta))
            with self.maps.borrowed("layout") as text:
                text[:] = own_text()
        return found

    def open_connections(self) -> int:
        """The link of the connection table, loaded and pinned for readers; once, from any one thread.

        Raises:
            KernelRefused, CompilerMissing: the kernel has no BTF, or there is no compiler.
        """
        link = connections.load(self.maps, self.cache)
        with self.outside.maps_in_use():  # growth removes the folder of maps that were
            connections.pin(link, self.maps.folder)
            self._connections = link
        return link

    def raw(self) -> RawMaps:
        """A full dump, for restoring what the kernel holds."""
        maps = self.maps
        return RawMaps(
            frontends=dict(maps.items("frontends")),
            sets=used(maps, "sets"),
            slots=used(maps, "slots"),
            backends=used(maps, "backends"),
            names=dict(maps.items("names")),
            service_addresses=dict(maps.items("service_addresses")),
            node_addresses=dict(maps.items("node_addresses")),
            config=maps.window("config", CONFIG.size)[: CONFIG.size],
        )

    def repair(self) -> Repairs:
        """Look whether links, pins and their modes are as they should be, and make them so.

        Raises:
            AgentRunning: the folder was lost, and another agent has it by now.
            KubesockError, OSError: the folder was lost, and cannot be made again now.
        """
        lost = not self._lock.is_of(self.bpffs)
        if lost:
            ensure_bpffs(self.bpffs)
            former, self._lock = self._lock, BpffsLock(self.bpffs)
            former.close()
        found = Repairs([], [])
        for look in (self._repair_hooks, self._repair_pins, self._close_to_others):
            try:
                found.lines.extend(look())
            except (KubesockError, OSError) as error:
                found.failures.append(str(error))
        if lost:
            found.lines[:] = [f"{self.bpffs}: the folder or its file system was gone, all pins with it"]
        return found

    def _repair_hooks(self) -> list[str]:
        faults = {s.hook: self._fault(s) for s in self.link_states()}
        repaired = [f"{program_name(hook)}: {fault}" for hook, fault in faults.items() if fault]
        if not is_folder(self.bpffs / LINKS):
            repaired = [f"{LINKS}: {FOLDER_GONE}", *(line for line in repaired if not line.endswith(GONE))]
        if repaired:
            self.links.point_to(self._programs)
        return repaired

    def _fault(self, link: LinkState) -> str:
        if not link.attached:
            return "it was detached"
        if link.program_id != bpf.program_info(self._programs[link.hook]).id:
            return "it ran a program of somebody else"
        return "" if link.pinned else GONE

    def _repair_pins(self) -> list[str]:
        folder, table = self.maps.folder, self._connections
        there = is_folder(folder)
        repaired = [f"map {name}: {GONE}" for name in pin_again(self.maps)]
        if table is not None and not is_pinned(folder / connections.PIN, table, bpf.link_info):
            connections.pin(table, folder)
            repaired.append(f"connection table: {GONE}")
        if not there:
            repaired = [f"{folder.name}: {FOLDER_GONE}"]
        if point_to(self.bpffs / CURRENT, folder.name):
            repaired.append(f"map current: {GONE}")
        return repaired

    def _close_to_others(self) -> list[str]:
        return self._readers.admit(self.bpffs, self.maps)

    def link_states(self) -> list[LinkState]:
        """How the hooks stand that have a link, or should have one."""
        found = self.links.states()
        missing = self._programs.keys() - {state.hook for state in found}
        return found + [LinkState(hook, attached=False) for hook in sorted(missing)]

    def close(self) -> None:
        """Let go; everything pinned goes on serving."""
        self.links.close()
        self.outside.close()
        if self._crossing:
            self._crossing.close()
        for fd in self._programs.values():
            os.close(fd)
        self.grace.close()
        self.maps.close()
        self._lock.close()
