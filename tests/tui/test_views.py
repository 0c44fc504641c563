"""What every view looks like: pictures of the screen. New ones: `pytest tests/tui --snapshot-update`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from textual.pilot import Pilot

from pyagent.view.terminal.app import TopApp
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.remembered import Remembered
from pyagent.view.terminal.screens import TextScreen
from tests.tui.driving import Driver
from tests.tui.made import MadeReader, explained_by_the_maps, settings

WIDE = (140, 34)
NARROW = (60, 15)
HUGE = (240, 66)

Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def _one_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_COLOR", "COLORTERM", "TEXTUAL_COLOR_SYSTEM", "TEXTUAL_THEME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def looks_right(
    compare: Compare,
    *keys: str,
    size: tuple[int, int] = WIDE,
    reader: MadeReader | None = None,
    looks: int = 8,
    **more: Any,
) -> None:
    """The screen after some looks and keys is the picture that was kept."""
    made = reader or MadeReader()
    app = TopApp(settings(made, **more))

    async def drive(pilot: Pilot[Any]) -> None:
        driver = Driver(pilot, made)
        await driver.ready()
        await driver.look(looks)
        await driver.press(*keys)
        screen = driver.app.screen
        if isinstance(screen, TextScreen):
            await driver.until(lambda: "asking..." not in screen.text)

    run: Callable[[Pilot[Any]], Awaitable[None]] = drive
    assert compare(app, terminal_size=size, run_before=run)


def test_services(snap_compare: Compare) -> None:
    looks_right(snap_compare)


def test_services_sorted_by_what_happens(snap_compare: Compare) -> None:
    looks_right(snap_compare, "N", "down", "down")


def test_backends_of_a_service(snap_compare: Compare) -> None:
    looks_right(snap_compare, "slash", *"checkout", "enter", "enter")


def test_backends(snap_compare: Compare) -> None:
    looks_right(snap_compare, "2")


def test_connections(snap_compare: Compare) -> None:
    looks_right(snap_compare, "3")


def test_events(snap_compare: Compare) -> None:
    looks_right(snap_compare, "4")


def test_maps(snap_compare: Compare) -> None:
    looks_right(snap_compare, "5", "down")


def test_contents_of_a_map(snap_compare: Compare) -> None:
    looks_right(snap_compare, "5", "enter")


def test_contents_of_a_map_as_bytes(snap_compare: Compare) -> None:
    looks_right(snap_compare, "5", "enter", "x")


def test_hooks(snap_compare: Compare) -> None:
    looks_right(snap_compare, "6")


def test_sync(snap_compare: Compare) -> None:
    looks_right(snap_compare, "7")


def test_sync_without_an_agent(snap_compare: Compare) -> None:
    looks_right(snap_compare, "7", reader=MadeReader(agent=False, answers=False))


def test_help(snap_compare: Compare) -> None:
    looks_right(snap_compare, "question_mark")


def test_the_columns_to_sort_by(snap_compare: Compare) -> None:
    looks_right(snap_compare, "s")


def test_an_explanation(snap_compare: Compare) -> None:
    looks_right(snap_compare, "slash", *"checkout", "enter", "e", explain=explained_by_the_maps)


def test_all_fields_of_a_row(snap_compare: Compare) -> None:
    looks_right(snap_compare, "3", "enter")


def test_a_narrow_terminal(snap_compare: Compare) -> None:
    looks_right(snap_compare, size=NARROW)


def test_a_huge_terminal(snap_compare: Compare) -> None:
    looks_right(snap_compare, size=HUGE)


def test_a_terminal_that_is_too_small(snap_compare: Compare) -> None:
    looks_right(snap_compare, size=(30, 6), looks=0)


def test_the_light_theme(snap_compare: Compare) -> None:
    looks_right(snap_compare, chosen=Remembered(theme="kubesock-light"))


def test_no_colour(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    looks_right(snap_compare, "6")


def test_a_locale_without_utf8(snap_compare: Compare) -> None:
    looks_right(snap_compare, marks=Marks(False))


def test_a_filter_being_typed(snap_compare: Compare) -> None:
    looks_right(snap_compare, "slash", *"!shop")
