"""Everything that a demo or a test session makes on the machine, under one id, and how all of it goes away.

A sandbox `<kind>-<id>` owns exactly:

    /run/kubesock-<kind>-<id>/          state folder: owner.json, logs, manifests, ...
    /run/kubesock-<kind>-<id>/bpf/      a bpffs of its own, so that the machine's is not touched
    /run/netns/kubesock-<id>-*          network namespaces
    <cgroup2 root>/kubesock-<kind>-<id>/  cgroups, with every process below them

owner.json is there before anything else and names the owning process. When that is gone, anybody may remove
the sandbox from what the folder says, so a crash leaves nothing that the next run does not find.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyagent.demo import namespaces
from pyagent.demo.children import Child, spawn, started_at, wait_until
from pyagent.demo.requirements import cgroup2_root
from pyagent.demo.syscalls import mount_filesystem, unmount

RUN = Path("/run")
OWNER = "owner.json"
UNCLAIMED = ".new"


class Sandbox:
    """A prefix on this machine. Use as a context manager; leaving it removes everything."""

    def __init__(self, kind: str, identifier: str, folder: Path, cgroup: Path) -> None:
        self.kind = kind
        self.id = identifier
        self.folder = folder
        self.cgroup = cgroup  # parent of all its cgroups; no process and no program is put there itself
        self.bpffs = folder / "bpf"
        self.children: list[Child] = []

    @classmethod
    def create(cls, kind: str, say: Callable[[str], None] = lambda _text: None) -> Self:
        """Claim a new id and make the state folder, the bpffs and the parent cgroup.

        Args:
            kind: `demo` or `test`; part of every name.
            say: told about mounts that were missing on this machine.
        """
        identifier = secrets.token_hex(3)
        folder = RUN / f"kubesock-{kind}-{identifier}"
        root = cgroup2_root()
        cgroup = (root or folder / "cgroup2") / f"kubesock-{kind}-{identifier}"
        _claim(folder, {"id": identifier, "kind": kind, "cgroup": str(cgroup)})
        sandbox = cls(kind, identifier, folder, cgroup)
        try:
            if root is None:
                _mount("cgroup2", folder / "cgroup2")
                say(f"cgroup v2 is mounted nowhere; mounted at {folder / 'cgroup2'}")
            _mount("bpf", sandbox.bpffs)
            say(f"bpffs mounted at {sandbox.bpffs}")
            cgroup.mkdir()
        except BaseException:
            sandbox.remove()
            raise
        return sandbox

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def new_namespace(self, name: str) -> Path:
        """A network namespace called `kubesock-<id>-<name>`. Returns its path."""
        return namespaces.create(f"kubesock-{self.id}-{name}")

    def new_cgroup(self, name: str) -> Path:
        """A cgroup below the sandbox's own; `name` may have parts, as in `cluster/pod`."""
        path = self.cgroup / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def remove_cgroup(self, name: str) -> None:
        """Kill what runs in one of its cgroups and remove it with all below."""
        _kill_all(self.cgroup / name)
        _remove_cgroups(self.cgroup / name)

    def spawn(
        self,
        what: Sequence[str] | Callable[[], object],
        *,
        netns: Path | None = None,
        cgroup: Path | None = None,
        log: str = "",
        label: str = "",
    ) -> Child:
        """`children.spawn`, ended with the sandbox. `log` is a file name in the state folder."""
        path = self.folder / log if log else None
        child = spawn(what, netns=netns, cgroup=cgroup or self.new_cgroup("other"), log=path, label=label)
        self.children.append(child)
        return child

    def remove(self) -> None:
        """Take everything away. Repeatable, also after half of it failed.

        Raises:
            OSError: something cannot be removed; the text names it.
        """
        for child in self.children:
            child.kill()
        self.children.clear()
        _remove(self.folder, self.id, self.cgroup)


