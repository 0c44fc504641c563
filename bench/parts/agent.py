"""`kubesock run` as a process: start to ready, changed file to kernel, memory, CPU, time of a list verb."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench import objects
from bench.held import HeldSet
from bench.lab import Lab
from bench.objects import Plan
from bench.processes import cpu_nanoseconds, cpu_share, pages, start_of, wait_ready
from bench.ratios import summarize
from bench.scale import Scale
from bench.screen import Refreshes, cpu_share_of_top, refreshes
from bench.tables import Table, duration, size
from pyagent.demo.agent_process import Agent
from pyagent.demo.calls import call
from pyagent.demo.children import wait_until
from pyagent.kernel.removal import cleanup
from pyagent.model.failures import KubesockError

CHANGED = Plan("changed", 1, 10, 10)
"""Its slice is the file that changes."""

SERVICES_PER_FILE = 100
READY_SECONDS, CHANGE_SECONDS, UPLINK_SECONDS = 30.0, 5.0, 30.0
STARTS_SECONDS, LEAST_STARTS = 15.0, 2
SMALL = 100  # Services, up to where the budgets of a small cluster hold
START = {"small": 1.0, "large": 1.5}
PSS = {"small": 60e6, "large": 120e6}
LIST = {"small": 0.15, "large": 0.3}
CHANGE_P50 = 0.010
CPU = 0.005
LIST_RUNS = 5
REFRESH, REFRESH_ROWS, REFRESH_RUNS = 0.05, 5000, 15
TOP_CPU = 0.05  # of a core
BUSY_RATE = 100
DEGRADED = 4  # exit code of `status`
COLUMNS = ("what", "median", "p10–p90", "p99", "budget", "met")


def run(lab: Lab, scale: Scale) -> list[Table]:
    return [_table(lab, scale, services, endpoints) for services, endpoints in scale.agent_sizes]


def _table(lab: Lab, scale: Scale, services: int, endpoints: int) -> Table:
    folder = lab.sandbox.folder / f"manifests-{services}"
    _write_manifests(folder, services, endpoints)
    kind = "small" if services <= SMALL else "large"
    bench = _AgentBench(lab, folder)
    cold = bench.starts(scale.starts, pinned=False)
    warm = bench.starts(scale.starts, pinned=True)
    rows = [
        _row("start → ready, nothing pinned", cold, START[kind]),
        _row("start → ready, pinned", warm),
    ]
    with bench.running() as agent:
        pid = agent.process.pid
        changes = bench.changes(agent, scale.changes)
        rows.append(_row("changed file → kernel", changes, CHANGE_P50))
        _await_uplinks(agent)
        share = cpu_share(pid, scale.idle_seconds)
        busy = bench.busy(pid, scale.idle_seconds)
        busy_pss = pages(pid, "Pss")
        lists = [_time_of_list(agent, services + 1) for _ in range(LIST_RUNS)]
        ended = (
            _time_of_verb(agent, "status"),
            _time_of_verb(agent, "explain", f"{CHANGED.cluster_ips[0]}:80"),
        )
        screen = refreshes(agent.bpffs, agent.state_dir, REFRESH_RUNS)
        top = cpu_share_of_top(agent.bpffs, agent.state_dir, "services", scale.idle_seconds)
        pss = pages(pid, "Pss")
        private = pages(pid, "Private_Clean") + pages(pid, "Private_Dirty")
    met = "yes" if share < CPU else "no"
    rows += [
        ("CPU at rest", f"{share:.2%}", "", "", f"< {CPU:.1%}", met),
        (f"CPU at {busy[1]:.0f} changes a second", f"{busy[0]:.1%}", "", "", "", ""),
        ("memory (PSS)", size(pss), "", "", f"≤ {size(PSS[kind])}", "yes" if pss <= PSS[kind] else "no"),
        (f"memory (PSS) after {busy[1]:.0f} changes a second", size(busy_pss), "", "", "", ""),
        ("memory, private pages", size(private), "", "", "", ""),
        _row(f"`kubesock services -A`, {services + 1:,} rows", lists, LIST[kind]),
        _row("`kubesock status`", ended[0]),
        _row("`kubesock explain`", ended[1]),
        *_screen_rows(screen),
        _top_row(top),
    ]
    notes = (
        f"Starts: {len(cold)} and {len(warm)}; nothing pinned also means an empty state directory.",
        f"Changes: {scale.changes}, a slice of {CHANGED.endpoints} endpoints in a file of its own, renamed "
        "into place; from the start of writing it until its word is seen in the pinned map.",
        f"At rest and under changes: {scale.idle_seconds:.0f} s. PSS counts a page that other Python "
        "processes use too in part; private pages are the agent's alone.",
        "`top`: from asking for a look until the new one is drawn.",
    )
    return Table(f"Agent, {services:,} Services × {endpoints} endpoints from files", COLUMNS, rows, notes)


def _await_uplinks(agent: Agent) -> None:
    """Programs for packets are compiled after sockets are served: that is no rest."""
    served = agent.bpffs / "outside"
    wait_until(lambda: any(served.glob("arrive-*")), UPLINK_SECONDS)


def _write_manifests(folder: Path, services: int, endpoints: int) -> None:
    folder.mkdir()
    wanted = list(objects.plans(services, endpoints))
    for start in range(0, services, SERVICES_PER_FILE):
        content = objects.manifest(wanted[start : start + SERVICES_PER_FILE])
        (folder / f"services-{start:06}.json").write_bytes(content)
    (folder / "changed-service.json").write_bytes(objects.service_manifest(CHANGED))
    (folder / "changed-slice.json").write_bytes(objects.slice_manifest(CHANGED, 0))


class _AgentBench:
    """Starts and stops agents on one manifests directory."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._bpffs = lab.sandbox.bpffs / folder.name
        self._state = lab.sandbox.folder / f"state-{folder.name}"
        self._skip = 0

    def starts(self, count: int, pinned: bool) -> list[float]:
        """Seconds from the start of a process to the first 200 of its /readyz; fewer on a slow machine."""
        found: list[float] = []
        enough = time.monotonic() + STARTS_SECONDS
        while len(found) < count and (len(found) < LEAST_STARTS or time.monotonic() < enough):
            if not pinned:
                self.remove()
            with self._agent() as (_, seconds):
                found.append(seconds)
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[Agent]:
        """An agent for a while; everything of it is removed afterwards."""
        try:
            with self._agent() as (agent, _):
                yield agent
        finally:
            self.remove()

    def remove(self) -> None:
        cleanup(self._bpffs)
        shutil.rmtree(self._state, ignore_errors=True)

    @contextlib.contextmanager
    def _agent(self) -> Iterator[tuple[Agent, float]]:
        agent = Agent(
            self._lab.sandbox,
            ("--manifests", str(self._folder)),
            node_name="bench",
            cgroup=self._lab.hooked,
            bpffs=self._bpffs,
            state_dir=self._state,
            netns=self._lab.loopback.client,
        )
        try:
            ready = call(
                partial(wait_ready, agent.process.pid, agent.health_port, READY_SECONDS),
                netns=self._lab.loopback.client,
                timeout=READY_SECONDS + 5,
            )
            if ready is None:
                raise KubesockError(
                    f"the agent ended or is not ready after {READY_SECONDS:g} s\n{agent.log_tail()}"
                )
            yield agent, ready - start_of(agent.process.pid)
        finally:
            agent.stop()

    def busy(self, pid: int, seconds: float) -> tuple[float, float]:
        """CPU share while the slice changes BUSY_RATE times a second; how many changes a second it were."""
        began, spent, count = time.perf_counter(), cpu_nanoseconds(pid), 0
        while (now := time.perf_counter()) < began + seconds:
            self._change()
            count += 1
            time.sleep(max(0.0, began + count / BUSY_RATE - now))
        passed = time.perf_counter() - began
        return (cpu_nanoseconds(pid) - spent) / 1e9 / passed, count / passed

    def _change(self) -> None:
        """Put a slice with another first endpoint in the place of the one that is there."""
        self._skip += 1
        new = self._folder / ".changed-slice"
        new.write_bytes(objects.slice_manifest(CHANGED, self._skip))
        new.rename(self._folder / "changed-slice.json")

    def changes(self, agent: Agent, count: int) -> list[float]:
        """Seconds from the start of writing a changed file to the changed word in the kernel."""
        held = HeldSet(agent.bpffs, CHANGED)
        seconds = []
        for _ in range(count):
            before = held.word()
            began = time.perf_counter()
            self._change()
            while held.word() == before:
                if time.perf_counter() - began > CHANGE_SECONDS:
                    raise KubesockError(f"a changed file has not reached the kernel\n{agent.log_tail()}")
            seconds.append(time.perf_counter() - began)
            held.check(objects.replaced_pod(CHANGED, self._skip))
            time.sleep(0.02)  # one change at a time: the agent is at rest again
        held.close()
        return seconds


