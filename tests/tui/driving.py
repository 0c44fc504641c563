"""Driving the screen: keys, and waiting until what they ask for is shown."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from textual.pilot import Pilot

from pyagent.view.tables import Row
from pyagent.view.terminal.app import TopApp
from pyagent.view.terminal.frame import Frame
from pyagent.view.terminal.row_table import RowTable
from tests.tui.made import NOW, MadeReader, settings

PATIENCE = 10.0


class Driver:
    """A running screen of a test."""

    def __init__(self, pilot: Pilot[Any], reader: Any) -> None:
        assert isinstance(pilot.app, TopApp)
        self.pilot = pilot
        self.app: TopApp = pilot.app
        self.reader = reader

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until something is so."""
        for _ in range(int(PATIENCE / 0.01)):
            if true():
                await self.pilot.pause()
                return
            await asyncio.sleep(0.01)
        raise AssertionError(
            f"not so after {PATIENCE} s; shown is {self.app.shown and self.app.shown.request}"
        )

    async def ready(self) -> None:
        """Wait for the frame that was asked for."""
        await self.until(lambda: self.app.shown is not None and self.app.shown.request == self.app.request)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()
        await self.ready()

    async def look(self, times: int = 1) -> None:
        """Look again, and wait until that is shown."""
        for _ in range(times):
            wanted = NOW + self.reader.looks + 1
            self.app.action_refresh()
            while self.shown.sample.taken < wanted:
                await asyncio.sleep(0.001)
        await self.pilot.pause()

    @property
    def shown(self) -> Frame:
        assert self.app.shown is not None
        return self.app.shown

    @property
    def table(self) -> RowTable:
        return self.app.screen_stack[0].query_one(RowTable)

    @property
    def row(self) -> Row:
        assert self.table.row is not None
        return self.table.row

    def text(self, selector: str) -> str:
        """What a line around the table says."""
        return str(self.app.screen_stack[0].query_one(selector).render())

    @property
    def screen(self) -> list[str]:
        """The lines of the terminal."""
        return [strip.text for strip in self.app.screen._compositor.render_strips()]


Steps = Callable[..., Coroutine[Any, Any, None]]


def on_screen(size: tuple[int, int] = (120, 30), looks: int = 3) -> Callable[[Steps], Callable[..., None]]:
    """A test whose first argument is a screen that has looked a few times; fixtures follow by name."""

    def decorate(steps: Steps) -> Callable[..., None]:
        def test(**fixtures: Any) -> None:
            asyncio.run(_run(steps, size, looks, fixtures))

        names = list(inspect.signature(steps).parameters.values())[1:]
        test.__name__, test.__doc__ = steps.__name__, steps.__doc__
        test.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        return test

    return decorate


async def _run(steps: Steps, size: tuple[int, int], looks: int, fixtures: dict[str, Any]) -> None:
    reader = MadeReader()
    async with driven(reader, size) as screen:
        await screen.look(looks)
        await steps(screen, **fixtures)


@contextlib.asynccontextmanager
async def driven(reader: MadeReader, size: tuple[int, int] = (120, 30), **more: Any) -> AsyncIterator[Driver]:
    """A screen on a reader, ready."""
    app = TopApp(settings(reader, **more))
    async with app.run_test(size=size) as pilot:
        screen = Driver(pilot, reader)
        await screen.ready()
        yield screen
