"""Network namespaces of this node: where they are, and work done inside of one."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pyagent.model.failures import KernelRefused

RUN_NETNS = Path("/run/netns")
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def named() -> Iterator[Path]:
    """Those that `ip netns` and container runtimes keep in /run/netns."""
    if RUN_NETNS.is_dir():
        yield from RUN_NETNS.iterdir()


def of_processes() -> Iterator[Path]:
    """Those of the processes that we can see (all of the node's with hostPID)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            yield folder / "ns" / "net"


def paths_by_inode(wanted: set[int]) -> dict[int, Path]:
    """Where the namespaces with these inode numbers can be entered; those that are not found are left out."""
    found: dict[int, Path] = {}
    for paths in (named, of_processes):
        for path in paths():
            if len(found) == len(wanted):
                return found
            try:
                inode = path.stat().st_ino
            except OSError:
                continue  # gone meanwhile, or somebody else's process
            if inode in wanted:
                found.setdefault(inode, path)
    return found


def inside(path: Path, work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread of its own in that network namespace.

    Only the thread moves, and it ends there: nothing else of this process is ever in the wrong namespace.

    Raises:
        KernelRefused: the namespace cannot be entered; needs CAP_SYS_ADMIN.
        BaseException: whatever `work` raised.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            _enter(path)
            results.append(work())
        except BaseException as error:  # noqa: BLE001  handed to the caller below
            failures.append(error)

    thread = threading.Thread(target=enter_and_work, name=f"netns {path.name}", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _enter(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            if error == errno.EINVAL:
                raise KernelRefused(f"{path} is no network namespace; give a path like /run/netns/NAME")
            raise KernelRefused(f"enter {path}: {os.strerror(error)}; needs CAP_SYS_ADMIN")
    finally:
        os.close(fd)
