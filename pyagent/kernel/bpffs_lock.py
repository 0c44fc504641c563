"""One agent for one `--bpffs`: an exclusive flock on that folder, which dies with its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pyagent.model.failures import AgentRunning


class BpffsLock:
    """Held until closed; not inherited by children."""

    def __init__(self, folder: Path, then: str = "") -> None:
        """Take the lock.

        Args:
            then: what to do once the holder is stopped, for the error.

        Raises:
            AgentRunning: somebody has it; names the process.
        """
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            inode = os.fstat(self._fd).st_ino
            os.close(self._fd)
            raise AgentRunning(
                f"{folder} belongs to a running agent{_holder(inode)}; stop it first"
                f"{then and f', then {then}'}, or give another --bpffs"
            ) from None

    def is_of(self, folder: Path) -> bool:
        """Whether what is at this path now is what was locked: no other mount, no folder made anew."""
        try:
            there = folder.stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def close(self) -> None:
        os.close(self._fd)


def _holder(inode: int) -> str:
    """`, process 123` by /proc/locks; empty where that does not tell."""
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[-3].endswith(f":{inode}") and "->" not in fields:
            return f", process {fields[4]}"
    return ""
