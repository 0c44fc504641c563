"""What the agent keeps in `--state-dir`, for whoever must take it away."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pyagent.cluster.server_address import FILE_NAME

SOCKET = "agent.sock"


def state_files(state_dir: Path) -> list[Path]:
    """Those of ours that are there."""
    return [path for name in (FILE_NAME, SOCKET) if (path := state_dir / name).exists()]


def remove_state(state_dir: Path) -> list[str]:
    """Remove them, and the folder if nothing else is in it; what was removed."""
    removed = state_files(state_dir)
    for path in removed:
        path.unlink()
    with contextlib.suppress(OSError):  # others' files are in it, or it never was
        state_dir.rmdir()
        removed.append(state_dir)
    return [str(path) for path in removed]
