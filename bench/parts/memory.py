"""Kernel memory of the maps and the time that compiling and loading the programs takes."""

from __future__ import annotations

import os
import time

from bench.lab import Lab, Programmed
from bench.ratios import summarize
from bench.scale import Scale
from bench.tables import Table, duration, size
from pyagent.datapath.layout import MapFlag, MapSpec, MapType
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.links import programs
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_memory import map_memory
from pyagent.kernel.map_set import MapSet, possible_cpus
from pyagent.kernel.program_cache import ProgramCache

SERVICES, ENDPOINTS = 10_000, 10
BUDGET = 64e6
MANY_CPUS = 256

ELEMENT_HEADER = 48  # struct htab_elem
PREFILLED = 4  # elements that bpf_mem_alloc puts aside for each CPU (kernel/bpf/memalloc.c)
FREE_LIST = 64  # a CPU's head of free elements, on a cache line of its own


def run(lab: Lab, scale: Scale) -> list[Table]:
    with Programmed(lab) as programmed:
        maps = programmed.datapath.maps
        kinds = programs(programmed.datapath.hooks)
        kept = ProgramCache(lab.sandbox.folder / "programs")
        Unit("translate.c", maps, kept).load(kinds)
        rows = [
            _load("compile, verify and load all programs", Unit("translate.c", maps), kinds, scale.starts),
            _load(
                "verify and load those compiled before", Unit("translate.c", maps, kept), kinds, scale.starts
            ),
        ]
        programmed.grow(SERVICES, ENDPOINTS)
        table = _maps(maps)
    return [table, Table("Loader", ("what", "median", "least–most"), rows)]


def _load(what: str, unit: Unit, kinds: dict[str, bpf.ProgramKind], times: int) -> tuple[str, ...]:
    loads = []
    for _ in range(times):
        began = time.perf_counter()
        fds = unit.load(kinds)
        loads.append(time.perf_counter() - began)
        for fd in fds.values():
            os.close(fd)
    return what, duration(summarize(loads).median), f"{duration(min(loads))}–{duration(max(loads))}"


def _maps(maps: MapSet) -> Table:
    here = possible_cpus()
    rows: list[tuple[str, ...]] = []
    total = total_many = 0
    for name, spec in maps.specs.items():
        used = map_memory(maps.fd(name))
        many = used + (MANY_CPUS - here) * per_cpu(spec)
        total, total_many = total + used, total_many + many
        if many >= 100_000:
            rows.append((name, f"{spec.max_entries:,}", size(used), size(many), "", ""))
    met = "yes" if total_many <= BUDGET else "no"
    rows.append(("all maps", "", size(total), size(total_many), f"≤ {size(BUDGET)}", met))
    notes = (
        f"As the kernel accounts them (`memlock` of fdinfo); the column for {MANY_CPUS} CPUs is computed:",
        "what it keeps for each CPU is added. Maps below 100 kB are in the sum only; socket storage grows",
        "with sockets.",
    )
    columns = ("map", "entries", f"{here} CPUs", f"{MANY_CPUS} CPUs", "budget", "met")
    return Table(f"Kernel memory, {SERVICES:,} Services × {ENDPOINTS} endpoints", columns, rows, notes)


def per_cpu(spec: MapSpec) -> int:
    """Bytes that one more CPU costs a map (kernel/bpf/hashtab.c, arraymap.c, memalloc.c)."""
    element = ELEMENT_HEADER + _padded(spec.key_size) + _padded(spec.value_size)
    match spec.type:
        case MapType.PERCPU_ARRAY:
            return _padded(spec.value_size) * spec.max_entries
        case MapType.HASH if spec.flags & MapFlag.NO_PREALLOC:
            return PREFILLED * element
        case MapType.LPM_TRIE:
            return PREFILLED * element
        case MapType.HASH:
            return element + 8 + FREE_LIST
        case MapType.LRU_HASH:
            return FREE_LIST
    return 0


def _padded(count: int) -> int:
    return (count + 7) & ~7
