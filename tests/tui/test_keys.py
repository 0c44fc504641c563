"""Every key of the screen, pressed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from textual import events

from pyagent.model.failures import KubesockError, PinsMissing
from pyagent.view.terminal.column_screen import ColumnsScreen
from pyagent.view.terminal.frame import TABS
from pyagent.view.terminal.keys import KEYS
from pyagent.view.terminal.remembered import Remembered, remembered
from pyagent.view.terminal.screens import SmallScreen, SortScreen, TextScreen
from pyagent.view.terminal.themes import CYCLE
from tests.tui.driving import Driver, driven, on_screen
from tests.tui.made import MadeReader


@on_screen()
async def test_numbers_go_to_the_views(screen: Driver) -> None:
    for number, view in enumerate(TABS, 1):
        await screen.press(str(number))
        assert screen.shown.view is view
        assert screen.shown.rows
        assert f"{number} {view.title}" in screen.text("#tabs")


@on_screen()
async def test_enter_goes_deeper_and_escape_comes_back(screen: Driver) -> None:
    await screen.press("end", "up", "enter")
    assert screen.app.request.view == "backends"
    assert {row["service"] for row in screen.shown.rows} == {"shop/web:http/TCP"}
    await screen.press("enter")
    assert screen.app.request.view == "connections"
    assert {row["chosen"] for row in screen.shown.rows} <= {screen.app.request.subject}
    await screen.press("escape")
    assert screen.app.request.view == "backends"
    await screen.press("escape")
    assert (screen.app.request.view, screen.app.request.subject) == ("services", "")
    await screen.press("escape")
    assert screen.app.request.view == "services"


@on_screen()
async def test_a_map_opens_with_what_it_holds_and_x_shows_the_bytes(screen: Driver) -> None:
    await screen.press("5", "enter")
    assert (screen.app.request.view, screen.app.request.subject) == ("map", "frontends")
    assert any(row.get("dialled") == "10.96.0.10:53" for row in screen.shown.rows)
    await screen.press("x")
    assert set(screen.row) == {"key", "value"}
    bytes.fromhex(screen.row["key"])
    await screen.press("x")
    assert "dialled" in screen.row


@on_screen()
async def test_every_map_opens_and_none_breaks_the_screen(screen: Driver) -> None:
    await screen.press("5")
    names = [row["name"] for row in screen.shown.rows]
    for name in names:
        await screen.press("enter")
        assert screen.app.request.subject == name
        assert screen.shown.rows or screen.shown.notes
        await screen.press("escape", "down")  # the cursor is where it was


@on_screen()
async def test_enter_shows_all_fields_where_nothing_is_deeper(screen: Driver) -> None:
    await screen.press("3")
    await screen.pilot.press("enter")
    assert isinstance(screen.app.screen, TextScreen)
    assert any(str(screen.row["cookie"]) in line for line in screen.screen)
    await screen.press("escape")
    assert len(screen.app.screen_stack) == 1


@on_screen()
async def test_slash_filters_while_one_types_and_escape_takes_it_away(screen: Driver) -> None:
    everything = len(screen.shown.rows)
    await screen.press("slash", *"shop")
    assert all("shop" in row["service"] for row in screen.shown.rows)
    assert 0 < len(screen.shown.rows) < everything
    await screen.press("enter", "j", "k")
    assert screen.app.request.pattern == "shop"
    await screen.press("escape")
    assert len(screen.shown.rows) == everything
    await screen.press("slash", *"!shop")
    assert all("shop" not in row["service"] for row in screen.shown.rows)
    await screen.press("escape")
    assert len(screen.shown.rows) == everything


@on_screen()
async def test_keys_that_come_all_at_once_go_where_they_are_meant(screen: Driver) -> None:
    for key in ("6", "enter", "s", "E", "1", "slash", *"dnsx", "backspace", "enter", "N"):
        character = {"slash": "/", "enter": "\r", "backspace": None}.get(key, key)
        screen.app.post_message(events.Key(key, character))
    await screen.until(lambda: screen.app.request.pattern == "dns")
    await screen.ready()
    assert {row["name"] for row in screen.shown.rows} == {"kube-dns"}
    assert screen.app.failure is None


@on_screen()
async def test_a_bad_pattern_is_told_and_looked_for_as_it_stands(screen: Driver) -> None:
    await screen.press("slash", *"web(")
    assert screen.shown.rows == []
    assert "no regular expression" in screen.text("#note")


@on_screen()
async def test_the_line_can_be_edited_and_pasted_into(screen: Driver) -> None:
    await screen.press("slash", *"shop x", "ctrl+w", "backspace")
    assert screen.app.request.pattern == "sho"
    await screen.press("ctrl+u")
    assert screen.app.request.pattern == ""
    screen.app.post_message(events.Paste("cart\nand more"))
    await screen.until(lambda: screen.app.request.pattern == "cart")
    await screen.press("enter", "j")
    assert screen.app.request.pattern == "cart"


@on_screen()
async def test_colon_goes_to_a_view_by_name(screen: Driver) -> None:
    await screen.press("colon", *"conn", "enter")
    assert screen.app.request.view == "connections"
    await screen.press("colon", *"nothing", "enter")
    assert screen.app.request.view == "connections"


@on_screen()
async def test_s_picks_the_column_and_again_turns_round(screen: Driver) -> None:
    await screen.pilot.press("s")
    assert isinstance(screen.app.screen, SortScreen)
    await screen.press("home", "down", "down", "down", "down", "enter")
    assert screen.app.request.sort == "-ready"
    ready = [row["ready"] for row in screen.shown.rows]
    assert ready == sorted(ready, reverse=True)
    await screen.press("s", "enter")
    assert screen.app.request.sort == "ready"
    await screen.press("s", "escape")
    assert screen.app.request.sort == "ready"


def test_columns_are_chosen_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "top.json"

    async def choose() -> list[str]:
        async with driven(MadeReader(), state_file=path) as screen:
            headers = [one.column.header for one in screen.shown.columns]
            await screen.press("c")
            assert isinstance(screen.app.screen, ColumnsScreen)
            await screen.press("enter", "down", "space", "down", "enter", "enter", "escape")
            assert screen.table.shown_headers == [headers[0], *headers[3:]]
            await screen.look()
            assert screen.table.shown_headers == [headers[0], *headers[3:]]
            return [one.column.field for one in screen.shown.columns]

    async def look_again(fields: list[str]) -> None:
        async with driven(MadeReader(), chosen=remembered(path)) as screen:
            assert len(screen.table.shown_headers) == len(fields) - 2

    fields = asyncio.run(choose())
    assert remembered(path).hidden == {"services": fields[1:3]}
    asyncio.run(look_again(fields))


@on_screen()
async def test_shift_and_a_letter_sort_by_the_columns_that_begin_with_it(screen: Driver) -> None:
    await screen.press("N")
    rates = [row["newPerSecond"] for row in screen.shown.rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0
    turns = []
    for _ in range(4):
        await screen.press("R")
        turns.append(screen.app.request.sort)
    assert turns == ["-ready", "ready", "-refused", "refused"]
    await screen.press("Z")
    assert screen.app.request.sort == "refused"


@on_screen()
async def test_the_cursor_stays_on_its_row_when_rows_move(screen: Driver) -> None:
    await screen.press("down", "down", "down")
    held = screen.row["service"]
    await screen.press("N")
    assert screen.row["service"] == held
    await screen.press("slash", *"grafana|dns")
    await screen.press("enter")
    assert screen.row["service"] == held


@on_screen(size=(120, 14))
async def test_keys_move_the_cursor_and_what_is_seen(screen: Driver) -> None:
    await screen.press("2")
    last = len(screen.shown.rows) - 1
    for keys, place in (
        (("down",), 1), (("j",), 2), (("k",), 1), (("up",), 0), (("up",), 0),
        (("end",), last), (("down",), last), (("home",), 0), (("pagedown",), screen.table.page),
        (("pageup",), 0), (("end", "g"), 0),
    ):  # fmt: skip
        await screen.press(*keys)
        assert screen.table.cursor == place, keys
        assert any(screen.row["backend"] in line for line in screen.screen), keys


@on_screen()
async def test_the_mouse_chooses_a_row_and_opens_it(screen: Driver) -> None:
    await screen.pilot.click("RowTable", offset=(10, 4))
    assert screen.table.cursor == 3
    await screen.pilot.click("RowTable", offset=(10, 2), times=2)
    await screen.ready()
    assert screen.app.request.view == "backends"


@on_screen()
async def test_space_pauses_and_goes_on(screen: Driver) -> None:
    await screen.press("space")
    assert screen.app.paused
    assert "paused" in screen.text("#head")
    before = screen.reader.looks
    await asyncio.sleep(0.05)
    assert screen.reader.looks == before
    await screen.look()
    await screen.press("space")
    assert "paused" not in screen.text("#head")


@on_screen()
async def test_plus_and_minus_change_how_often_is_looked(screen: Driver) -> None:
    await screen.press("plus")
    assert screen.app.interval == 30.0
    await screen.press("minus", "minus", "minus")
    assert screen.app.interval == 60.0
    await screen.press(*["plus"] * 12)
    assert screen.app.interval == 0.25
    await screen.until(lambda: screen.reader.looks > 5)


@on_screen()
async def test_y_copies_the_name_and_at_once_again_the_row(screen: Driver) -> None:
    await screen.press("y")
    assert screen.app.clipboard == "default/kubernetes:https/TCP"
    await screen.press("y")
    assert json.loads(screen.app.clipboard)["frontends"] == ["10.96.0.1:443"]


@on_screen()
async def test_e_explains_the_row(screen: Driver) -> None:
    await screen.press("3", "e")
    await screen.until(lambda: any("goes to" in line for line in screen.screen))
    assert any(f"{screen.row['dialled']}/TCP from shop/" in line for line in screen.screen)
    await screen.press("escape", "5", "e")
    assert len(screen.app.screen_stack) == 1


def test_what_cannot_be_explained_is_told_in_words() -> None:
    def refused(target: str, client: str, width: int) -> str:
        raise KubesockError("service x: not in the maps")

    async def steps() -> None:
        async with driven(MadeReader(), explain=refused) as screen:
            await screen.press("e")
            await screen.until(lambda: any("not in the maps" in line for line in screen.screen))

    asyncio.run(steps())


@on_screen()
async def test_t_goes_through_the_themes(screen: Driver) -> None:
    seen = [screen.app.theme]
    for _ in CYCLE:
        await screen.press("t")
        seen.append(screen.app.theme)
    assert seen == [*CYCLE, CYCLE[0]]


@on_screen()
async def test_m_switches_the_mouse_and_the_bottom_line_says_so(screen: Driver) -> None:
    await screen.press("m")
    assert screen.app.settings.chosen.mouse is False
    await screen.press("m")
    assert screen.app.settings.chosen.mouse is True


@on_screen(size=(120, 60))
async def test_the_help_names_every_key(screen: Driver) -> None:
    await screen.pilot.press("question_mark")
    text = "\n".join(screen.screen)
    assert all(key.shown in text and key.help in text for key in KEYS)


def test_q_ends_it_and_lets_go_of_everything() -> None:
    reader = MadeReader()

    async def steps() -> None:
        async with driven(reader) as screen:
            await screen.pilot.press("q")
            assert screen.app.failure is None

    asyncio.run(steps())
    assert reader.closed


@on_screen()
async def test_the_bottom_line_shows_what_can_be_done_here(screen: Driver) -> None:
    assert "e explain" in screen.text("#keys")
    await screen.press("6")
    assert "e explain" not in screen.text("#keys")
    assert "Enter fields" in screen.text("#keys")


@on_screen()
async def test_a_small_terminal_says_so_and_comes_back(screen: Driver) -> None:
    await screen.pilot.resize_terminal(30, 6)
    await screen.until(lambda: isinstance(screen.app.screen, SmallScreen))
    assert "too small" in " ".join(screen.screen)
    await screen.pilot.resize_terminal(80, 24)
    await screen.until(lambda: not isinstance(screen.app.screen, SmallScreen))
    await screen.ready()
    assert any("shop/web:http" in line for line in screen.screen)


@on_screen()
async def test_pins_that_vanish_leave_the_last_data_and_a_line(screen: Driver) -> None:
    screen.reader.fail = PinsMissing("/sys/fs/bpf/x: nothing is pinned there; start `kubesock run`")
    await screen.pilot.press("r")
    await screen.until(lambda: "nothing is pinned" in screen.text("#note"))
    assert len(screen.shown.rows) == 11
    assert "old" in screen.text("#head")
    await screen.press("5")
    assert "nothing is pinned" in screen.text("#note")
    screen.reader.fail = None
    await screen.look()
    assert "nothing is pinned" not in screen.text("#note")


@on_screen()
async def test_what_should_never_happen_ends_it_without_a_traceback(
    screen: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    screen.reader.fail = ZeroDivisionError("by a test")
    await screen.pilot.press("r")
    await screen.until(lambda: screen.app.failure is not None)
    assert isinstance(screen.app.failure, ZeroDivisionError)
    assert "Traceback" not in capsys.readouterr().err


def test_choices_are_remembered(tmp_path: Path) -> None:
    path = tmp_path / "kubesock" / "top.json"

    async def choose() -> None:
        async with driven(MadeReader(), state_file=path, chosen=remembered(path)) as screen:
            await screen.press("t", "L", "m")

    async def look_again() -> None:
        async with driven(MadeReader(), state_file=path, chosen=remembered(path)) as screen:
            assert screen.app.theme == CYCLE[1]
            assert screen.app.request.sort == "-live"

    asyncio.run(choose())
    assert remembered(path) == Remembered(theme=CYCLE[1], sort={"services": "-live"}, mouse=False)
    asyncio.run(look_again())


def test_an_unreadable_memory_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "top.json"
    path.write_text('{"theme": 7, "sort": "nonsense"')
    assert remembered(path) == Remembered()


@on_screen(size=(120, 40))
async def test_names_from_the_cluster_cannot_write_on_the_terminal(screen: Driver) -> None:
    from pyagent.view.live import LiveMaps
    from pyagent.view.terminal.sample import Sample

    def evil(sample: Sample) -> Sample:
        names = {
            key: value.replace(b"shop/web:http", b"shop/\x1b[2Jx:tp")
            for key, value in sample.live.raw.names.items()
        }
        live: LiveMaps = sample.live._replace(raw=sample.live.raw._replace(names=names))
        return sample._replace(live=live)

    screen.reader.change = evil
    await screen.look()
    text = "\n".join(screen.screen)
    assert "\x1b" not in text
    assert "\\x1b[2Jx" in text
    await screen.press("end", "y")
    await screen.press("enter")
    assert "\x1b" not in "\n".join(screen.screen)
