"""Whether an agent lives on a `--bpffs` folder: who holds its flock, asked without disturbing anybody."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""Inode number of the machine's own pid namespace (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""


class LockOwner(NamedTuple):
    """The holder of a folder's exclusive flock. `pid` is 0 where it lives in another pid namespace."""

    alive: bool
    pid: int = 0


def lock_owner(folder: Path) -> LockOwner:
    """Who holds the exclusive flock of a folder.

    /proc/locks leaves out holders that this pid namespace cannot see. Only inside of such a namespace a
    shared lock is tried, and given back at once: on the machine itself it could turn away an agent that
    starts in that moment.
    """
    facts = folder.stat()
    wanted = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    owner = owner_in(Path("/proc/locks").read_text(), wanted)
    if owner.alive or Path("/proc/self/ns/pid").stat().st_ino == INITIAL_PID_NAMESPACE:
        return owner
    return LockOwner(_is_locked(folder))


def owner_in(locks: str, wanted: str) -> LockOwner:
    """The exclusive flock on `major:minor:inode` in the text of /proc/locks (proc_locks(5))."""
    for line in locks.splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[3] == "WRITE" and fields[5] == wanted:
            return LockOwner(True, int(fields[4]) if fields[4].isdigit() else 0)
    return LockOwner(False)


def _is_locked(folder: Path) -> bool:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
