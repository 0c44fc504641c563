"""Who besides root may read what the agent pins: by default nobody."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pyagent.kernel.connections import PIN
from pyagent.kernel.links import LINKS
from pyagent.kernel.map_pins import is_folder
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.outside import FOLDER

log = logging.getLogger(__name__)

CLOSED = (LINKS, FOLDER)
"""Folders that are root's alone, whatever the group: who can open a link can detach it."""


class Door(NamedTuple):
    """How a folder or a pin should stand. Its group is left as it is where `group` is None."""

    path: Path
    mode: int
    group: int | None = None


class Readers:
    """Keeps folders and pins readable by root, or by a group too.

    The group may pass through folders, not open them: who can open the folder can lock it, and so keep an
    agent from starting. It never sees the links: whoever can open one can detach it, without any capability
    (BPF_LINK_DETACH). An iterator's link has nothing to detach.
    """

    def __init__(self, group: int | None) -> None:
        """Args: group: its id."""
        self._group = group
        self._failed = False
        self._looked = False

    def admit(self, bpffs: Path, maps: MapSet) -> list[str]:
        """Make it so; cheap where it is so. What cannot be is told once: with CAP_CHOWN dropped, root cannot
        give a file to a group.

        Returns:
            A line for each thing that somebody had opened to others since the first look.
        """
        device = bpffs.stat().st_dev
        opened = []
        failure: OSError | None = None
        for door in self._doors(bpffs, maps):
            try:
                how = _put_right(door, device)
            except FileNotFoundError:
                continue  # a device went away meanwhile
            except OSError as error:
                failure = failure or error
            else:
                if how:
                    where = door.path if door.path == bpffs else door.path.relative_to(bpffs)
                    opened.append(f"{where}: it was open to others, {how}")
        if failure and not self._failed:
            log.error("modes of pins stay as they are: %s; needs CAP_CHOWN and CAP_FOWNER", failure)
        self._failed = failure is not None
        first, self._looked = not self._looked, True
        return [] if first else opened

    def _doors(self, bpffs: Path, maps: MapSet) -> Iterator[Door]:
        folder, file, iterator = (0o700, 0o600, 0o600) if self._group is None else (0o710, 0o640, 0o660)
        entries = list(bpffs.iterdir())
        if _is_ours_alone(entries):
            yield Door(bpffs, folder, self._group)
        yield Door(maps.folder, folder, self._group)
        for name in maps.specs:
            yield Door(maps.folder / name, file, self._group)
        yield Door(maps.folder / PIN, iterator, self._group)
        for closed in (path for path in entries if path.name in CLOSED and is_folder(path)):
            yield Door(closed, 0o700)
            for path in closed.iterdir():
                yield Door(path, 0o600)


def _put_right(door: Door, device: int) -> str:
    """Give it owner, group and mode; no link is followed, and nothing of another file system is touched.

    Returns:
        How it was open to others; empty: it was not.
    """
    if not _faulty(door, door.path.lstat()):
        return ""
    handle = os.open(door.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        kind = stat.S_ISDIR if door.mode & 0o100 else stat.S_ISREG
        if found.st_dev != device or not kind(found.st_mode):
            return ""  # no pin of ours: that it is not is another look's to find
        itself = Path(f"/proc/self/fd/{handle}")
        if found.st_uid != os.geteuid() or _is_of_another_group(door, found):
            os.chown(itself, os.geteuid(), -1 if door.group is None else door.group)
        if stat.S_IMODE(found.st_mode) != door.mode:
            itself.chmod(door.mode)
        return _opened(door, found)
    finally:
        os.close(handle)


def _faulty(door: Door, found: os.stat_result) -> bool:
    return (
        stat.S_IMODE(found.st_mode) != door.mode
        or found.st_uid != os.geteuid()
        or _is_of_another_group(door, found)
    )


def _is_of_another_group(door: Door, found: os.stat_result) -> bool:
    return door.group is not None and found.st_gid != door.group


def _opened(door: Door, found: os.stat_result) -> str:
    mode = found.st_mode & 0o777
    if found.st_uid != os.geteuid():
        return f"its owner was {found.st_uid}"
    if mode & ~door.mode:
        return f"its mode was {mode:04o}"
    return f"its group was {found.st_gid}" if mode & 0o070 and _is_of_another_group(door, found) else ""


_OURS = re.compile(r"links|outside|current|earlier|next|v[0-9]+-[0-9]+")


def _is_ours_alone(entries: Iterable[Path]) -> bool:
    """Whether nobody else pins there, so that its mode is ours to choose."""
    return all(_OURS.fullmatch(path.name) for path in entries)
