"""The parts of the screen that need no terminal: what fits, what matches, what happened between two looks."""

from __future__ import annotations

import threading
import time
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pyagent.model.failures import PinsMissing
from pyagent.model.service import View
from pyagent.view.tables import Column, Row
from pyagent.view.terminal.activity import KEPT, Activity
from pyagent.view.terminal.frame import TABS, VIEWS, Frame, frame
from pyagent.view.terminal.layout import GAP, placed
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.remembered import Remembered, remember, remembered, state_path
from pyagent.view.terminal.row_filter import filtered
from pyagent.view.terminal.sample import Needs, Sample
from pyagent.view.terminal.sampler import Sampler
from pyagent.view.terminal.view_kinds import Request
from tests.tui.made import MadeReader
from tests.unit.view.maps_made import B, S, live

COLUMN = st.tuples(st.integers(1, 60), st.integers(0, 10), st.booleans())


@given(st.lists(COLUMN, min_size=1, max_size=14), st.integers(1, 300))
def test_columns_fit_and_the_least_important_go_first(
    columns: list[tuple[int, int, bool]], room: int
) -> None:
    widths, importance, cut = (list(values) for values in zip(*columns, strict=True))
    found = placed(widths, importance, room, cut)
    shown = [one.position for one in found]
    assert shown == sorted(set(shown))
    assert all(0 < one.width <= widths[one.position] for one in found)
    left_out = [importance[i] for i in range(len(columns)) if i not in shown]
    assert all(value >= max(importance[i] for i in shown) for value in left_out)
    kept = {i for i, value in enumerate(importance) if value == 0}
    assert kept <= set(shown)
    if not kept and len(shown) > 1:
        assert sum(one.width for one in found) + GAP * (len(found) - 1) <= room
    if sum(widths) + GAP * (len(widths) - 1) <= room:
        assert [one.width for one in found] == widths


@given(st.lists(st.floats(0, 1e6, allow_nan=False), max_size=100), st.integers(1, 30), st.booleans())
def test_a_history_has_its_width_and_never_hides_what_happened(
    values: list[float], width: int, utf8: bool
) -> None:
    drawn = Marks(utf8).history(values, width)
    seen = values[-(2 * width if utf8 else width) :]
    assert len(drawn) == (width if any(seen) else 0)
    assert utf8 or drawn.isascii()
    if any(seen):
        assert drawn.strip(" \u2800"), "something happened"


@given(st.floats(-10, 200, allow_nan=False), st.integers(1, 40), st.booleans())
def test_a_bar_has_its_width(percent: float, width: int, utf8: bool) -> None:
    drawn = Marks(utf8).bar(percent, width)
    assert len(drawn) == width
    if percent >= 100:
        assert set(drawn) in ({"█"}, {"#"})
    if percent <= 0:
        assert set(drawn) <= {"·", "."}


ROWS: list[Row] = [{"name": "web", "type": "NodePort"}, {"name": "cart", "type": "ClusterIP"}]
COLUMNS = [Column("NAME", "name"), Column("TYPE", "type")]


def names(pattern: str) -> list[str]:
    return [row["name"] for row in filtered(ROWS, COLUMNS, pattern).rows]


def test_filters_are_those_of_k9s() -> None:
    assert names("") == names("!") == ["web", "cart"]
    assert names("WEB") == ["web"]
    assert names("^cart|port$") == ["web", "cart"]
    assert names("!web") == ["cart"]
    assert names("-f ctcl") == ["cart"]
    assert names("-l type=nodeport") == ["web"]
    assert names("-l type!=nodeport") == ["cart"]


@given(st.text(max_size=30))
@example("[[")
def test_no_pattern_breaks_the_filter(pattern: str) -> None:
    found = filtered(ROWS, COLUMNS, pattern)
    assert all(row in ROWS for row in found.rows)


def look(count: int, taken: float, refused: int = 0) -> Sample:
    service = S(
        "a/b", ("10.0.0.1:80",), ((View.CLUSTER, 0, (B("10.1.0.1:80", chosen=count),)),), refused=refused
    )
    return Sample(live([service]), taken)


def test_rates_are_what_was_counted_by_the_time_between() -> None:
    activity = Activity()
    activity.follow(look(100, 10.0, refused=4))
    assert not activity.known
    activity.follow(look(130, 12.0, refused=5))
    assert (activity.ports, activity.backends, activity.refused) == ({1: 15.0}, {1: 15.0}, {1: 0.5})
    activity.follow(look(130, 13.0, refused=5))
    assert (activity.ports, activity.refused) == ({}, {})
    assert activity.history(1) == [15.0, 0.0]


def test_a_counter_that_begins_again_is_no_negative_rate() -> None:
    activity = Activity()
    activity.follow(look(100, 0.0))
    activity.follow(look(6, 2.0))
    assert activity.ports == {1: 3.0}


def test_what_is_quiet_for_long_is_forgotten() -> None:
    activity = Activity()
    activity.follow(look(0, 0.0))
    activity.follow(look(9, 1.0))
    for number in range(KEPT - 1):
        activity.follow(look(9, 2.0 + number))
        assert len(activity.history(1)) == min(number + 2, KEPT)
    activity.follow(look(9, 100.0))
    assert activity.history(1) == []


