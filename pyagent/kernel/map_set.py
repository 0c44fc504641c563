"""One set of maps of the layout: created or opened by pin, written by plans, read by everybody.

A set lives in its own folder below `--bpffs`, `v<layout>-<generation>` (bpffs refuses dots); the link
`current` names the one that the attached programs use. Only the agent opens it writable.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast

from pyagent.datapath.description import Description, own_text
from pyagent.datapath.layout import (
    LAYOUT_VERSION,
    Capacities,
    MapFlag,
    MapSpec,
    MapType,
    map_specs,
)
from pyagent.datapath.writes import Put, Remove, Store, Write
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import capabilities
from pyagent.kernel.map_create import create_map
from pyagent.model.failures import (
    KernelRefused,
    LayoutMismatch,
    MapFull,
    NoPermission,
    PinsMissing,
)

CURRENT = "current"
BATCH = 4096
WINDOW_STEP = 1 << 18
COUNTERS = frozenset({"chosen", "refused"})
"""Large arrays of which one element is written now and then: not worth mapping."""

COUNTER_SIZE = 8
_NO_BATCH = {errno.EINVAL, errno.EOPNOTSUPP, 524}  # 524: ENOTSUPP, which never should leave the kernel


class Portion(NamedTuple):
    """Some entries of a map, keys and values each in a row. `following` is None at the map's end."""

    keys: bytes
    values: bytes
    key_size: int
    value_size: int
    following: bytes | None

    def items(self) -> list[tuple[bytes, bytes]]:
        k, v = self.key_size, self.value_size
        count = len(self.keys) // k
        return [(self.keys[i * k : i * k + k], self.values[i * v : i * v + v]) for i in range(count)]


