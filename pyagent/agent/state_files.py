"""What the agent keeps in `--state-dir`, for whoever must take it away."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pyagent.cluster.server_address import FILE_NAME

SOCKET = "agent.sock"
PROGRAMS = "programs"


def state_files(state_dir: Path) -> list[Path]:
    """Those of ours that are there."""
    single = [path for name in (FILE_NAME, SOCKET) if (path := state_dir / name).exists()]
    programs = state_dir / PROGRAMS
    return [*single, *programs.glob("*"), programs] if programs.is_dir() else single


def is_ours_alone(state_dir: Path) -> bool:
    """Whether nobody else keeps files there, so that its mode is ours to choose."""
    ours = {FILE_NAME, SOCKET, PROGRAMS}
    return all(path.name in ours or path.name.startswith(f".{FILE_NAME}.") for path in state_dir.iterdir())


def is_in_use(state_dir: Path) -> bool:
    """An agent listens there. Those of several `--bpffs` may share a machine: the folder is that one's."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(state_dir / SOCKET))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def remove_state(state_dir: Path) -> list[str]:
    """Remove them, and the folder if nothing else is in it; what was removed."""
    removed = state_files(state_dir)
    for path in removed:
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    with contextlib.suppress(OSError):  # others' files are in it, or it never was
        state_dir.rmdir()
        removed.append(state_dir)
    return [str(path) for path in removed]
