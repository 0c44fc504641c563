"""The pins of a set of maps, looked after: readers and the next agent find the maps by them alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.map_set import MapSet

FOLLOWING = "next"


def clear(path: Path) -> None:
    """Make a place free, whatever is there: a pin, a file, a link (which is not followed), a folder.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Have a folder there, in place of what else there may be.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_symlink() or not path.is_dir():
        clear(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def pin_again(maps: MapSet) -> list[str]:
    """Pin maps whose pin is gone, or is another map's; their names.

    Raises:
        OSError: a pin cannot be made.
    """
    lost = [name for name in maps.specs if not _is_pinned(maps, name)]
    if lost:
        make_folder(maps.folder)
    for name in lost:
        path = maps.folder / name
        clear(path)
        bpf.obj_pin(maps.fd(name), str(path))
        path.chmod(0o600)
    return lost


def _is_pinned(maps: MapSet, name: str) -> bool:
    try:
        fd = bpf.obj_get(str(maps.folder / name))
    except OSError:
        return False
    try:
        return bpf.map_info(fd) == bpf.map_info(maps.fd(name))
    finally:
        os.close(fd)


def point_to(link: Path, name: str) -> bool:
    """Make a symbolic link lead to `name`, in one step for whoever follows it; whether it did not before."""
    if link.is_symlink() and str(link.readlink()) == name:
        return False
    following = link.with_name(FOLLOWING)
    clear(following)
    if not link.is_symlink():
        clear(link)
    following.symlink_to(name)
    following.replace(link)
    return True


def target(bpffs: Path, link: str) -> str:
    """The folder that a link below `--bpffs` leads to; empty: there is no link."""
    path = bpffs / link
    return str(path.readlink()) if path.is_symlink() else ""
