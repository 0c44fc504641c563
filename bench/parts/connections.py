"""The table of live connections when a node has very many: one walk, a list, and what `top` costs then."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.lab import Lab, Programmed, measured
from bench.ratios import summarize
from bench.scale import Scale
from bench.screen import cpu_share_of_top
from bench.tables import Table, duration
from pyagent.demo.agent_process import run_verb
from pyagent.demo.children import Child
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.connections import CHUNK, open_pinned
from pyagent.kernel.map_set import current_folder
from pyagent.model.failures import KubesockError
from pyagent.view.socket_walk import SHARE, SocketWalker
from pyagent.view.terminal.sample import KEEP_SOCKETS

SPARE = 200  # descriptors that a process needs for itself
PORTS = 20_000  # of one source address
SOURCES = "10.129.{}.{}"
WALKS = 7
TOP_SECONDS = 15.0
TOP_CPU = 0.05
COLUMNS = ("CPU time of", "median", "least–most", "budget", "met")


def run(lab: Lab, scale: Scale) -> list[Table]:
    with Programmed(lab) as programmed:
        programmed.attach()
        programmed.datapath.open_connections()
        holders: list[Child] = []
        try:
            opened = _open(lab, scale.sockets, holders)
            return [_table(lab.sandbox.bpffs / lab.part, lab.sandbox.folder, opened)]
        finally:
            for holder in holders:  # forks of this process: its lock on the pins is theirs too
                holder.kill()


def _open(lab: Lab, wanted: int, holders: list[Child]) -> int:
    """Connected UDP sockets, held by as many processes as their limit of open files asks for."""
    each = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE, PORTS)
    opened = 0
    for number in range(-(-wanted // each)):
        count = min(each, wanted - opened)
        reader, writer = os.pipe()
        hold = partial(
            _hold, measured("hundred").cluster_ips[0], SOURCES.format(number // 250, 1 + number % 250)
        )
        holders.append(
            lab.sandbox.spawn(
                partial(hold, count, writer), netns=lab.loopback.client, cgroup=lab.hooked, label="sockets"
            )
        )
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            if told.read(1) != b"x":
                raise KubesockError(f"{count} sockets could not be opened")
        opened += count
    return opened


def _hold(service: str, source: str, count: int, ready: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    held = []
    for _ in range(count):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((source, 0))
        one.connect((service, 80))
        held.append(one)
    os.write(ready, b"x")
    signal.pause()


def _table(bpffs: Path, folder: Path, opened: int) -> Table:
    walks = [_walk(bpffs) for _ in range(WALKS)]
    total, interval = walks[-1][1], summarize([seconds for seconds, _ in walks]).median / SHARE
    raw = [_timed(lambda: _drained(bpffs)) for _ in range(WALKS)]
    kept = [_timed(lambda: SocketWalker(bpffs).look(KEEP_SOCKETS)) for _ in range(WALKS)]
    listed = [_timed(lambda: _listed(bpffs)) for _ in range(3)]
    one = [_timed(lambda: _listed(bpffs, "--backend", "10.129.0.0")) for _ in range(3)]
    share = cpu_share_of_top(bpffs, folder, "connections", TOP_SECONDS)
    rows = [
        _row("the kernel's iterator, read to its end", raw),
        _row("a walk that counts by Service and backend", [seconds for seconds, _ in walks]),
        _row(f"the same, {KEEP_SOCKETS:,} of them kept for `top`", kept),
        _row(f"`kubesock connections -o name`, {opened:,} rows", listed),
        _row("`kubesock connections --backend`, none of them", one),
        (
            "CPU of `kubesock top connections`, a look every second",
            f"{share:.1%}",
            "",
            f"< {TOP_CPU:.0%} of a core",
            "yes" if share < TOP_CPU else "no",
        ),
    ]
    notes = (
        f"{opened:,} connected UDP sockets in one network namespace, through one Service of 100 endpoints;"
        f" a walk found {total:,}.",
        f"Walks may take {SHARE:.0%} of the time: so many sockets are looked at every {duration(interval)},"
        " and the screen says how old they are.",
    )
    return Table(f"Connections, {opened:,} sockets", COLUMNS, rows, notes)


def _walk(bpffs: Path) -> tuple[float, int]:
    walker = SocketWalker(bpffs)
    began = time.process_time()
    walk = walker.look(0)
    if walk.error is not None:
        raise walk.error
    return time.process_time() - began, walk.total


def _drained(bpffs: Path) -> None:
    link = open_pinned(current_folder(bpffs))
    try:
        fd = bpf.iter_create(link)
        try:
            while os.read(fd, CHUNK):
                pass
        finally:
            os.close(fd)
    finally:
        os.close(link)


def _listed(bpffs: Path, *arguments: str) -> None:
    code, _, err = run_verb("connections", f"--bpffs={bpffs}", "-o", "name", *arguments)
    if code != 0:
        raise KubesockError(err)


def _timed(work: Callable[[], object]) -> float:
    """CPU time, with that of the processes that it started."""
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


def _row(what: str, seconds: list[float]) -> tuple[str, ...]:
    return (
        what,
        duration(summarize(seconds).median),
        f"{duration(min(seconds))}–{duration(max(seconds))}",
        "",
        "",
    )
