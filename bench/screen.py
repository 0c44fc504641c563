"""How long `kubesock top` takes from a wish to look to the drawn screen, on a terminal that is not there."""

from __future__ import annotations

import asyncio
import gc
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pyagent.cli.top import GC_THRESHOLD
from pyagent.demo.calls import call
from pyagent.model.failures import KubesockError
from pyagent.view.terminal.app import TopApp
from pyagent.view.terminal.reader import NodeReader
from pyagent.view.terminal.remembered import Remembered
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.view_kinds import Request

SIZE = (160, 50)
NEVER = 60.0  # seconds between looks that nobody asked for
PATIENCE, LONGEST = 10.0, 90.0
WARM_UP = 2
SETTLE_SECONDS = 4.0
REST = 0.1
"""Seconds after a refresh in which the lines around the table are drawn too."""


class Refreshes(NamedTuple):
    """From asking for a look to the new rows on the screen.

    Attributes:
        seconds: that passed.
        cpu: seconds of a core.
        rows: how many there were.
    """

    seconds: list[float]
    cpu: list[float]
    rows: int


def refreshes(bpffs: Path, state_dir: Path, count: int) -> Refreshes:
    """Ask an opened screen of Services to look again, in a process of its own.

    Raises:
        KubesockError: no new screen came.
    """
    return call(partial(_measured, bpffs, state_dir, count), timeout=LONGEST)


def _measured(bpffs: Path, state_dir: Path, count: int) -> Refreshes:
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    return asyncio.run(_watched(NodeReader(bpffs, state_dir), count))


def cpu_share_of_top(bpffs: Path, state_dir: Path, view: str, seconds: float) -> float:
    """Of one core, for a screen that is left alone with a look every second, in a process of its own.

    Raises:
        KubesockError: the screen ended.
    """
    return call(partial(_left_alone, bpffs, state_dir, view, seconds), timeout=LONGEST)


def _left_alone(bpffs: Path, state_dir: Path, view: str, seconds: float) -> float:
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    return asyncio.run(_share(NodeReader(bpffs, state_dir), view, seconds))


async def _share(reader: NodeReader, view: str, seconds: float) -> float:
    settings = Settings(
        reader, "bench", "", lambda _target, _client, _width: "", Remembered(), first=Request(view)
    )
    app = TopApp(settings)
    async with app.run_test(size=SIZE):
        first = time.perf_counter()
        while app.shown is None and app.failure is None and time.perf_counter() - first < LONGEST / 2:
            await asyncio.sleep(0.1)
        await asyncio.sleep(SETTLE_SECONDS)
        began, spent = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - spent) / (time.perf_counter() - began)
        if app.failure is not None or app.shown is None or not app.shown.rows:
            raise KubesockError(f"top {view} shows nothing: {app.failure or (app.shown and app.shown.error)}")
    return share


async def _watched(reader: NodeReader, count: int) -> Refreshes:
    settings = Settings(
        reader, "bench", "", lambda _target, _client, _width: "", Remembered(), interval=NEVER
    )
    app = TopApp(settings)
    seconds, spent = [], []
    async with app.run_test(size=SIZE):
        for _ in range(WARM_UP + count):
            before = app.shown.sample.taken if app.shown is not None else 0.0
            began, cpu = time.perf_counter(), time.process_time()
            app.action_refresh()
            while app.shown is None or app.shown.sample.taken <= before:
                if time.perf_counter() - began > PATIENCE:
                    raise KubesockError(f"the screen shows no new look after {PATIENCE:g} s")
                await asyncio.sleep(0.002)
            drawn = asyncio.Event()
            app.call_after_refresh(drawn.set)
            await drawn.wait()
            seconds.append(time.perf_counter() - began)
            spent.append(time.process_time() - cpu)
            await asyncio.sleep(REST)
        rows = app.shown.total if app.shown is not None else 0
    return Refreshes(seconds[WARM_UP:], spent[WARM_UP:], rows)