def test_every_view_has_rows_that_its_columns_and_table_can_show() -> None:
    reader, activity = MadeReader(), Activity()
    for view in VIEWS.values():
        request = Request(view.key, "names" if view.key == "map" else "")
        sample = reader.look(view.needs)
        activity.follow(sample)
        found = frame(request, sample, activity)
        assert found.rows, view.key
        table = view.table_for(request, found.rows)
        for column in table.columns:
            assert len(column.texts(found.rows)) == len(found.rows)
        assert all(table.name(row) for row in found.rows)
        if table.identity:
            keys = [table.key(row) for row in found.rows]
            assert len(set(keys)) == len(keys), view.key
        for marks in (Marks(True), Marks(False)):
            assert all(isinstance(view.detail(row, marks), list) for row in found.rows)
            assert all(
                one.draw(row, marks) is not None for one in found.columns if one.draw for row in found.rows
            )


def test_sockets_of_long_ago_are_shown_with_their_age() -> None:
    reader = MadeReader()
    reader.change = lambda sample: sample._replace(
        walk=sample.walk._replace(taken=sample.taken - 9, seconds=0.24, total=100_000)
    )
    for view in ("services", "backends", "connections"):
        note = frame(Request(view), reader.look(VIEWS[view].needs), Activity()).notes[0]
        assert "open sockets of 9 s ago" in note
        assert "one every 12 s" in note


def test_an_answer_of_another_version_is_told() -> None:
    reader = MadeReader()
    reader.change = lambda sample: sample._replace(answer=sample.answer._replace(fields={"sources": 7}))
    sample = reader.look(VIEWS["sync"].needs)
    (note,) = frame(Request("sync"), sample, Activity()).notes
    assert "cannot be read" in note


def test_sorting_by_what_a_view_does_not_have_is_told() -> None:
    sample = MadeReader().look(VIEWS["hooks"].needs)
    found = frame(Request("hooks", sort="-nothing"), sample, Activity())
    assert found.rows
    assert any("nothing" in note for note in found.notes)


class Collected:
    """Where a sampler delivers to."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.failures: list[BaseException] = []
        self._came = threading.Condition()

    def frame(self, made: Frame) -> None:
        with self._came:
            self.frames.append(made)
            self._came.notify_all()

    def failure(self, error: BaseException) -> None:
        with self._came:
            self.failures.append(error)
            self._came.notify_all()

    def until(self, true: Any) -> None:
        with self._came:
            assert self._came.wait_for(true, timeout=10)


def sampler(reader: Any, found: Collected, interval: float = 60.0) -> Sampler:
    made = Sampler(reader, found.frame, found.failure, Request("services"), interval)
    made.start()
    return made


def test_a_new_request_is_answered_at_once_and_a_filter_without_another_look() -> None:
    reader, found = MadeReader(), Collected()
    made = sampler(reader, found)
    found.until(lambda: len(found.frames) == 1)
    made.show(Request("services", pattern="dns"))
    found.until(lambda: len(found.frames) == 2)
    assert reader.looks == 1
    assert len(found.frames[1].rows) == 2
    made.show(Request("hooks"))
    found.until(lambda: len(found.frames) == 3)
    assert reader.looks == 2
    made.stop()
    assert reader.closed


def test_pausing_stops_looking_and_a_failed_look_keeps_the_rows() -> None:
    reader, found = MadeReader(), Collected()
    made = sampler(reader, found, interval=0.01)
    found.until(lambda: len(found.frames) > 3)
    made.pause(True)
    time.sleep(0.05)  # one look may have been under way
    looks = reader.looks
    time.sleep(0.1)
    assert reader.looks == looks
    reader.fail = PinsMissing("gone")
    made.pause(False)
    found.until(lambda: found.frames[-1].error == "gone")
    assert len(found.frames[-1].rows) == 11
    made.stop()


def test_what_should_never_happen_is_handed_over_and_everything_is_let_go() -> None:
    reader, found = MadeReader(), Collected()
    reader.fail = RuntimeError("by a test")
    made = sampler(reader, found)
    found.until(lambda: found.failures)
    made.stop()
    assert reader.closed


def test_a_costly_look_makes_looks_rare() -> None:
    class Costly(MadeReader):
        def look(self, needs: Needs) -> Sample:
            end = time.thread_time() + 0.02
            while time.thread_time() < end:
                pass
            return super().look(needs)

    reader, found = Costly(), Collected()
    made = sampler(reader, found, interval=0.01)
    found.until(lambda: found.frames)
    found.until(lambda: made.wait > 0.3)
    made.stop()


def test_the_memory_is_where_xdg_says(tmp_path: Any) -> None:
    assert state_path({"XDG_STATE_HOME": "/x"}).as_posix() == "/x/kubesock/top.json"
    assert (
        state_path({"XDG_STATE_HOME": "not/absolute", "HOME": "/h"}).as_posix().startswith("/h/.local/state/")
    )
    path = state_path({"XDG_STATE_HOME": str(tmp_path)})
    chosen = Remembered(theme="nord", sort={"services": "-live"}, mouse=False)
    assert remember(path, chosen) == ""
    assert remembered(path) == chosen
    assert [one.name for one in path.parent.iterdir()] == ["top.json"]
    assert "top.json" in remember(tmp_path / "kubesock" / "top.json" / "below" / "top.json", chosen)


def test_the_views_are_on_the_keys_of_the_contract() -> None:
    assert [view.key for view in TABS] == [
        "services", "backends", "connections", "events", "maps", "hooks", "sync",
    ]  # fmt: skip
