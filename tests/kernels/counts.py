"""Every program of `bpf/` loaded on the kernel that runs: its length, and what the verifier looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from pyagent.datapath.earlier_text import CROSSED
from pyagent.datapath.layout import Hook
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import connections, outside
from pyagent.kernel.btf import socket_facts
from pyagent.kernel.crossing import CARRIED
from pyagent.kernel.earlier import Earlier
from pyagent.kernel.links import programs
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache
from pyagent.model.failures import KernelRefused
from tests.datapath.ground.hooks import SMALL
from tests.kernels.sources import CROSSING, Count
from tests.kernels.sources import programs as programs_of_sources

Fds = dict[str, int]


def counts(folder: Path, cache: ProgramCache | None) -> dict[str, Count]:
    """Name -> count, of every program.

    Args:
        folder: on a bpffs; made, and left behind.
    """
    folder.mkdir()
    maps = MapSet.create(folder / "v1-1", SMALL)
    found: dict[str, Count] = {}
    with closing(maps), closing(Earlier.open(maps.folder)) as earlier:
        for names, load in _loaders(maps, earlier, cache):
            try:
                loaded = load()
            except KernelRefused as error:
                found.update(dict.fromkeys(names, Count(0, 0, str(error))))
                continue
            for name, fd in loaded.items():
                info = bpf.program_info(fd)
                os.close(fd)
                found[name] = Count(info.translated_bytes // 8, info.verified_instructions)
    return found


def _loaders(
    maps: MapSet, earlier: Earlier, cache: ProgramCache | None
) -> Iterator[tuple[tuple[str, ...], Callable[[], Fds]]]:
    """(names, what loads them): each as the agent does it."""
    hooks = programs(frozenset(Hook))
    definitions = earlier.definitions
    assert definitions is not None, "our own layout is understood"

    def crossing(source: str) -> Unit:
        return Unit(source, maps, cache, definitions, earlier.maps, CROSSED)

    def iterator() -> Fds:
        link = connections.load(maps, cache)
        try:
            return {connections.PROGRAM: bpf.program_fd_by_id(bpf.link_info(link).program_id)}
        finally:
            os.close(link)

    def carry() -> Fds:
        kind = bpf.ProgramKind(connections.PROGRAM_TRACING, connections.ATTACH_ITER, socket_facts().iterator)
        return crossing("carry.c").load(dict.fromkeys(CARRIED, kind))

    def hooks_crossing() -> Fds:
        return {f"{name}{CROSSING}": fd for name, fd in crossing("translate.c").load(hooks).items()}

    packets = tuple(name for name, source in programs_of_sources().items() if source == "outside.c")
    yield tuple(hooks), lambda: Unit("translate.c", maps, cache).load(hooks)
    yield tuple(f"{name}{CROSSING}" for name in hooks), hooks_crossing
    yield packets, lambda: outside.load(maps, cache)
    yield (connections.PROGRAM,), iterator
    yield tuple(CARRIED), carry
