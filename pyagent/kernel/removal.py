"""Detaches what is pinned below `--bpffs` and removes every pin of ours."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from pyagent.kernel.bpffs_lock import BpffsLock
from pyagent.kernel.earlier import EARLIER
from pyagent.kernel.links import LINKS
from pyagent.kernel.map_pins import FOLLOWING
from pyagent.kernel.map_set import CURRENT
from pyagent.kernel.outside import FOLDER
from pyagent.kernel.tc_links import detach_all


def pins(bpffs: Path) -> list[Path]:
    """Everything of ours below `bpffs`, in the order in which it must go."""
    names = [FOLDER, LINKS, CURRENT, EARLIER, FOLLOWING, *sorted(p.name for p in bpffs.glob("v*-*"))]
    found: list[Path] = []
    for path in (bpffs / name for name in names):
        if path.is_symlink():
            found.append(path)
        elif path.is_dir():
            # Forward hooks go first: no call may be translated whose way back is gone.
            found += sorted(path.rglob("*"), key=_removal)
            found.append(path)
        elif path.exists():
            found.append(path)
    return found


def _removal(path: Path) -> tuple[int, bool]:
    return -len(path.parts), not path.name.startswith(("connect", "sendmsg"))


def cleanup(bpffs: Path) -> list[str]:
    """Detach everything and remove every pin below `bpffs`, under its lock.

    Returns:
        What was removed, one line each; empty where nothing was.

    Raises:
        AgentRunning: the agent must be stopped first.
    """
    if not bpffs.is_dir():
        return []
    lock = BpffsLock(bpffs, then="clean up")
    try:
        removed = pins(bpffs)
        detach_all(bpffs / FOLDER)
        for path in removed:
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
    finally:
        lock.close()
    return [*map(str, removed), *(_remove_folder(bpffs) if removed else [])]


def _remove_folder(bpffs: Path) -> list[str]:
    if bpffs.is_mount() and bpffs != Path("/sys/fs/bpf"):
        unmounted = subprocess.run(["umount", str(bpffs)], check=False, capture_output=True).returncode == 0
        return [f"{bpffs} (mount)"] if unmounted else []
    with contextlib.suppress(OSError):  # others' pins are in it: theirs to keep
        bpffs.rmdir()
        return [str(bpffs)]
    return []
