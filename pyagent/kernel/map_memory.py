"""Kernel memory of a map."""

from __future__ import annotations

from pathlib import Path


def map_memory(fd: int) -> int:
    """Bytes that the kernel accounts for an open map: `memlock` of its fdinfo (kernel/bpf/syscall.c).

    Exact since Linux 6.4; before, what the map's elements were expected to take.
    """
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    return 0