def _time_of_list(agent: Agent, rows: int) -> float:
    began = time.perf_counter()
    code, out, err = agent.verb("services", "-A", "--no-headers")
    seconds = time.perf_counter() - began
    if code != 0 or len(out.splitlines()) < rows:
        raise KubesockError(
            f"kubesock services ended with {code}, {len(out.splitlines())} rows: {err.strip()}"
        )
    return seconds


def _time_of_verb(agent: Agent, *words: str) -> list[float]:
    seconds = []
    for _ in range(LIST_RUNS):
        began = time.perf_counter()
        code, _, err = agent.verb(*words)
        seconds.append(time.perf_counter() - began)
        if code not in (0, DEGRADED):
            raise KubesockError(f"kubesock {' '.join(words)} ended with {code}: {err.strip()}")
    return seconds


def _top_row(share: float) -> tuple[str, ...]:
    met = "yes" if share < TOP_CPU else "no"
    return "CPU of `kubesock top`, a look every second", f"{share:.1%}", "", "", f"< {TOP_CPU:.0%}", met


def _screen_rows(screen: Refreshes) -> list[tuple[str, ...]]:
    budget = REFRESH if screen.rows <= REFRESH_ROWS + 1 else None
    what = f"`kubesock top`, refresh, {screen.rows:,} rows"
    return [_row(what, screen.seconds, budget), _row(f"{what}, CPU", screen.cpu, budget)]


def _row(what: str, seconds: list[float], budget: float | None = None) -> tuple[str, ...]:
    found = summarize(seconds)
    return (
        what,
        duration(found.median),
        f"{duration(found.p10)}–{duration(found.p90)}",
        duration(found.p99),
        "" if budget is None else f"≤ {duration(budget)}",
        "" if budget is None else ("yes" if found.median <= budget else "no"),
    )
