"""Whose a call is: pods by the cgroup of the caller, other workloads by their network namespace.

Unlike `namespace_owners`, asked about single calls whose process may have ended: what is found is kept, and
the machine is looked over again at most once in a while.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyagent.kernel.mounts import cgroup2_root
from pyagent.kernel.namespace_owners import NODE, PROC, pod_of_processes, pods_by_uid
from pyagent.kernel.network_namespaces import RUN_NETNS, inside, named
from pyagent.kernel.pod_cgroups import find_kubepods, pod_uid
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.failures import KubesockError

AGAIN_SECONDS = 2.0
MOST = 20_000
"""Names that are kept; then all are looked up anew."""

BELOW_PODS = 3
"""Levels of cgroups below a pod's that are looked into: containers, and what they make of theirs."""


class PodsByCgroup:
    """Pods by the id of a cgroup, which is its folder's inode number (kernfs, cgroup_id()).

    Attributes:
        pods: UID -> `namespace/name`, of all pods of the node.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uids: dict[int, str] = {}
        self.pods: dict[str, str] = {}
        self._not_before = 0.0

    def pod(self, cgroup: int) -> str:
        """`namespace/name`; empty where it is no pod's."""
        if cgroup not in self._uids and self._clock() >= self._not_before:
            self._look()
            self._not_before = self._clock() + AGAIN_SECONDS
        return self.pods.get(self._uids.get(cgroup, ""), "")

    def _look(self) -> None:
        self.pods = pods_by_uid()
        self._uids = {}
        if not self.pods:
            return  # no kubelet here
        with contextlib.suppress(KubesockError, OSError):  # no cgroup v2, or out of sight
            base = find_kubepods(cgroup2_root())
            if base is not None:
                self._uids = dict(_of_pods(base, 3))


def _of_pods(folder: Path, levels: int) -> Iterator[tuple[int, str]]:
    for entry in _folders(folder):
        uid = pod_uid(entry.name)
        if uid is not None:
            yield entry.inode(), uid
            yield from ((inode, uid) for inode in _below(entry.path, BELOW_PODS))
        elif levels > 1:
            yield from _of_pods(Path(entry.path), levels - 1)


def _below(folder: str, levels: int) -> Iterator[int]:
    for entry in _folders(folder):
        yield entry.inode()
        if levels > 1:
            yield from _below(entry.path, levels - 1)


def _folders(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # removed while we looked


def find_netns(wanted: str) -> int:
    """The cookie of a client's network namespace now; 0 where none is found.

    Args:
        wanted: [NAMESPACE/]NAME of a pod, or a name in /run/netns.
    """
    for path in _paths_of(wanted):
        with contextlib.suppress(KubesockError, OSError):  # gone meanwhile, or not ours to enter
            return inside(path, netns_cookie)
    return 0


def _paths_of(wanted: str) -> Iterator[Path]:
    if "/" not in wanted and (RUN_NETNS / wanted).exists():
        yield RUN_NETNS / wanted
    uids = {uid for uid, pod in pods_by_uid().items() if wanted in (pod, pod.partition("/")[2])}
    if len(uids) == 1:  # else the name alone says too little
        for pid in _processes_of(uids.pop()):
            yield PROC / str(pid) / "ns" / "net"


def _processes_of(uid: str) -> Iterator[int]:
    with contextlib.suppress(KubesockError, OSError):  # no cgroup v2, or out of sight
        base = find_kubepods(cgroup2_root())
        for folder in sorted(base.rglob("*")) if base is not None else ():
            if pod_uid(folder.name) == uid:
                for file in (folder, *folder.rglob("*")):
                    if file.name == "cgroup.procs":
                        yield from map(int, file.read_text().split())


class ClientNames:
    """Names of callers.

    Args:
        node_cookie: of the machine's own network namespace; 0 where no agent could tell.
    """

    def __init__(self, node_cookie: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_cgroup = PodsByCgroup(clock)
        self._names: dict[int, str] = {node_cookie: NODE} if node_cookie else {}
        self._pods: dict[int, str] = {}
        self._not_before = 0.0

    def pod(self, cgroup: int, netns: int, pid: int) -> str:
        """`namespace/name` of the caller's pod; empty where none is known.

        With the first version of cgroups, runtimes leave pods in the root of the second: then the process
        tells, while it lives; from then on its network namespace does.
        """
        found = self._by_cgroup.pod(cgroup)
        if found or not self._by_cgroup.pods or self._names.get(netns) == NODE:
            return found
        if netns not in self._pods:
            found = pod_of_processes((pid,), self._by_cgroup.pods)
            if not found:
                return ""
            if len(self._pods) > MOST:
                self._pods.clear()
            self._pods[netns] = found
        return self._pods[netns]

    def netns(self, cookie: int, pid: int) -> str:
        """`node`, its name in /run/netns, or `cookie:NUMBER`, which `explain --from` takes."""
        if cookie not in self._names and self._clock() >= self._not_before:
            self._look(cookie, pid)
        return self._names.get(cookie) or f"cookie:{cookie}"

    def _look(self, cookie: int, pid: int) -> None:
        """By the caller's process where it lives; else every namespace with a name is asked."""
        paths = {inode: path for path in named() if (inode := _inode(path))}
        caller = _inode(PROC / str(pid) / "ns" / "net")
        if caller and caller == _inode(PROC / "1" / "ns" / "net"):
            self._names[cookie] = NODE
        elif caller in paths:
            self._names[cookie] = paths[caller].name
        else:
            for path in paths.values():
                with contextlib.suppress(KubesockError, OSError):  # gone meanwhile, or not ours to enter
                    self._names.setdefault(inside(path, netns_cookie), path.name)
            if len(self._names) > MOST:
                self._names.clear()
            self._not_before = self._clock() + AGAIN_SECONDS


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0  # gone meanwhile, or somebody else's process
