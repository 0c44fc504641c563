"""Processes by name, as far as /proc shows them."""

from __future__ import annotations

import os
from pathlib import Path


def named(name: str) -> list[int]:
    """Ids of the processes whose command has this name (the kernel keeps 15 bytes of it, proc(5))."""
    found = []
    wanted = name[:15] + "\n"
    for entry in os.listdir("/proc"):  # noqa: PTH208  half the time of Path.iterdir
        if entry.isdigit():
            try:
                if Path("/proc", entry, "comm").read_text(errors="replace") == wanted:
                    found.append(int(entry))
            except OSError:
                continue  # it has ended
    return sorted(found)
