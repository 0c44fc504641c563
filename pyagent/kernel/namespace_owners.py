"""Whose network namespaces and sockets are: pods, names in /run/netns, processes. From /proc and folders."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pyagent.kernel.network_namespaces import named
from pyagent.model.address import V4_MAPPED_PREFIX, Protocol

PROC = Path("/proc")
POD_LOGS = Path("/var/log/pods")
"""The kubelet's log folders, `namespace_name_uid`: the names of pods by the uid that their cgroups have."""

NODE = "node"
"""How the machine's own network namespace is called."""

_POD_IN_CGROUP = re.compile(r"[/-]pod([0-9a-f_-]{32,36})(?:\.slice|/|$)", re.MULTILINE)
_TABLES = (
    ("tcp", Protocol.TCP), ("tcp6", Protocol.TCP), ("udp", Protocol.UDP), ("udp6", Protocol.UDP),
)  # fmt: skip


class NetnsOwner(NamedTuple):
    """A network namespace.

    Attributes:
        pod: `namespace/name`; empty where no pod of this node is known to have it.
        name: `node`, its name in /run/netns, or empty.
        pids: the visible processes in it.
    """

    pod: str
    name: str
    pids: tuple[int, ...]


class SocketKey(NamedTuple):
    """A connected socket as /proc/net/tcp lists it; addresses are 16 bytes."""

    protocol: int
    source: bytes
    source_port: int
    peer: bytes
    peer_port: int


def owners(wanted: Collection[int]) -> dict[int, NetnsOwner]:
    """Who has the namespaces with these inode numbers; those that nobody visible has are left out.

    Pods are found by their processes' cgroups, which needs the machine's pid namespace (hostPID).
    """
    pids: dict[int, list[int]] = defaultdict(list)
    for pid in _processes():
        inode = _inode(PROC / str(pid) / "ns" / "net")
        if inode in wanted:
            pids[inode].append(pid)
    names = {inode: path.name for path in named() if (inode := _inode(path)) in wanted}
    machine = _inode(PROC / "1" / "ns" / "net")
    pods = pods_by_uid() if pids else {}
    found = {}
    for inode in wanted:
        if inode in pids or inode in names:
            name = NODE if inode == machine else names.get(inode, "")
            pod = "" if inode == machine else pod_of_processes(pids.get(inode, ()), pods)
            found[inode] = NetnsOwner(pod, name, tuple(pids.get(inode, ())))
    return found


def processes(owner: NetnsOwner) -> dict[SocketKey, tuple[str, ...]]:
    """Connected sockets of a namespace -> the processes in it that hold them, as `PID/command`.

    Costs a look at every open file of the namespace's processes.
    """
    by_inode: dict[int, list[int]] = defaultdict(list)
    for pid in owner.pids:
        for inode in _sockets(pid):
            by_inode[inode].append(pid)
    texts: dict[int, str] = {}
    found: dict[SocketKey, tuple[str, ...]] = {}
    for key, inode in _connected(owner.pids):
        holders = by_inode.get(inode, ())
        for pid in holders:
            if pid not in texts:
                texts[pid] = f"{pid}/{_command(pid)}"
        found[key] = tuple(texts[pid] for pid in holders)
    return found


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir(PROC) if entry.name.isdigit())


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0  # gone meanwhile, or somebody else's process


def pods_by_uid() -> dict[str, str]:
    """UID -> `namespace/name` of the pods that the kubelet keeps logs of."""
    found = {}
    with contextlib.suppress(OSError):  # no kubelet here, or its folder is not mounted
        for entry in os.scandir(POD_LOGS):
            namespace, _, rest = entry.name.partition("_")
            name, _, uid = rest.rpartition("_")
            if namespace and name:
                found[uid] = f"{namespace}/{name}"
    return found


def pod_of_processes(pids: Iterable[int], pods: Mapping[str, str]) -> str:
    """The pod of the first of these processes that has one, by the UID in its cgroups; else empty.

    Args:
        pods: UID -> `namespace/name`.
    """
    for pid in pids:
        with contextlib.suppress(OSError):
            match = _POD_IN_CGROUP.search((PROC / str(pid) / "cgroup").read_text())
            if match is not None and (pod := pods.get(match[1].replace("_", "-"))) is not None:
                return pod
    return ""


def _sockets(pid: int) -> Iterator[int]:
    """Inode numbers of the sockets that a process has open."""
    folder = PROC / str(pid) / "fd"
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115  ten thousands of them
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _connected(pids: Iterable[int]) -> Iterator[tuple[SocketKey, int]]:
    """(socket, inode number) of the namespace that these processes are in."""
    for name, protocol in _TABLES:
        for line in _lines(pids, name):
            fields = line.split()
            if len(fields) > 9 and not fields[2].endswith(":0000"):
                source, peer = _endpoint(fields[1]), _endpoint(fields[2])
                yield SocketKey(protocol, *source, *peer), int(fields[9])


def _lines(pids: Iterable[int], table: str) -> list[str]:
    for pid in pids:  # the first one may be ending
        with contextlib.suppress(OSError):
            return (PROC / str(pid) / "net" / table).read_text().splitlines()[1:]
    return []


def _endpoint(text: str) -> tuple[bytes, int]:
    """`0100007F:1F90`: words of the address as the machine holds them (net/ipv4/tcp_ipv4.c)."""
    address, _, port = text.partition(":")
    data = bytes.fromhex(address)
    raw = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    return (V4_MAPPED_PREFIX + raw if len(raw) == 4 else raw), int(port, 16)


def _command(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().rstrip("\n")
    except OSError:
        return "?"  # ended meanwhile
