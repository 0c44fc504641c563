"""Which files of a directory changed: by inotify, or by looking again and again where there is none."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path
from typing import NamedTuple, Protocol

from inotify_simple import INotify, flags

_MASK = (
    flags.CLOSE_WRITE
    | flags.MOVED_TO
    | flags.MOVED_FROM
    | flags.DELETE
    | flags.CREATE
    | flags.ATTRIB
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
_GONE = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT


class Changes(NamedTuple):
    """What to look at again."""

    names: frozenset[str] = frozenset()
    everything: bool = False  # events were lost, or there are none
    moved: bool = False  # the path may lead to another directory now


class DirectoryWatch(Protocol):
    def wait(self, seconds: float, wake: int) -> Changes:
        """Wait for changes, for the time to pass, or for the descriptor `wake` to become readable."""

    def close(self) -> None: ...


class InotifyWatch:
    """Files count as changed when their writer closes them, so that none is read half-written."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError: no inotify instance is left, or the directory cannot be watched."""
        self._directory = directory
        self._inotify = INotify(nonblocking=True)
        try:
            self._inotify.add_watch(directory, _MASK)
        except OSError:
            self._inotify.close()
            raise

    def wait(self, seconds: float, wake: int) -> Changes:
        poller = select.poll()
        poller.register(self._inotify.fileno(), select.POLLIN)
        poller.register(wake, select.POLLIN)
        poller.poll(max(0, int(seconds * 1000)))
        names, everything, moved = set(), False, False
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                everything = True
            elif event.mask & _GONE and not event.name:
                moved = True
            elif not event.name:
                everything |= bool(event.mask & flags.ATTRIB)  # what could not be read perhaps can be now
            elif event.name.startswith("."):
                # Kubelet swaps the link `..data` below the links that carry the files' names.
                everything |= bool(event.mask & flags.MOVED_TO)
            elif not event.mask & flags.CREATE or self._is_complete(event.name):
                names.add(event.name)
        return Changes(frozenset(names), everything, moved)

    def close(self) -> None:
        self._inotify.close()

    def _is_complete(self, name: str) -> bool:
        """A link, a folder or a pipe is complete once it is there; nobody will close it after writing."""
        try:
            status = os.lstat(self._directory / name)
        except OSError:
            return False
        return not stat.S_ISREG(status.st_mode) or status.st_nlink > 1


class PollingWatch:
    """Says "everything" once in an interval."""

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval

    def wait(self, seconds: float, wake: int) -> Changes:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.poll(int(min(seconds, self._interval) * 1000))
        return Changes(everything=True)

    def close(self) -> None:
        """Nothing is held."""
