"""Sets are switched as fast as they can be while every core connects: nobody sees anything in between."""

from __future__ import annotations

import itertools
import os
import queue
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from pyagent.agent.grace import GraceKeeper
from pyagent.datapath.counter_resets import counter_resets
from pyagent.datapath.held import Freed
from pyagent.datapath.plan import plan
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.kube_objects import EndpointSlice, Service
from tests.datapath.ground.hooks import NODE_NAME, Hooks
from tests.reliability.ground.load import Load, dialling, report
from tests.reliability.ground.served import Served

pytestmark = [pytest.mark.kernel, pytest.mark.long]

CALLS = int(os.environ.get("CALLS", "5_000_000"))
MOVING = (Served("one", 1, 1, 40), Served("two", 2, 41, 40, hosts=3))
STICKY = Served("sticky", 3, 90, 0, hosts=5)
PASSING = [Served(f"passing-{n}", 100 + n, 100 + n, 1) for n in range(8)]
KINDS: dict[str, Any] = {"Service": Service, "EndpointSlice": EndpointSlice}


class Writer:
    """The agent's loop without its waits: change, plan, apply; places come back after each grace period."""

    def __init__(self, hooks: Hooks) -> None:
        hooks.serve([])
        self._hooks = hooks
        self._snapshot = Snapshot(NODE_NAME)
        self._desired = DesiredState(Settings(NODE_NAME))
        self._ended: queue.SimpleQueue[tuple[Freed, ...]] = queue.SimpleQueue()
        self._grace = GraceKeeper(hooks.datapath.grace, self._ended.put)
        self._grace.start()
        self.plans = self.writes = self.graces = 0

    def put(self, *objects: dict[str, Any]) -> None:
        for obj in objects:
            self._snapshot.put(obj["kind"], msgspec.convert(obj, KINDS[obj["kind"]]))
        self._apply()

    def delete(self, *objects: dict[str, Any]) -> None:
        for obj in objects:
            self._snapshot.delete(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        self._apply()

    def switch(self, load: Load, served: Served, generation: int) -> None:
        load.begin(served, generation)
        self.put(*served.slices(generation))
        load.end(served, generation)

    def _apply(self) -> None:
        hooks = self._hooks
        with suppress(queue.Empty):
            while True:
                freed = self._ended.get_nowait()
                hooks.store(*counter_resets(freed, hooks.datapath.capacities))
                for one in freed:
                    hooks.held.reclaim(one)
                self.graces += 1
        made = plan(hooks.held, self._desired.update(self._snapshot, self._snapshot.take_dirty()))
        assert not made.unfit
        hooks.store(*made.writes)
        if made.freed:
            self._grace.free(made.freed)
        self.plans += 1
        self.writes += len(made.writes)

    def close(self) -> None:
        self._grace.stop()


@pytest.mark.timeout(1200)
def test_millions_of_calls_land_in_the_set_before_or_after(hooks: Hooks) -> None:
    """Two Services move, others come and go beside them and take the ids that they give up."""
    writer = Writer(hooks)
    for one in (*MOVING, STICKY):
        writer.put(one.service(), *one.slices(0))
    with dialling(hooks.cluster.sandbox, hooks.cgroup, (*MOVING, STICKY), CALLS) as load:
        for generation in itertools.count(1):
            for one in MOVING:
                writer.switch(load, one, generation)
            passing = PASSING[generation % len(PASSING)]
            change = writer.put if generation // len(PASSING) % 2 else writer.delete
            change(passing.service(), *passing.slices(0))
            if not load.running:
                break
        seen = load.stop()
    writer.close()
    report(
        "switching sets under load",
        (
            str(seen),
            f"{writer.plans:,} plans, {writer.writes:,} writes, {writer.graces:,} grace periods",
            *seen.texts,
        ),
    )
    assert (seen.wrong, seen.texts) == (0, ())
    assert seen.calls >= CALLS
    assert seen.in_switch > 0, "no call met a switch"