class MapSet:
    """Open maps by name.

    Attributes:
        specs: what each map is, as the kernel reports it.
        folder: where they are pinned.
    """

    def __init__(self, folder: Path, fds: dict[str, int], specs: dict[str, MapSpec], writable: bool) -> None:
        self.folder = folder
        self.specs = specs
        self._fds = fds
        self._writable = writable
        self._memory: dict[str, mmap.mmap] = {}
        self._windows: dict[str, mmap.mmap] = {}
        self._no_batch: set[str] = set()
        self._copied: set[str] = set()  # arrays that may only be read

    @classmethod
    def create(
        cls,
        folder: Path,
        capacities: Capacities,
        like: MapSet | None = None,
        shared: Collection[str] | None = None,
    ) -> MapSet:
        """New, empty maps, pinned in `folder` (which must not exist yet).

        Args:
            like: maps of this set that have the wanted size are shared instead of made anew.
            shared: only these of them; None: all.

        Raises:
            KernelRefused, NoPermission: with the map's name and the remedy.
        """
        folder.mkdir(mode=0o700)
        fds: dict[str, int] = {}
        specs = {spec.name: spec for spec in map_specs(capacities)}
        try:
            for spec in specs.values():
                fitting = like is not None and like.specs[spec.name] == spec
                taken = fitting and (shared is None or spec.name in shared)
                fds[spec.name] = os.dup(like.fd(spec.name)) if like and taken else create_map(spec)
                bpf.obj_pin(fds[spec.name], str(folder / spec.name))
                (folder / spec.name).chmod(0o600)
        except OSError as error:
            for fd in fds.values():
                os.close(fd)
            raise _refused("create the maps", error) from error
        made = cls(folder, fds, specs, writable=True)
        with made.borrowed("layout") as text:
            text[:] = own_text()
        return made

    @classmethod
    def open(cls, folder: Path, writable: bool = False) -> MapSet:
        """The maps pinned in `folder`, checked against the layout.

        Raises:
            PinsMissing: nothing is pinned there.
            LayoutMismatch: they are of another layout than this program reads.
            NoPermission: not root.
        """
        found = cls._open(folder, map_specs(Capacities()), writable)
        with found.borrowed("layout") as text:
            ours = text[:] == own_text()
        if not ours:
            found.close()
            raise LayoutMismatch(f"{folder}: maps of another layout; use the kubesock of the running agent")
        return found

    @classmethod
    def open_described(cls, folder: Path, description: Description) -> MapSet:
        """Maps of another layout.

        Raises:
            PinsMissing, LayoutMismatch, NoPermission: they are not what their description says.
        """
        return cls._open(folder, description.specs(), writable=True)

    @classmethod
    def _open(cls, folder: Path, wanted_specs: Iterable[MapSpec], writable: bool) -> MapSet:
        fds: dict[str, int] = {}
        specs: dict[str, MapSpec] = {}
        copied: set[str] = set()
        try:
            for wanted in wanted_specs:
                fds[wanted.name], readonly = _open(folder / wanted.name, writable, wanted)
                if readonly and wanted.flags & MapFlag.MMAPABLE:
                    copied.add(wanted.name)
                specs[wanted.name] = _checked(fds[wanted.name], wanted, folder)
        except BaseException:
            for fd in fds.values():
                os.close(fd)
            raise
        opened = cls(folder, fds, specs, writable)
        opened._copied = copied
        return opened

    def fd(self, name: str) -> int:
        return self._fds[name]

    def become(self, other: MapSet) -> None:
        """Be the other set from now on: whoever holds this one reads and writes the other's maps."""
        self.close()
        self.folder, self.specs = other.folder, other.specs
        self._fds, self._no_batch, self._copied = other._fds, other._no_batch, other._copied
        self._memory, self._windows = other._memory, other._windows

    def close(self) -> None:
        for memory in (*self._memory.values(), *self._windows.values()):
            memory.close()
        self._windows.clear()
        for fd in self._fds.values():
            os.close(fd)
        self._memory.clear()
        self._fds.clear()

    def memory(self, name: str) -> mmap.mmap:
        """The whole array, shared with the kernel, for whoever does not live long: see `window`."""
        if name not in self._memory or name in self._copied:
            self._memory[name] = self._map(name, self._length(name))
        return self._memory[name]

    @contextlib.contextmanager
    def borrowed(self, name: str) -> Iterator[mmap.mmap]:
        """The whole array for a moment."""
        with self._map(name, self._length(name)) as memory:
            yield memory

    def window(self, name: str, end: int) -> mmap.mmap:
        """The array at least up to the byte `end`, as far as it exists.

        The kernel gives a process that maps an array all of its pages at once, used or not, and counts them
        as the process's.
        """
        found = self._windows.get(name)
        if found is None or len(found) < min(end, self._length(name)):
            if found is not None:
                found.close()
            wanted = min(-(-max(end, 1) // WINDOW_STEP) * WINDOW_STEP, self._length(name))
            found = self._windows[name] = self._map(name, wanted)
        return found

    def _length(self, name: str) -> int:
        spec = self.specs[name]
        stride = (spec.value_size + 7) & ~7
        return -(-stride * spec.max_entries // mmap.PAGESIZE) * mmap.PAGESIZE

    def _map(self, name: str, length: int) -> mmap.mmap:
        if name in self._copied:
            return self._copy(name, length)
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if self._writable else 0)
        return mmap.mmap(self._fds[name], length, mmap.MAP_SHARED, protection)

    def _copy(self, name: str, length: int) -> mmap.mmap:
        """What the array holds now, in memory of our own: a read-only descriptor cannot be mapped."""
        size = self.specs[name].value_size
        stride = (size + 7) & ~7
        memory = mmap.mmap(-1, length)
        for key, value in self.items(name):
            at = int.from_bytes(key, sys.byteorder) * stride
            memory[at : at + size] = value
        return memory

    def apply(self, writes: Iterable[Write]) -> int:
        """Carry out the writes of a plan in their order; neighbours in one map go as one batch.

        Returns:
            How many writes were carried out.

        Raises:
            MapFull: no room for an entry. KernelRefused: any other failure. Writes before it are done.
        """
        count = 0
        for run in _runs(writes):
            match run[0]:
                case Store():
                    for store in run:
                        self._store(cast("Store", store))
                case Put():
                    self._put(cast("list[Put]", run))
                case Remove():
                    for removal in run:
                        self._remove(cast("Remove", removal))
            count += len(run)
        return count

    def _store(self, write: Store) -> None:
        size = len(write.data)
        index = write.offset // size
        if write.map in COUNTERS and size == COUNTER_SIZE and index < self.specs[write.map].max_entries:
            bpf.map_update(self._fds[write.map], struct.pack("=I", index), write.data)
            return
        memory = self.window(write.map, write.offset + size)
        if size in (4, 8):
            # One item of a cast view is one store instruction: no reader sees half of it.
            code: Literal["Q", "I"] = "Q" if size == 8 else "I"
            with memoryview(memory) as raw, raw.cast(code) as words:
                words[write.offset // size] = struct.unpack(f"={code}", write.data)[0]
        else:
            memory[write.offset : write.offset + size] = write.data

    def _put(self, writes: list[Put]) -> None:
        name = writes[0].map
        fd = self._fds[name]
        try:
            if len(writes) > 1 and name not in self._no_batch:
                try:
                    keys = b"".join(w.key for w in writes)
                    values = b"".join(w.value for w in writes)
                    bpf.map_update_batch(fd, keys, values, len(writes))
                    return
                except OSError as error:
                    if error.errno not in _NO_BATCH:
                        raise
                    self._no_batch.add(name)
            for write in writes:
                bpf.map_update(fd, write.key, write.value)
        except OSError as error:
            if error.errno in (errno.E2BIG, errno.ENOSPC):
                raise MapFull(name, self.specs[name].max_entries) from error
            raise _refused(f"write map {name}", error) from error

    def _remove(self, write: Remove) -> None:
        try:
            bpf.map_delete(self._fds[write.map], write.key)
        except OSError as error:
            raise _refused(f"remove from map {write.map}", error) from error

    def items(self, name: str) -> list[tuple[bytes, bytes]]:
        """All entries of a hash map or trie; a snapshot while others write is not consistent."""
        found: list[tuple[bytes, bytes]] = []
        cursor: bytes | None = None
        while True:
            portion = self.portion(name, cursor, BATCH)
            found += portion.items()
            cursor = portion.following
            if cursor is None:
                return found

    def portion(self, name: str, cursor: bytes | None, count: int) -> Portion:
        """About `count` entries of a hash map or trie.

        Args:
            cursor: None to begin, then `following` of the portion before.

        Raises:
            KernelRefused: the map cannot be read.
        """
        spec, fd = self.specs[name], self._fds[name]
        sizes = spec.key_size, spec.value_size
        try:
            if name not in self._no_batch:
                try:
                    keys, values, _, following = bpf.map_lookup_batch(fd, cursor, *sizes, count)
                    return Portion(keys, values, *sizes, following)
                except OSError as error:
                    if error.errno not in _NO_BATCH:
                        raise
                    self._no_batch.add(name)
                    cursor = None
            return self._portion_by_keys(name, cursor, count)
        except OSError as error:
            raise _refused(f"read map {name}", error) from error

    def _portion_by_keys(self, name: str, cursor: bytes | None, count: int) -> Portion:
        spec, fd = self.specs[name], self._fds[name]
        entries: list[tuple[bytes, bytes]] = []
        key = bpf.map_next_key(fd, cursor, spec.key_size)
        while key is not None:
            value = bpf.map_lookup(fd, key, spec.value_size)
            if value is not None:
                entries.append((key, value))
            cursor = key
            if len(entries) >= count:
                break
            key = bpf.map_next_key(fd, key, spec.key_size)
        keys, values = (b"".join(column) for column in ([k for k, _ in entries], [v for _, v in entries]))
        return Portion(keys, values, spec.key_size, spec.value_size, cursor if key is not None else None)

    def get(self, name: str, key: bytes) -> bytes | None:
        """One entry; of per-CPU maps the values of all CPUs in a row."""
        spec = self.specs[name]
        size = spec.value_size
        if spec.type is MapType.PERCPU_ARRAY:
            size = (size + 7 & ~7) * possible_cpus()
        return bpf.map_lookup(self._fds[name], key, size)

    def put_missing(self, name: str, key: bytes, value: bytes) -> None:
        """Put an entry unless there is one."""
        try:
            bpf.map_update(self._fds[name], key, value, bpf.BPF_NOEXIST)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise _refused(f"write map {name}", error) from error

    def counts(self, name: str) -> bytes:
        """All counters of a map in a row; of per-CPU ones their sums."""
        spec = self.specs[name]
        if spec.type is not MapType.PERCPU_ARRAY:
            return self.memory(name)[: spec.max_entries * spec.value_size]
        values = (self.get(name, struct.pack("=I", at)) or b"" for at in range(spec.max_entries))
        return b"".join(struct.pack("=Q", sum(struct.unpack(f"={len(v) // 8}Q", v))) for v in values)

    def add_counts(self, name: str, gained: Iterable[tuple[int, int]]) -> None:
        """Add to counters (place, how much), on the first CPU; what hooks add at that instant may be lost."""
        spec = self.specs[name]
        for at, count in gained:
            if at >= spec.max_entries:
                continue
            key = struct.pack("=I", at)
            found = bytearray(self.get(name, key) or bytes(8))
            struct.pack_into("=Q", found, 0, struct.unpack_from("=Q", found)[0] + count & 0xFFFFFFFFFFFFFFFF)
            bpf.map_update(self._fds[name], key, bytes(found))


def possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.replace(",", "-").split("-")[-1]) + 1


def capacities_of(maps: MapSet) -> Capacities:
    """The sizes that open maps have; of another layout too, as far as it has these maps."""
    entries = {name: spec.max_entries for name, spec in maps.specs.items()}
    return Capacities(**{field: entries[name] for field, name in _SIZED.items() if name in entries})


_SIZED = {
    "frontends": "frontends",
    "sets": "sets",
    "slots": "slots",
    "backends": "backends",
    "service_ports": "refused",
    "service_addresses": "service_addresses",
    "node_addresses": "node_addresses",
    "affinity": "affinity",
    "overflow": "origin_overflow",
    "source_ranges": "source_ranges",
    "clients": "client_addresses",
    "event_bytes": "events",
    "flows": "flows",
    "fragments": "fragments",
    "devices": "outside_devices",
}
"""Capacity -> a map that has it."""


def is_in_use(bpffs: Path) -> bool:
    """Whether hooks run on maps that are pinned there."""
    try:
        return (bpffs / CURRENT).is_symlink()
    except PermissionError:
        return False


def current_folder(bpffs: Path) -> Path:
    """The set of maps that is in use.

    Raises:
        PinsMissing, LayoutMismatch, NoPermission: with the remedy.
    """
    try:
        name = str((bpffs / CURRENT).readlink())
    except FileNotFoundError:
        raise PinsMissing(f"{bpffs}: nothing is pinned there; start `kubesock run --bpffs {bpffs}`") from None
    except PermissionError:
        raise NoPermission(f"{bpffs}: permission denied; run as root") from None
    except OSError as error:
        raise PinsMissing(f"{bpffs}: {error.strerror}; give the --bpffs of the agent") from error
    version = name.removeprefix("v").split("-")[0]
    if version != str(LAYOUT_VERSION):
        raise LayoutMismatch(
            f"{bpffs}/{name}: maps of layout {version}, this program reads layout {LAYOUT_VERSION};"
            " use the kubesock of the running agent"
        )
    return bpffs / name


def _runs(writes: Iterable[Write]) -> Iterator[list[Write]]:
    run: list[Write] = []
    for write in writes:
        if run and (type(run[0]) is not type(write) or run[0].map != write.map or len(run) >= BATCH):
            yield run
            run = []
        run.append(write)
    if run:
        yield run


def _open(path: Path, writable: bool, wanted: MapSpec) -> tuple[int, bool]:
    """The map's descriptor, and whether it can only be read."""
    # mmap(MAP_SHARED) is refused through a read-only fd, even for reading (mm/mmap.c clears VM_SHARED).
    needs_write = bool(wanted.flags & MapFlag.MMAPABLE) or wanted.type is MapType.SK_STORAGE
    try:
        if path.is_symlink() or path.is_dir():
            raise PinsMissing(f"{path}: no pin, but a link or a folder; restart the agent")
        if writable:
            return bpf.obj_get(str(path)), False
        if needs_write:
            with contextlib.suppress(PermissionError):  # a reader who is not root may read alone
                return bpf.obj_get(str(path)), False
        return bpf.obj_get(str(path), bpf.OBJ_RDONLY), True
    except FileNotFoundError:
        raise PinsMissing(f"{path}: not pinned; start the agent, it pins again") from None
    except PermissionError:
        raise NoPermission(f"{path}: permission denied; run as root, or see --readers-group") from None
    except OSError as error:
        raise _refused(f"open {path}", error) from error


def _checked(fd: int, wanted: MapSpec, folder: Path) -> MapSpec:
    info = bpf.map_info(fd)
    found = wanted._replace(max_entries=info.max_entries)
    relevant = MapFlag.NO_PREALLOC | MapFlag.MMAPABLE
    if (info.type, info.key_size, info.value_size, info.flags & relevant) != (
        wanted.type,
        wanted.key_size,
        wanted.value_size,
        wanted.flags,
    ):
        raise LayoutMismatch(
            f"{folder / wanted.name}: type {info.type}, key {info.key_size}, value {info.value_size} bytes, "
            f"wanted {wanted.type.value}, {wanted.key_size}, {wanted.value_size};"
            " remove it with `kubesock cleanup`"
        )
    return found


def _refused(what: str, error: OSError) -> KernelRefused | NoPermission:
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoPermission(f"{what}: {error.strerror}; {capabilities.remedy()}")
    if error.errno == errno.ENOMEM:
        return KernelRefused(f"{what}: no memory; give smaller map sizes or raise the memory limit")
    return KernelRefused(f"{what}: {error.strerror}")
