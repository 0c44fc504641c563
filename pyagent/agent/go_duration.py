"""Durations as Go writes them (`time.ParseDuration`, `Duration.String`): 30s, 1h5m, 1.5s, 250ms."""

from __future__ import annotations

import re

from pyagent.model.failures import InvalidField

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5
    "μs": 1_000,  # U+03BC
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_LONGEST = 2**63  # nanoseconds: Go's type holds 292 years


def parse_duration(text: str) -> float:
    """Seconds of a duration; 0 needs no unit, every other number does.

    Raises:
        InvalidField: the text is no duration.
    """
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    nanoseconds, at = 0.0, 0
    if unsigned != "0":
        while part := _PART.match(unsigned, at):
            nanoseconds += float(part[1]) * _NANOSECONDS[part[2]]
            at = part.end()
        if at == 0 or at != len(unsigned) or nanoseconds >= _LONGEST:
            raise InvalidField("not a duration, write it like 30s, 1h5m or 250ms", text)
    return (-nanoseconds if text.startswith("-") else nanoseconds) / 1e9


def format_duration(seconds: float) -> str:
    """What Go prints: `0s`, `250ms`, `30s`, `1h5m0s`."""
    nanoseconds = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 and nanoseconds else ""
    if nanoseconds == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if nanoseconds < _NANOSECONDS[unit] * 1000:
            return f"{sign}{_decimal(nanoseconds, _NANOSECONDS[unit])}{unit}"
    minutes, rest = divmod(nanoseconds, _NANOSECONDS["m"])
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _NANOSECONDS['s'])}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return sign + (f"{hours}h{text}" if hours else text)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{str(rest).zfill(digits).rstrip('0')}"
