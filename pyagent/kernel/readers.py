"""Who besides root may read what the agent pins: by default nobody."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

from pyagent.kernel.connections import PIN
from pyagent.kernel.map_set import MapSet

log = logging.getLogger(__name__)


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

    def admit(self, bpffs: Path, maps: MapSet) -> None:
        """Make it so; cheap where it is so. What cannot be is told once: with CAP_CHOWN dropped, root cannot
        give a file to a group.
        """
        try:
            self._admit(bpffs, maps)
        except OSError as error:
            if not self._failed:
                log.error("modes of pins stay as they are: %s; needs CAP_CHOWN and CAP_FOWNER", error)
            self._failed = True
        else:
            self._failed = False

    def _admit(self, bpffs: Path, maps: MapSet) -> None:
        folder, file, iterator = (0o700, 0o600, 0o600) if self._group is None else (0o710, 0o640, 0o660)
        if _is_ours_alone(bpffs):
            self._give(bpffs, folder)
        self._give(maps.folder, folder)
        for name in maps.specs:
            self._give(maps.folder / name, file)
        if (maps.folder / PIN).exists():
            self._give(maps.folder / PIN, iterator)

    def _give(self, path: Path, mode: int) -> None:
        found = path.stat()
        if self._group is not None and found.st_gid != self._group:
            os.chown(path, -1, self._group)
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)


_OURS = re.compile(r"links|outside|current|earlier|next|v[0-9]+-[0-9]+")


def _is_ours_alone(bpffs: Path) -> bool:
    """Whether nobody else pins there, so that its mode is ours to choose."""
    return all(_OURS.fullmatch(path.name) for path in bpffs.iterdir())
