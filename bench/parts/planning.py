"""From bytes of the API server to the maps, inside one process and phase by phase."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench import objects
from bench.lab import Lab
from bench.objects import Plan
from bench.ratios import Summary, judge, summarize
from bench.scale import Scale
from bench.tables import Table, duration
from pyagent.agent.run import GC_THRESHOLD
from pyagent.cluster.decode import decode_list, decode_watch_line
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import Capacities
from pyagent.datapath.plan import plan
from pyagent.demo.calls import call
from pyagent.desired.narrow import narrowed
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.map_set import MapSet
from pyagent.model.failures import KubesockError

SERVICES, ENDPOINTS = 10_000, 10
LARGE = Plan("large", 7, 5000, 10_000)
SYNC, WRITES = 1.0, 0.1
CHANGE_P50, CHANGE_P99 = 0.002, 0.010
COLUMNS = ("what", "p50", "p10–p90", "p99", "budget", "met")
SYNC_SECONDS = 120.0


class Phases(NamedTuple):
    """Seconds of each step on the way."""

    decode: float
    snapshot: float
    desired: float
    plan: float
    writes: float

    @property
    def total(self) -> float:
        return sum(self)


class Answer(NamedTuple):
    sync: Phases
    sync_cpu: float  # seconds; a busy machine takes longer by the clock
    list_bytes: int
    one: list[Phases]
    of_large: list[Phases]
    thousand: list[Phases]
    rolled: list[Phases]
    pauses: tuple[float, float]  # the longest of the garbage collector's: in the sync, in the changes


class _Node:
    """What the agent's loop holds, without the loop."""

    def __init__(self, maps: MapSet) -> None:
        self.maps = maps
        self.snapshot = Snapshot("bench")
        self.desired = DesiredState(Settings("bench"))
        self.held = HeldState(Capacities())

    def first_sync(self, services: bytes, slices: bytes) -> Phases:
        clock = _Laps()
        narrow = partial(narrowed, own_node="bench")
        lists = decode_list("Service", services, narrow), decode_list("EndpointSlice", slices, narrow)
        clock.lap()
        self.snapshot.replace("Service", lists[0].objects)
        self.snapshot.replace("EndpointSlice", lists[1].objects)
        clock.lap()
        gc.disable()
        dirty = self.snapshot.everything()
        self.snapshot.take_dirty()
        self.desired.update(self.snapshot, dirty)
        change = self.desired.full()
        clock.lap()
        made = plan(self.held, change, complete=True)
        gc.enable()
        clock.lap()
        self.maps.apply(made.writes)
        clock.lap()
        if made.unfit or change.new_problems:
            raise KubesockError(f"the bench's own objects are refused: {made.unfit} {change.new_problems}")
        return clock.phases()

    def change(self, lines: list[bytes]) -> Phases:
        clock = _Laps()
        decoded = [decode_watch_line("EndpointSlice", line) for line in lines]
        clock.lap()
        for line in decoded:
            assert line.object is not None
            self.snapshot.put("EndpointSlice", line.object)
        clock.lap()
        change = self.desired.update(self.snapshot, self.snapshot.take_dirty())
        clock.lap()
        made = plan(self.held, change)
        clock.lap()
        self.maps.apply(made.writes)
        clock.lap()
        if not made.writes or made.unfit:
            raise KubesockError(f"a change wrote {len(made.writes)} times, unfit: {made.unfit}")
        self.held.reclaim(made.freed)  # no hook runs on these maps, so there is no grace period to wait for
        return clock.phases()


