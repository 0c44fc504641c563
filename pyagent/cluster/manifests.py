"""Objects from a directory of manifests, followed as files come, change and go."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pyagent.cluster.decode import Narrow, as_it_is
from pyagent.cluster.directory_watch import Changes, DirectoryWatch, InotifyWatch, PollingWatch
from pyagent.cluster.manifest_file import MAX_FILE_BYTES, FileContent, file_problem, read_manifest
from pyagent.cluster.manifest_state import ManifestState
from pyagent.model.kube_objects import SERVICE_KINDS, STRUCT_OF, Kind
from pyagent.model.source_events import Emit, Malformed, Mended, Problem, Replaced, SourceEvent, SourceState

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
STOP_SECONDS = 2.0
LOOK_AT_PATH_SECONDS = 2.0  # a link in the path may be turned without any event
RETRY_SECONDS = 0.25
# Within this time a file may change again without its time stamp showing it (jiffies, coarse file systems).
UNSETTLED_SECONDS = 2.0

Signature = tuple[int, int, int, int]


def open_watch(directory: Path) -> DirectoryWatch:
    """inotify, or polling where no instance can be had.

    Raises:
        OSError: the directory cannot be watched.
    """
    try:
        return InotifyWatch(directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise
    except OSError as error:
        log.warning(
            "no inotify for %s (%s): looking every second; raise fs.inotify.max_user_instances",
            directory,
            error.strerror,
        )
        return PollingWatch()


class ManifestSource:
    """A `Source` on a directory: its .yaml, .yml and .json files, without those that begin with a dot."""

    def __init__(
        self,
        directory: Path,
        watch: Callable[[Path], DirectoryWatch] = open_watch,
        kinds: frozenset[Kind] = SERVICE_KINDS,
        narrow: Narrow = as_it_is,
    ) -> None:
        """Args:
        kinds: objects of others are passed over.
        narrow: applied to every object, which is kept.
        """
        self._narrow = narrow
        self._kinds = tuple(kind for kind in STRUCT_OF if kind in kinds)
        self._directory = directory
        self._open_watch = watch
        self._state = ManifestState()
        self._signatures: dict[str, Signature | None] = {}
        self._listed = False
        self._last_identity: tuple[int, int] | None = None
        self._problems: list[Problem] = []  # found before the first list went out
        self._said: tuple[str, str] = ("", "")
        self._emit: Emit | None = None
        self._gate = threading.Lock()
        self._stop = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="watch manifests", daemon=True)

    def start(self, emit: Emit) -> None:
        self._emit = emit
        self._thread.start()

    def stop(self) -> None:
        with self._gate:
            self._emit = None
        if not self._stop.is_set() and self._thread.is_alive():
            os.eventfd_write(self._wake, 1)  # first: the thread closes it once it sees the stop
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        try:
            self._keep_following()
        finally:
            os.close(self._wake)

    def _keep_following(self) -> None:
        self._say("connecting")
        while not self._stop.is_set():
            try:
                self._follow()
            except OSError as error:
                cause = (error.strerror or str(error)).lower()
                kept = "; what was read last stays" if self._listed else ""
                self._say("disconnected", f"manifests directory {self._directory}: {cause}{kept}; restore it")
            self._stop.wait(RETRY_SECONDS)

    def _follow(self) -> None:
        """Watch one directory for as long as the path leads to it."""
        watch = self._open_watch(self._directory)
        try:
            identity = _identity(self._directory)
            self._rescan(identity)
            while not self._stop.is_set():
                changes = watch.wait(LOOK_AT_PATH_SECONDS, self._wake)
                if self._stop.is_set() or changes.moved or _identity(self._directory) != identity:
                    return
                self._look_again(changes, identity)
        finally:
            watch.close()

    def _look_again(self, changes: Changes, identity: tuple[int, int]) -> None:
        if changes.everything:
            self._rescan(identity)
            return
        self._refresh(name for name in changes.names if name.endswith(SUFFIXES))

    def _rescan(self, identity: tuple[int, int]) -> None:
        """Read what changed since it was read last; all of it the first time."""
        with os.scandir(self._directory) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(SUFFIXES) and e.name[0] != ".")
        if not names and len(self._state) and identity != self._last_identity:
            raise OSError("it is another directory now, and empty")
        self._last_identity = identity
        if not self._listed:
            self._say("listing")
        changed = [name for name in names if self._may_have_changed(name)]
        self._refresh([*changed, *(self._state.names() - set(names))])
        if not self._listed:
            self._first_list()
        self._say("watching")

    def _first_list(self) -> None:
        self._listed = True
        received = time.monotonic()
        problems, self._problems = self._problems, []
        for kind in self._kinds:
            first = kind == self._kinds[0]
            own = tuple(p for p in problems if p.kind == kind or (first and p.kind not in self._kinds))
            self._pass_on(Replaced(kind, self._state.objects_of(kind), own, received))

    def _may_have_changed(self, name: str) -> bool:
        signature = self._signatures.get(name)
        return signature is None or signature != _signature(self._directory / name)

    def _refresh(self, names: Iterable[str]) -> None:
        files: dict[str, FileContent | None] = {}
        for name in sorted(names):
            files[name], signature = self._read(name)
            self._signatures[name] = signature
            if files[name] is None:
                del self._signatures[name]
        events = self._state.update(files, time.monotonic())
        if not self._listed:
            mended = {event.problem for event in events if isinstance(event, Mended)}
            self._problems = [problem for problem in self._problems if problem not in mended]
            self._problems += [event.problem for event in events if isinstance(event, Malformed)]
            return
        for event in events:
            self._pass_on(event)

    def _read(self, name: str) -> tuple[FileContent | None, Signature | None]:
        """A file's content (None: it is gone) and, once it cannot change unseen, its signature."""
        try:
            descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return FileContent({}, (), file_problem(name, "is no regular file; move it away")), None
                if status.st_size > MAX_FILE_BYTES:
                    reason = f"is larger than {MAX_FILE_BYTES >> 20} MiB; split it"
                    return FileContent({}, (), file_problem(name, reason)), _sign(status)
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None, None
        except OSError as error:
            reason = f"cannot be read: {(error.strerror or str(error)).lower()}"
            return FileContent({}, (), file_problem(name, reason)), None
        settled = time.time() - max(status.st_mtime, status.st_ctime) > UNSETTLED_SECONDS
        return read_manifest(name, data, self._kinds, self._narrow), _sign(status) if settled else None

    def _pass_on(self, event: SourceEvent) -> None:
        with self._gate:
            if self._emit is not None:
                self._emit(event)

    def _say(self, state: str, error: str = "") -> None:
        if self._said == (state, error):
            return
        self._said = (state, error)
        for kind in self._kinds:
            self._pass_on(SourceState(kind, state, error))  # type: ignore[arg-type]  # one of its literals


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _signature(path: Path) -> Signature | None:
    try:
        return _sign(path.stat())
    except OSError:
        return None


def _sign(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
