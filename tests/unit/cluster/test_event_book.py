"""How often the cluster hears of the same thing, and of many."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pyagent.cluster.event_book import (
    BURST,
    FIRST_AGAIN,
    FORGOTTEN_AFTER,
    LONGEST_AGAIN,
    MOST,
    SECONDS_BETWEEN,
    SUBJECT_BURST,
    SUBJECT_SECONDS,
    EventBook,
)
from pyagent.model.notice import Notice

WALL = 1_700_000_000.0


def notice(text: str = "bad", name: str = "web") -> Notice:
    return Notice("Service", "InvalidField", "Translate", text, "shop", name)


def drain(book: EventBook, now: float, until: float) -> list[tuple[float, str, int]]:
    """Tell whatever is due up to `until`: (when, about what, count)."""
    told: list[tuple[float, str, int]] = []
    while True:
        series, wait = book.next(now)
        if series is None:
            if wait is None or now + wait > until:
                return told
            now += max(wait, 0.001)
            continue
        book.taken(series, now)
        book.told(series, series.count, now, "event")
        told.append((now, series.notice.name, series.count))


def test_the_first_time_is_told_at_once() -> None:
    book = EventBook(0.0)
    book.note(notice(), 5.0, WALL)
    series, _ = book.next(5.0)
    assert series is not None
    assert (series.count, series.first) == (1, WALL)


def test_without_notices_there_is_nothing_to_wait_for() -> None:
    assert EventBook(0.0).next(7.0) == (None, None)


def test_what_repeats_is_counted_and_told_ever_less_often() -> None:
    book = EventBook(0.0)
    told: list[tuple[float, str, int]] = []
    for second in range(4 * 3600):
        book.note(notice(), float(second), WALL + second)
        told += drain(book, float(second), float(second))
    assert told[0] == (0.0, "web", 1)
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(told)]
    assert gaps[0] == FIRST_AGAIN
    assert max(gaps) == LONGEST_AGAIN
    assert all(count == int(when) + 1 for when, _, count in told)
    assert len(told) < 16


def test_what_is_delayed_is_told_later_with_all_that_came_meanwhile() -> None:
    book = EventBook(0.0)
    book.note(notice(), 0.0, WALL, delay=20.0)
    book.note(notice(), 3.0, WALL, delay=20.0)
    assert book.next(0.0) == (None, 20.0)
    assert drain(book, 0.0, 60.0) == [(20.0, "web", 2)]


def test_one_object_does_not_take_the_place_of_others() -> None:
    book = EventBook(0.0)
    for number in range(50):
        book.note(notice(f"problem {number}", "bad"), 0.0, WALL)
    book.note(notice("one", "good"), 0.0, WALL)
    told = [name for _, name, _ in drain(book, 0.0, 1.0)]
    assert told.count("bad") == SUBJECT_BURST
    assert told.count("good") == 1


def test_a_notice_that_comes_again_after_long_is_a_new_one() -> None:
    book = EventBook(0.0)
    book.note(notice(), 0.0, WALL)
    assert drain(book, 0.0, 0.0) == [(0.0, "web", 1)]
    later = FORGOTTEN_AFTER + 1
    book.note(notice(), later, WALL + later)
    series, _ = book.next(later)
    assert series is not None
    assert (series.count, series.event_name, series.first) == (1, "", WALL + later)


def test_what_does_not_fit_is_dropped_and_counted_and_room_comes_back() -> None:
    book = EventBook(0.0)
    for number in range(MOST + 10):
        book.note(notice(name=f"s{number}"), 0.0, WALL)
    assert book.dropped == 10
    drain(book, 0.0, SECONDS_BETWEEN * MOST)
    book.note(notice(name="late"), 1e6, WALL)
    assert book.dropped == 10
    assert drain(book, 1e6, 1e6) == [(1e6, "late", 1)]


STEPS = st.lists(
    st.tuples(st.floats(0.0, 100.0), st.integers(0, 40), st.integers(0, 5), st.integers(1, 3)), max_size=120
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_input_makes_a_storm(steps: list[tuple[float, int, int, int]]) -> None:
    book, now = EventBook(0.0), 0.0
    told: list[tuple[float, str, int]] = []
    for pause, name, text, times in steps:
        told += drain(book, now, now + pause)
        now += pause
        for _ in range(times):
            book.note(notice(str(text), f"s{name}"), now, WALL + now)
    told += drain(book, now, now + 500.0)
    moments = [when for when, _, _ in told]
    for begin, first in enumerate(moments):
        for end, last in enumerate(moments[begin:], 1):
            assert end <= BURST + (last - first) / SECONDS_BETWEEN + 1e-6
    for subject in {about for _, about, _ in told}:
        own = [when for when, about, _ in told if about == subject]
        for end, last in enumerate(own, 1):
            assert end <= SUBJECT_BURST + (last - own[0]) / SUBJECT_SECONDS + 1e-6


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_nothing_is_lost_but_what_is_counted_as_dropped(steps: list[tuple[float, int, int, int]]) -> None:
    book, now = EventBook(0.0), 0.0
    noted: dict[Notice, int] = {}
    for _pause, name, text, times in steps:
        for _ in range(times):
            one = notice(str(text), f"s{name}")
            book.note(one, now, WALL)
            noted[one] = noted.get(one, 0) + 1
    told: dict[str, int] = {}
    for _, subject, times in drain(book, now, 1e9):
        told[subject] = told.get(subject, 0) + times
    wanted: dict[str, int] = {}
    for seen, count in noted.items():
        wanted[seen.name] = wanted.get(seen.name, 0) + count
    assert sum(told.values()) + book.dropped == sum(wanted.values())
    if not book.dropped:
        assert told == wanted
