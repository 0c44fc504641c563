"""Durations in Go's syntax."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.agent.go_duration import format_duration, parse_duration
from pyagent.model.failures import InvalidField

READ = {
    "0": 0,
    "0s": 0,
    "30s": 30,
    "1h5m": 3900,
    "2h22m": 8520,
    "1.5s": 1.5,
    ".5s": 0.5,
    "1.s": 1,
    "250ms": 0.25,
    "10us": 1e-5,
    "10µs": 1e-5,
    "10μs": 1e-5,
    "3ns": 3e-9,
    "-1m": -60,
    "+1m": 60,
    "15m0s": 900,
    "1m1m": 120,
}

REFUSED = [
    "",
    "30",
    "s",
    "1d",
    "1 s",
    " 1s",
    "1s ",
    "1s5",
    "--1s",
    "1,5s",
    "1e3s",
    "٣s",
    ".s",
    "292y",
    "3000000h",
]

WRITTEN = {
    0: "0s",
    1: "1s",
    30: "30s",
    60: "1m0s",
    900: "15m0s",
    3900: "1h5m0s",
    86400: "24h0m0s",
    1.5: "1.5s",
    61.25: "1m1.25s",
    0.25: "250ms",
    0.0015: "1.5ms",
    1e-5: "10µs",
    3e-9: "3ns",
    -60: "-1m0s",
}


@pytest.mark.parametrize(("text", "seconds"), READ.items())
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize("text", REFUSED)
def test_what_go_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        parse_duration(text)


@pytest.mark.parametrize(("seconds", "text"), WRITTEN.items())
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_what_is_written_can_be_read_again(nanoseconds: int) -> None:
    seconds = nanoseconds / 1e9
    assert round(parse_duration(format_duration(seconds)) * 1e9) == round(seconds * 1e9)
