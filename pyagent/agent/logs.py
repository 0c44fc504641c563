"""Log lines: one JSON object each, or text on a terminal. Repeats are counted instead of written.

A line's text is the same for the same thing each time; what varies for a reader's filter goes into `extra`.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TextIO

import msgspec

REPEAT_SECONDS = 60.0
MAX_REMEMBERED = 1024
MAX_TEXT = 4000
DEBUG_VERBOSITY = 4  # klog's level for debugging

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "repeated"}
_LEVELS = {logging.WARNING: "warn"}
_PACKAGE = "pyagent."


def set_up(
    log_format: str = "auto",
    verbosity: int = 0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> logging.Handler:
    """Send all log lines to stderr, as the only handler.

    Args:
        log_format: json, text, or auto: text on a terminal.
        verbosity: 4 and more shows debug lines.
        stream: instead of stderr.
    """
    stream = sys.stderr if stream is None else stream
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    handler = RateLimited(stream, clock)
    handler.setFormatter(TextLines() if as_text else JsonLines())
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbosity >= DEBUG_VERBOSITY else logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a broken stderr must not end the agent
    return handler


class RateLimited(logging.StreamHandler[TextIO]):
    """Writes a line once in a while: its repeats are counted and told with the next one that is written."""

    def __init__(self, stream: TextIO, clock: Callable[[], float], seconds: float = REPEAT_SECONDS) -> None:
        """Args: seconds: for which the repeats of a line are held back."""
        super().__init__(stream)
        self._clock = clock
        self._seconds = seconds
        self._held: OrderedDict[tuple[object, ...], _Held] = OrderedDict()
        self._held_lock = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        for due in self._take(record):
            super().emit(due)

    def close(self) -> None:
        """Tell what was held back."""
        with self._held_lock:
            left = [held.summary() for held in self._held.values() if held.repeated]
            self._held.clear()
        for record in left:
            super().emit(record)
        super().close()

    def _take(self, record: logging.LogRecord) -> list[logging.LogRecord]:
        """The records to write now: ended repetitions, then this one unless it repeats."""
        now = self._clock()
        key = (record.name, record.levelno, record.getMessage(), repr(_extras(record)))
        due = []
        with self._held_lock:
            while self._held:
                oldest, held = next(iter(self._held.items()))
                if held.until > now and len(self._held) < MAX_REMEMBERED:
                    break
                del self._held[oldest]
                if held.repeated:
                    due.append(held.summary())
            if key in self._held:
                self._held[key].repeated += 1
                self._held[key].record = record
            else:
                self._held[key] = _Held(record, now + self._seconds)
                due.append(record)
        return due


class _Held:
    """A line that was written, and how often it came again since."""

    __slots__ = ("record", "repeated", "until")

    def __init__(self, record: logging.LogRecord, until: float) -> None:
        self.record = record
        self.until = until
        self.repeated = 0

    def summary(self) -> logging.LogRecord:
        """The last one of the repeats, with their number."""
        summary = logging.makeLogRecord(vars(self.record))
        summary.repeated = self.repeated
        return summary


class JsonLines(logging.Formatter):
    """`{"ts": …, "level": …, "msg": …, "component": …}` and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": _when(record.created),
            "level": _level(record),
            "msg": printable(_message(record)),
            "component": record.name.removeprefix(_PACKAGE),
        }
        for name, value in _extras(record).items():
            fields[name] = value if isinstance(value, int | float | bool) else printable(str(value))
        if record.exc_info:
            fields["error"] = printable(self.formatException(record.exc_info), lines=True)
        return msgspec.json.encode(fields).decode()


class TextLines(logging.Formatter):
    """`12:00:01.250 WARN  agent.loop: text key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        time_of_day = dt.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006
        parts = [
            f"{time_of_day} {_level(record).upper():5} {record.name.removeprefix(_PACKAGE)}:",
            printable(_message(record)),
            *(f"{name}={printable(str(value))}" for name, value in _extras(record).items()),
        ]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + printable(self.formatException(record.exc_info), lines=True)
        return line


def printable(text: str, *, lines: bool = False) -> str:
    """Text that cannot forge a line or move a cursor: bounded, and escaped where it is not printable.

    Args:
        lines: keep line ends, as in a traceback.
    """
    shown = text[:MAX_TEXT]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() or (lines and c == "\n") else _escaped(c) for c in shown)
    return shown if len(text) <= MAX_TEXT else f"{shown}… ({len(text)} characters)"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _message(record: logging.LogRecord) -> str:
    repeated = getattr(record, "repeated", 0)
    message = record.getMessage()
    return f"{message} (repeated {repeated} times)" if repeated else message


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelno, record.levelname.lower())


def _when(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}
