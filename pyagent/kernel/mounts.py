"""Where cgroup v2 and the BPF file system are mounted; mounts the latter where it is missing."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import NamedTuple

from pyagent.model.failures import KernelRefused, NoPermission, UsageError

_libc = ctypes.CDLL(None, use_errno=True)
BPFFS_MAGIC = 0xCAFE4A11
CGROUP2_MAGIC = 0x63677270


class Mount(NamedTuple):
    path: Path
    type: str


def mounts() -> list[Mount]:
    """What /proc/mounts says, in mount order."""
    lines = Path("/proc/mounts").read_text().splitlines()
    fields = (line.split() for line in lines)
    return [Mount(Path(f[1].encode().decode("unicode_escape")), f[2]) for f in fields if len(f) > 2]


def cgroup2_root() -> Path:
    """Where the root of the cgroup v2 hierarchy is mounted, else the first mount of a part of it.

    Hybrid layouts have it at /sys/fs/cgroup/unified. In a container the runtime mounts the container's own
    part at /sys/fs/cgroup, and the host's hierarchy is elsewhere.

    Raises:
        KernelRefused: there is none.
    """
    found = [mount.path for mount in mounts() if mount.type == "cgroup2"]
    if found:
        return next(filter(is_hierarchy_root, found), found[0])
    raise KernelRefused(
        "cgroup v2 is not mounted: run `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with"
        " systemd.unified_cgroup_hierarchy=1"
    )


def is_hierarchy_root(folder: Path) -> bool:
    """Every cgroup but that has a file cgroup.type (Documentation/admin-guide/cgroup-v2.rst)."""
    return not (folder / "cgroup.type").exists()


def filesystem_type(path: Path) -> int:
    """`f_type` of statfs(2) for a path."""

    class Statfs(ctypes.Structure):
        _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 240))

    result = Statfs()
    if _libc.statfs(os.fsencode(path), ctypes.byref(result)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(path))
    return int(result.f_type) & 0xFFFFFFFF


def check_cgroup(path: Path) -> None:
    """Raises UsageError unless `path` is a cgroup v2 folder."""
    try:
        found = filesystem_type(path)
    except OSError as error:
        raise UsageError(
            f"--cgroup {path}: {error.strerror}; give a folder below {cgroup2_root()}"
        ) from error
    if found != CGROUP2_MAGIC:
        raise UsageError(f"--cgroup {path}: not a cgroup v2 folder; give one below {cgroup2_root()}")


def ensure_bpffs(folder: Path) -> str | None:
    """Make `folder` exist on a BPF file system.

    Where no such file system holds it, one is mounted: at /sys/fs/bpf for folders below that, else at the
    folder itself.

    Returns:
        The mount point that was added, None where one was there.

    Raises:
        NoPermission, KernelRefused: with the remedy.
    """
    existing = folder
    while not existing.exists():
        existing = existing.parent
    added = None
    try:
        if filesystem_type(existing) != BPFFS_MAGIC:
            standard = Path("/sys/fs/bpf")
            target = standard if folder.is_relative_to(standard) and folder != standard else folder
            target.mkdir(parents=True, exist_ok=True)
            if filesystem_type(target) != BPFFS_MAGIC:
                _mount_bpffs(target)
                added = str(target)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except PermissionError as error:
        raise NoPermission(f"--bpffs {folder}: {error.strerror}; run as root") from error
    except OSError as error:
        raise KernelRefused(
            f"--bpffs {folder}: {error.strerror}; give a folder on a BPF file system"
        ) from error
    return added


def _mount_bpffs(target: Path) -> None:
    if _libc.mount(b"bpf", os.fsencode(target), b"bpf", 0, b"mode=0700") != 0:
        error = ctypes.get_errno()
        text = f"cannot mount bpf there: {os.strerror(error)}"
        if error in (errno.EPERM, errno.EACCES):
            text += f"; needs CAP_SYS_ADMIN, or mount it beforehand: mount -t bpf bpf {target}"
        raise OSError(error, text)
