"""What the agent keeps in `--state-dir`, for whoever must take it away."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pyagent.cluster.server_address import FILE_NAME
from pyagent.kernel.program_cache import is_kept_program
from pyagent.model.failures import sanitized
from pyagent.own_folder import NotOurs, opened
from pyagent.view.agent_socket import SOCKET, in_folder

PROGRAMS = "programs"


class Removal(NamedTuple):
    """What became of the agent's state.

    Attributes:
        removed: paths, in order.
        kept: sentences: what stays because it is not ours.
        failed: sentences: what could not be removed.
    """

    removed: list[str]
    kept: list[str]
    failed: list[str]


def state_files(state_dir: Path) -> list[Path]:
    """Those of ours that are there, each before its folder. A link is itself, not what it leads to."""
    programs = state_dir / PROGRAMS
    kept = (
        [programs / name for name in _names(programs) if is_kept_program(name)]
        if _is_folder(programs)
        else []
    )
    return [
        *(state_dir / name for name in _single(state_dir)),
        *kept,
        *([programs] if os.path.lexists(programs) else []),
    ]


def is_ours_alone(state_dir: Path) -> bool:
    """Whether nobody else keeps files there, so that its mode is ours to choose."""
    ours = {FILE_NAME, SOCKET, PROGRAMS}
    return all(path.name in ours or _is_unfinished(path.name) for path in state_dir.iterdir())


def is_in_use(state_dir: Path) -> bool:
    """An agent listens there. Those of several `--bpffs` may share a machine: the folder is that one's."""
    try:
        with in_folder(state_dir) as path, socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            return client.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove_state(state_dir: Path) -> Removal:
    """Remove them, and the folder if nothing else is in it. What is not ours stays, also behind a link."""
    done = Removal([], [], [])
    for name in _single(state_dir):
        _try(done, state_dir / name, (state_dir / name).unlink)
    programs = state_dir / PROGRAMS
    if _is_folder(programs):
        _remove_programs(programs, done)
    elif os.path.lexists(programs):
        _try(done, programs, programs.unlink)
    if _is_folder(state_dir) and not _names(state_dir):
        _try(done, state_dir, state_dir.rmdir)
    return done


def _remove_programs(path: Path, done: Removal) -> None:
    try:
        with opened(path) as folder:
            for name in filter(is_kept_program, folder.names()):
                _try(done, path / name, partial(folder.remove, name))
            left = folder.names()
    except NotOurs as error:
        done.kept.append(f"{shown(path)} stays: {error}")
    except OSError as error:
        done.failed.append(f"{shown(path)} cannot be removed: {error.strerror}")
    else:
        if not left:
            _try(done, path, path.rmdir)
        elif foreign := [name for name in left if not is_kept_program(name)]:
            done.kept.append(f"{shown(path)} stays: {shown(foreign[0])} in it is not ours")


def _try(done: Removal, path: Path, remove: Callable[[], None]) -> None:
    try:
        remove()
    except FileNotFoundError:
        return  # somebody else was faster
    except IsADirectoryError:
        done.kept.append(f"{shown(path)} stays: it is a folder, and so not ours")
    except OSError as error:
        done.failed.append(f"{shown(path)} cannot be removed: {error.strerror}")
    else:
        done.removed.append(shown(path))


def shown(path: Path | str) -> str:
    """A path on one printable line: others may have chosen names in the folder."""
    text = str(path)
    return text if text.isprintable() else sanitized(text, 4096)


def _single(state_dir: Path) -> list[str]:
    ours = (FILE_NAME, SOCKET)
    return [name for name in _names(state_dir) if name in ours or _is_unfinished(name)]


def _is_unfinished(name: str) -> bool:
    return name.startswith(f".{FILE_NAME}.")


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