def remove_leftovers(kind: str) -> tuple[list[str], list[str]]:
    """Remove the sandboxes of a kind whose owner is gone. Returns names of (removed, still in use)."""
    removed, in_use = [], []
    for folder in sorted(RUN.glob(f"kubesock-{kind}-*")):
        owner = _owner_of(folder)
        identifier = folder.name.removesuffix(UNCLAIMED).rpartition("-")[2]
        if _is_being_made(folder) or (owner and started_at(owner["pid"]) == owner["started"]):
            in_use.append(folder.name)
            continue
        root = cgroup2_root()
        default = (root or folder / "cgroup2") / f"kubesock-{kind}-{identifier}"
        _remove(folder, identifier, Path(owner["cgroup"]) if owner else default)
        removed.append(folder.name)
    return removed, in_use


def _claim(folder: Path, facts: dict[str, str]) -> None:
    """Make the state folder with its owner inside in one step, so that nobody takes it for a left-over."""
    pid = os.getpid()
    new = folder.with_name(folder.name + UNCLAIMED)
    new.mkdir(mode=0o700)
    (new / OWNER).write_text(json.dumps({**facts, "pid": pid, "started": started_at(pid)}))
    new.rename(folder)


def _owner_of(folder: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads((folder / OWNER).read_text())
        return {
            "pid": int(owner["pid"]),
            "started": int(owner["started"]),
            "cgroup": str(owner["cgroup"]),
        }
    except (OSError, ValueError, KeyError, TypeError):  # half made, hence nobody's
        return None


def _is_being_made(folder: Path) -> bool:
    """Whether its owner may be about to write down who it is."""
    try:
        return folder.name.endswith(UNCLAIMED) and time.time() - folder.stat().st_mtime < 60.0
    except FileNotFoundError:  # renamed just now: it has an owner
        return True


def _mount(kind: str, target: Path) -> None:
    target.mkdir()
    mount_filesystem(kind, target)


def _remove(folder: Path, identifier: str, cgroup: Path) -> None:
    """Processes first, since they hold the rest; last the folder that describes it, and only if all went."""
    steps: list[Callable[[], None]] = [
        partial(_kill_all, cgroup),
        partial(_remove_bpffs, folder / "bpf"),
        *(partial(namespaces.remove, path) for path in namespaces.named(f"kubesock-{identifier}-")),
        partial(_remove_cgroups, cgroup),
    ]
    failures = []
    for step in steps:
        try:
            step()
        except OSError as error:
            failures.append(str(error))
    if failures:
        raise OSError(f"{folder.name} is not gone: " + "; ".join(failures))
    if (folder / "cgroup2").is_mount():
        unmount(folder / "cgroup2")
    with contextlib.suppress(FileNotFoundError):  # somebody else is cleaning too
        shutil.rmtree(folder)


def _remove_bpffs(mounted: Path) -> None:
    if not mounted.is_mount():
        return
    # Pinned links keep programs attached, and an unmount waits for whoever looks into it: unlink first.
    # Files beside the folders are the kernel's own (maps.debug, progs.debug) and cannot be unlinked.
    for entry in mounted.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    unmount(mounted)


def _cgroups_below(cgroup: Path) -> list[Path]:
    """The cgroup and all its descendants; empty if there is none."""
    return [Path(folder) for folder, _, _ in os.walk(cgroup)]


def _processes(cgroup: Path) -> list[int]:
    return [
        int(pid) for path in _cgroups_below(cgroup) for pid in (path / "cgroup.procs").read_text().split()
    ]


def _kill_all(cgroup: Path) -> None:
    if not cgroup.exists():
        return
    kill = cgroup / "cgroup.kill"  # Linux 5.14; before, a process that forks may need several rounds

    def gone() -> bool:
        pids = _processes(cgroup)
        if pids and kill.exists():
            kill.write_text("1")
        else:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return not pids

    if not wait_until(gone, timeout=10.0):
        raise OSError(f"processes {_processes(cgroup)} below {cgroup} do not end; end them and clean again")


def _remove_cgroups(cgroup: Path) -> None:
    for path in sorted(_cgroups_below(cgroup), key=lambda path: len(path.parts), reverse=True):
        _remove_cgroup(path)


def _remove_cgroup(path: Path) -> None:
    def removed() -> bool:
        try:
            path.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:  # busy for a moment after its last process has ended
                raise
            return False
        return True

    if not wait_until(removed, timeout=5.0):
        raise OSError(errno.EBUSY, "cgroup stays busy; see cgroup.procs below it", str(path))
