"""Log lines as their readers see them: people, and programs that read JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.agent.logs import MAX_REMEMBERED, MAX_TEXT, REPEAT_SECONDS, printable, set_up

log = logging.getLogger("pyagent.agent.loop")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Written:
    """What a handler wrote, and the clock it goes by."""

    def __init__(self, stream: io.StringIO, log_format: str, verbosity: int) -> None:
        self.now = 0.0
        self.stream = stream
        self.handler = set_up(log_format, verbosity, stream, lambda: self.now)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def messages(self) -> list[str]:
        return [entry["msg"] for entry in self.objects]


Start = Callable[..., Written]


@pytest.fixture
def start() -> Iterator[Start]:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions

    def started(log_format: str = "json", verbosity: int = 0, stream: io.StringIO | None = None) -> Written:
        return Written(stream or io.StringIO(), log_format, verbosity)

    yield started
    root.handlers[:], level, logging.raiseExceptions = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_one_json_object_with_its_extras(start: Start) -> None:
    written = start()
    log.warning("map %s is full", "frontends", extra={"service": "shop/web", "entries": 16, "full": True})
    (entry,) = written.objects
    assert entry.pop("ts").endswith("Z")
    assert entry == {
        "level": "warn",
        "msg": "map frontends is full",
        "component": "agent.loop",
        "service": "shop/web",
        "entries": 16,
        "full": True,
    }


def test_lines_are_json_where_nobody_sits_and_text_on_a_terminal(start: Start) -> None:
    piped = start("auto")
    log.info("hooks attached")
    assert piped.messages == ["hooks attached"]
    terminal = start("auto", stream=Terminal())
    log.info("hooks attached", extra={"cgroup": "/sys/fs/cgroup"})
    (line,) = terminal.lines
    assert line[12:] == " INFO  agent.loop: hooks attached cgroup=/sys/fs/cgroup"


def test_the_format_can_be_asked_for(start: Start) -> None:
    written = start("json", stream=Terminal())
    log.info("a")
    assert written.messages == ["a"]
    written = start("text")
    log.info("a")
    assert written.lines[0].endswith("agent.loop: a")


@pytest.mark.parametrize(("verbosity", "shown"), [(0, False), (3, False), (4, True), (9, True)])
def test_debug_lines_need_verbosity_four(start: Start, verbosity: int, shown: bool) -> None:
    written = start(verbosity=verbosity)
    log.debug("27 writes")
    assert bool(written.lines) is shown


def test_repeats_are_counted_and_told_when_their_time_is_over(start: Start) -> None:
    written = start()
    for _ in range(50):
        log.error("cannot connect")
    assert written.messages == ["cannot connect"]
    written.now = REPEAT_SECONDS
    log.info("something else")
    assert written.messages == ["cannot connect", "cannot connect (repeated 49 times)", "something else"]


def test_a_line_after_a_quiet_time_is_written_as_it_is(start: Start) -> None:
    written = start()
    log.error("cannot connect")
    written.now = REPEAT_SECONDS
    log.error("cannot connect")
    assert written.messages == ["cannot connect", "cannot connect"]


def test_lines_about_different_things_are_no_repeats(start: Start) -> None:
    written = start()
    for name in ("a", "b"):
        log.warning("%s is bad", name)
        log.warning("bad object", extra={"service": name})
    log.error("bad object", extra={"service": "a"})  # another level
    assert written.messages == ["a is bad", "bad object", "b is bad", "bad object", "bad object"]


def test_what_was_held_back_is_told_at_the_end(start: Start) -> None:
    written = start()
    log.error("cannot connect")
    log.error("cannot connect")
    written.handler.close()
    assert written.messages == ["cannot connect", "cannot connect (repeated 1 times)"]


def test_the_memory_of_lines_is_bounded(start: Start) -> None:
    written = start()
    log.error("first")
    log.error("first")
    for n in range(MAX_REMEMBERED):
        log.info("line %d", n)
    assert "first (repeated 1 times)" in written.messages
    log.error("first")
    assert written.messages[-1] == "first"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_untrusted_text_cannot_make_a_line_of_its_own(start: Start, log_format: str) -> None:
    written = start(log_format)
    log.warning("bad name %s", "x\n12:00:00 INFO all is well\x1b[2J\u202e", extra={"field": "a\r\nb\x00"})
    (line,) = written.lines
    assert line.isprintable()
    assert "x\\x0a12:00:00" in line.replace("\\\\", "\\")
    assert "\\x1b[2J\\u202e" in line.replace("\\\\", "\\")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_huge_text_is_cut_and_says_so(start: Start, log_format: str) -> None:
    written = start(log_format)
    log.warning("y" * 1_000_000)
    (line,) = written.lines
    assert len(line) < MAX_TEXT + 200
    assert "… (1000000 characters)" in line


def test_an_exception_comes_with_its_traceback(start: Start) -> None:
    written = start()
    try:
        raise ValueError("no such\x1bthing")
    except ValueError:
        log.exception("page failed")
    (entry,) = written.objects
    assert entry["level"] == "error"
    assert entry["error"].startswith("Traceback (most recent call last):\n")
    assert entry["error"].endswith("ValueError: no such\\x1bthing")


def test_a_broken_stream_does_not_end_the_agent(start: Start) -> None:
    written = start()
    written.stream.close()
    log.error("nobody reads this")


def test_warnings_of_the_library_are_log_lines_too(start: Start) -> None:
    written = start()
    logging.getLogger("py.warnings").warning("deprecated")
    assert written.objects[0]["component"] == "py.warnings"


@given(st.text())
def test_printable_text_is_printable_and_unchanged_where_it_was(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text
    kept = printable(text, lines=True)
    assert kept.replace("\n", "").isprintable()
    assert kept.count("\n") == text.count("\n")