class _Pauses:
    """The garbage collector's longest pause since the last look, seconds of CPU time."""

    def __init__(self) -> None:
        self._began, self._longest = 0.0, 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _info: object) -> None:
        now = time.thread_time()
        if phase == "start":
            self._began = now
        else:
            self._longest = max(self._longest, now - self._began)

    def take(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest


class _Laps:
    def __init__(self) -> None:
        self._at = [time.perf_counter()]

    def lap(self) -> None:
        self._at.append(time.perf_counter())

    def phases(self) -> Phases:
        return Phases(*[b - a for a, b in zip(self._at, self._at[1:], strict=False)])


def run(lab: Lab, scale: Scale) -> list[Table]:
    """The first sync, each time in a new process, and changes after it."""
    folder = lab.sandbox.bpffs / lab.part
    folder.mkdir()
    wanted = [*objects.plans(SERVICES, ENDPOINTS), LARGE]
    lists = objects.service_listing(wanted), objects.slice_listing(wanted)
    answers = []
    for attempt in range(scale.syncs):
        work = partial(_in_new_process, folder / str(attempt), *lists, scale.changes * 10)
        answers.append(call(work, timeout=SYNC_SECONDS))
    return [_sync_table(answers), _change_table(answers[-1])]


def _in_new_process(folder: object, services: bytes, slices: bytes, changes: int) -> Answer:
    from pathlib import Path

    assert isinstance(folder, Path)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    maps = MapSet.create(folder, Capacities())
    node = _Node(maps)
    pauses = _Pauses()
    spent = time.process_time()
    sync = node.first_sync(services, slices)
    spent = time.process_time() - spent
    in_sync = pauses.take()
    gc.collect()
    gc.freeze()
    pauses.take()
    small = list(objects.plans(SERVICES, ENDPOINTS))
    one = [node.change([_line(small[i * 37 % SERVICES], i + 1)]) for i in range(changes)]
    large = [node.change([_line(LARGE, i + 1)]) for i in range(changes // 5)]
    thousand = [node.change([_line(p, 5000 + i) for p in small[:1000]]) for i in range(5)]
    rolled = [node.change([line]) for line in _rolling(LARGE)]
    seen = in_sync, pauses.take()
    return Answer(sync, spent, len(services) + len(slices), one, large, thousand, rolled, seen)


def _line(plan: Plan, skip: int) -> bytes:
    return _modified(objects.endpoint_slice(plan, 0, skip=skip))


def _rolling(plan: Plan) -> list[bytes]:
    """Slice after slice with nothing but new pods in it."""
    renewed = plan._replace(first_endpoint=plan.first_endpoint + 2 * objects.REPLACED)
    return [_modified(found) for found in objects.slices(renewed)]


def _modified(found: dict[str, Any]) -> bytes:
    typed = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **found}
    return json.dumps({"type": "MODIFIED", "object": typed}).encode()


def _sync_table(answers: list[Answer]) -> Table:
    rows = [
        _row(
            f"first sync, {phase}",
            [getattr(a.sync, phase) for a in answers],
            WRITES if phase == "writes" else None,
        )
        for phase in Phases._fields
    ]
    rows.append(_row("first sync, all", [a.sync.total for a in answers], SYNC))
    rows.append(_row("first sync, all, CPU time", [a.sync_cpu for a in answers]))
    rows.append(_row("longest garbage collection in it", [a.pauses[0] for a in answers]))
    notes = (
        f"{answers[0].list_bytes / 1e6:.0f} MB of JSON, {len(answers)} times in new processes, "
        "with the agent's garbage collector settings.",
    )
    return Table(f"From lists to maps, {SERVICES:,} Services × {ENDPOINTS} endpoints", COLUMNS, rows, notes)


def _change_table(answer: Answer) -> Table:
    rows = [
        _row(f"one endpoint, {phase}", [getattr(p, phase) for p in answer.one]) for phase in Phases._fields
    ]
    total = [p.total for p in answer.one]
    pause = duration(answer.pauses[1]) if answer.pauses[1] else "there was none"
    rows += [
        _row("one endpoint, all", total, CHANGE_P50),
        _row("one endpoint, all, p99", total, CHANGE_P99, lambda s: s.p99),
        _row(f"one endpoint of {LARGE.endpoints:,}", [p.total for p in answer.of_large]),
        _row("1,000 slices at once", [p.total for p in answer.thousand]),
        ("longest garbage collection meanwhile", pause, "", "", "", ""),
        _row(f"all of {LARGE.endpoints:,}, a slice at a time: each", [p.total for p in answer.rolled]),
        _row(f"all of {LARGE.endpoints:,}, a slice at a time: all", [sum(p.total for p in answer.rolled)]),
    ]
    notes = (
        f"{len(total):,} changes after the first sync, each of another Service, from the bytes of the watch",
        "line to the last write; without the thread that reads the stream and the queue behind it.",
    )
    return Table("From a watch line to the maps, at that size", COLUMNS, rows, notes)


def _row(
    what: str,
    seconds: list[float],
    budget: float | None = None,
    figure: Callable[[Summary], float] | None = None,
) -> tuple[str, ...]:
    found = summarize(seconds)
    return (
        what,
        duration(found.median),
        f"{duration(found.p10)}–{duration(found.p90)}",
        duration(found.p99),
        "" if budget is None else f"≤ {duration(budget)}",
        "" if budget is None else str(judge(found, budget, figure)),
    )
