"""The cgroups of this node's pods, by pod UID, followed as kubelet makes and removes them.

Kubelet makes a pod's cgroup before any of its processes (kubernetes pkg/kubelet/cm). With the cgroupfs
driver it is `kubepods/[QOS/]pod<uid>`, with systemd's, where the UID's dashes are underscores,
`kubepods.slice/[kubepods-QOS.slice/]kubepods-[QOS-]pod<uid>.slice`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import selectors
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import inotify_simple

from pyagent.kernel.mounts import mounts

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks without any event: kubelet's own folder may come, and inotify may be lacking."""

_LATE = (
    f"looking every {LOOK_SECONDS:.0f} s, so a new pod may be seen late; raise fs.inotify.max_user_instances "
    "and max_user_watches"
)

SEARCH_DEPTH = 3
TRUE_ROOT = 1
"""Inode number of the cgroup v2 hierarchy's root; a cgroup namespace shows another folder as the root."""

_KUBEPODS = re.compile(r"(.*-)?kubepods(\.slice)?")
_POD = re.compile(r"pod([0-9a-f-]+)|.+-pod([0-9a-f_]+)\.slice")


class PodCgroups(NamedTuple):
    """What is there now.

    Attributes:
        ids: pod UID -> cgroup id.
        level: depth below the hierarchy's root of guaranteed pods, and one less than that of the others; 0
            where it cannot be told, or there are none.
    """

    ids: Mapping[str, int]
    level: int


def pod_uid(folder: str) -> str | None:
    """The UID in the name of a pod's cgroup; None for any other folder."""
    match = _POD.fullmatch(folder)
    return (match[1] or match[2].replace("_", "-")) if match else None


def find_kubepods(root: Path) -> Path | None:
    """Kubelet's folder below `root`, the one nearest to it."""
    level = [root]
    for _ in range(SEARCH_DEPTH):
        below = [folder for parent in level for folder in _folders(parent)]
        for folder in below:
            if _KUBEPODS.fullmatch(folder.name):
                return folder
        level = below
    return None


def depth(folder: Path) -> int | None:
    """Levels below the root of the cgroup v2 hierarchy; None where that root is out of sight."""
    tops = [m.path for m in mounts() if m.type == "cgroup2" and folder.is_relative_to(m.path)]
    if not tops:
        return None
    top = max(tops, key=lambda path: len(path.parts))
    return len(folder.relative_to(top).parts) if top.stat().st_ino == TRUE_ROOT else None


class PodCgroupWatch:
    """The thread that follows them.

    Args:
        root: the cgroup below which kubelet's folder is looked for.
        changed: called at the start and after each change.
    """

    def __init__(self, root: Path, changed: Callable[[PodCgroups], None]) -> None:
        self._root = root
        self._changed = changed
        self._said: PodCgroups | None = None
        self._base: Path | None = None
        self._level = 0
        self._complained = False
        self._watched: dict[Path, int] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pod-cgroups", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            os.eventfd_write(self._wake, 1)  # first: the thread closes it once it sees the stop
        self._stopping.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        with contextlib.ExitStack() as held, selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            self._events = self._open_inotify()
            if self._events is not None:
                held.enter_context(contextlib.closing(self._events))
                selector.register(self._events.fileno(), selectors.EVENT_READ)
            while not self._stopping.is_set():
                try:
                    self._look()
                except OSError as error:  # no descriptor now
                    log.warning("pods' cgroups were not looked at, tried again: %s", error)
                selector.select(LOOK_SECONDS)
                self._forget_removed()
        os.close(self._wake)

    @staticmethod
    def _open_inotify() -> inotify_simple.INotify | None:
        try:
            return inotify_simple.INotify(nonblocking=True)
        except OSError as error:
            log.warning("pods' cgroups are not watched: %s; %s", error.strerror, _LATE)
            return None

    def _look(self) -> None:
        if self._base is None or not self._base.is_dir():
            self._find_base()
        ids: dict[str, int] = {}
        if self._base is not None:
            self._collect(self._base, ids, deeper=True)
        found = PodCgroups(ids, self._level)
        if found != self._said:
            self._said = found
            self._changed(found)

    def _find_base(self) -> None:
        self._base, self._level = find_kubepods(self._root), 0
        if self._base is None:
            self._watch(self._root)
            return
        found = depth(self._base)
        if found is None:
            log.warning(
                "%s: its depth cannot be told inside a cgroup namespace, so opted-out pods are known by "
                "their addresses alone; run the agent in the host's cgroup namespace",
                self._base,
            )
        else:
            self._level = found + 1

    def _collect(self, folder: Path, ids: dict[str, int], deeper: bool) -> None:
        # Watched first: what comes while the folder is read makes an event.
        self._watch(folder)
        for entry in _entries(folder):
            uid = pod_uid(entry.name)
            if uid is not None:
                ids[uid] = entry.inode()
            elif deeper:
                self._collect(Path(entry.path), ids, deeper=False)

    def _watch(self, folder: Path) -> None:
        if self._events is None or folder in self._watched:
            return
        flags = inotify_simple.flags
        mask = flags.CREATE | flags.DELETE | flags.DELETE_SELF | flags.ONLYDIR
        try:
            self._watched[folder] = self._events.add_watch(folder, mask)
        except FileNotFoundError:
            return  # removed meanwhile
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("%s is not watched: %s; %s", folder, error.strerror, _LATE)

    def _forget_removed(self) -> None:
        if self._events is None:
            return
        ended = {
            event.wd for event in self._events.read(timeout=0) if event.mask & inotify_simple.flags.IGNORED
        }
        self._watched = {folder: wd for folder, wd in self._watched.items() if wd not in ended}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return  # removed while we looked


def _folders(folder: Path) -> Iterator[Path]:
    return (Path(entry.path) for entry in _entries(folder))
