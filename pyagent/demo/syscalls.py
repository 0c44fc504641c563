"""The few system calls around namespaces and mounts that Python 3.11 does not wrap."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _check(result: int, what: str, path: Path | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}", str(path) if path else None)


def unshare_network() -> None:
    """Put the calling thread into a new network namespace."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def enter_network(namespace: Path) -> None:
    """Put the calling thread into the network namespace that is mounted on a path (setns(2))."""
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(handle, CLONE_NEWNET), "setns", namespace)
    finally:
        os.close(handle)


def die_with_parent(signal_number: int) -> None:
    """Let the kernel send a signal to this process when the thread that forked it ends (prctl(2))."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def mount_filesystem(kind: str, target: Path) -> None:
    """Mount a file system without a device, such as `bpf` or `cgroup2`."""
    _check(_libc.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, None), f"mount {kind}", target)


def bind_mount(source: Path, target: Path) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), b"none", MS_BIND, None), "mount", target)


def unmount(target: Path) -> None:
    """Detach a mount; what still uses it keeps it until it ends."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), "umount", target)
