"""From the id of a cgroup, as links tell it, to its folder."""

from __future__ import annotations

import os
from pathlib import Path

from pyagent.kernel.mounts import mounts


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
