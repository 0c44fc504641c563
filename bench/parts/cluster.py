"""`kubesock run` against an API server with a large cluster: first sync, memory, changes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import objects
from bench.api_server import cluster
from bench.held import HeldSet
from bench.lab import Lab
from bench.processes import cpu_nanoseconds, cpu_share, most_resident, pages, start_of, wait_ready
from bench.ratios import summarize
from bench.scale import Scale
from bench.tables import Table, duration, size
from pyagent.demo.agent_process import Agent
from pyagent.kernel.removal import cleanup
from pyagent.model.failures import KubesockError

READY_SECONDS, CHANGE_SECONDS = 180.0, 20.0
BURST = 1000
COLUMNS = ("what", "median", "p10–p90", "p99")


def run(lab: Lab, scale: Scale) -> list[Table]:
    services, endpoints = scale.cluster
    bpffs, state = lab.sandbox.bpffs / lab.part, lab.sandbox.folder / f"state-{lab.part}"
    with _Server(lab.sandbox.folder, services, endpoints) as server:
        try:
            rows = [
                row for pinned in (False, True) for row in _measured(lab, scale, server, bpffs, state, pinned)
            ]
        finally:
            cleanup(bpffs)
    notes = (
        "The API server is the tests' own, in Python, on the same cores: it sends the lists for most of the",
        "time until ready. A change counts from when it is told to the server until its word is seen in the",
        "pinned map; so does the burst, until its last Service's.",
    )
    title = f"Agent, {services:,} Services with {endpoints:,} endpoints from an API server"
    return [Table(title, COLUMNS, rows, notes)]


def _measured(
    lab: Lab, scale: Scale, server: _Server, bpffs: Path, state: Path, pinned: bool
) -> Iterator[tuple[str, ...]]:
    services, endpoints = scale.cluster
    room = max(262_144, endpoints * 2)
    agent = Agent(
        lab.sandbox,
        ("--kubeconfig", server.kubeconfig),
        node_name="bench",
        cgroup=lab.hooked,
        bpffs=bpffs,
        state_dir=state,
        netns=None,
        arguments=(f"--map-sizes=backends={room},slots={room * 4},sets={room},frontends={room}",),
    )
    pid = agent.process.pid
    try:
        ready = wait_ready(pid, agent.health_port, READY_SECONDS)
        if ready is None:
            raise KubesockError(f"not ready after {READY_SECONDS:g} s\n{agent.log_tail()}")
        how = "pinned" if pinned else "nothing pinned"
        yield _one(f"start → ready, {how}", duration(ready - start_of(pid)))
        yield _one(f"CPU time until then, {how}", duration(cpu_nanoseconds(pid) / 1e9))
        plan_seconds = _metric(agent, "kubeproxy_sync_full_proxy_rules_duration_seconds_sum")
        yield _one(f"of that the first plan and its writes, {how}", duration(plan_seconds))
        if not pinned:
            return
        time.sleep(1.0)
        yield _one("most memory (RSS)", size(most_resident(pid)))
        yield _one("memory (PSS)", size(pages(pid, "Pss")))
        plans = cluster(services, endpoints)
        changes = [_change(server, bpffs, plans, (i * 37) % services, 1, i + 1) for i in range(scale.changes)]
        found = summarize(changes)
        spread = f"{duration(found.p10)}–{duration(found.p90)}"
        yield ("one change, API server → kernel", duration(found.median), spread, duration(found.p99))
        burst = summarize([_change(server, bpffs, plans, 0, BURST, 1000 + i) for i in range(3)])
        yield _one(f"{BURST:,} slices changed at once", duration(burst.median))
        yield _one("memory (PSS) after that", size(pages(pid, "Pss")))
        yield _one("CPU at rest", f"{cpu_share(pid, scale.idle_seconds):.2%}")
    finally:
        agent.stop()


def _change(
    server: _Server, bpffs: Path, plans: list[objects.Plan], first: int, count: int, skip: int
) -> float:
    last = plans[min(first + count, len(plans)) - 1]
    held = HeldSet(bpffs, last)
    try:
        before, began = held.word(), time.perf_counter()
        server.change(first, count, skip)
        while held.word() == before:
            if time.perf_counter() - began > CHANGE_SECONDS:
                raise KubesockError("a change has not reached the kernel")
            time.sleep(0.0001)
        took = time.perf_counter() - began
        held.check(objects.replaced_pod(last, skip))
    finally:
        held.close()
    server.wait()
    time.sleep(0.02)  # one at a time: the agent is at rest again
    return took


def _metric(agent: Agent, name: str) -> float:
    _, body = agent.get("/metrics", metrics=True)
    values = [
        float(line.split()[-1]) for line in body.splitlines() if line.startswith((f"{name} ", f"{name}{{"))
    ]
    return max(values)  # told once for each family


def _one(what: str, value: str) -> tuple[str, ...]:
    return (what, value, "", "")


class _Server:
    """The API server's process. Use as a context manager."""

    def __init__(self, folder: Path, services: int, endpoints: int) -> None:
        words = [sys.executable, "-m", "bench.api_server", str(folder), str(services), str(endpoints)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Server:
        self.kubeconfig = self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def change(self, first: int, count: int, skip: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {count} {skip}\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Until the last change was made."""
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise KubesockError("the bench's API server ended")
        return line
