"""The pins of a set of maps, looked after: readers and the next agent find the maps by them alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.map_set import MapSet

FOLLOWING = "next"
GONE = "its pin was gone"
FOLDER_GONE = "the folder was gone, all pins with it"


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
    if not is_folder(path):
        clear(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_folder(path: Path) -> bool:
    """Whether a folder is there, no link to one."""
    return path.is_dir() and not path.is_symlink()


def is_pinned(path: Path, fd: int, info: Callable[[int], object]) -> bool:
    """Whether this very object is pinned there: no other one, and none behind a link.

    Args:
        info: what tells objects of its kind apart, such as `bpf.link_info`.
    """
    if path.is_symlink():
        return False
    try:
        pinned = bpf.obj_get(str(path))
    except OSError:
        return False
    try:
        return info(pinned) == info(fd)
    finally:
        os.close(pinned)


def pin_again(maps: MapSet) -> list[str]:
    """Pin maps whose pin is gone, or is another map's; their names.

    Raises:
        OSError: a pin cannot be made.
    """
    there = is_folder(maps.folder)
    lost = [n for n in maps.specs if not there or not is_pinned(maps.folder / n, maps.fd(n), bpf.map_info)]
    if lost:
        make_folder(maps.folder)
    for name in lost:
        path = maps.folder / name
        clear(path)
        bpf.obj_pin(maps.fd(name), str(path))
        path.chmod(0o600)
    return lost


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
