"""Where cgroups lie: from the id that links tell to the folder, and our own."""

from __future__ import annotations

import os
from pathlib import Path

from pyagent.kernel.mounts import cgroup2_root, mounts


def cgroup_path(identifier: int) -> Path | None:
    """The folder of a cgroup v2 by its id, the folder's inode number; None where none is in sight."""
    for mount in mounts():
        if mount.type != "cgroup2":
            continue
        if mount.path.stat().st_ino == identifier:
            return mount.path
        found = _below(mount.path, identifier)
        if found is not None:
            return found
    return None


def _below(folder: Path, identifier: int) -> Path | None:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.inode() == identifier:
                            return Path(entry.path)
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue  # removed while we looked
    return None


def own_cgroup() -> Path | None:
    """The folder of this process's cgroup v2; None where it is in none, or outside what is mounted here."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            folder = (cgroup2_root() / line[3:].lstrip("/")).resolve()
            return folder if folder.is_dir() else None
    return None
