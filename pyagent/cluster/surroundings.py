"""Time, chance and limits around a reflector, so that tests can replace them; and what it counts."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds."""

    read: float = 90.0  # of silence until a stream counts as dead; bookmarks come every minute
    watch: float = 290.0  # a watch's length, ±10 %; below the idle limits of common proxies
    relist_after: float = 2700.0  # a full list now and then, ±33 %
    relist_bytes_a_second: float = 4000.0  # that such lists may come to; large ones come less often
    confirm_empty: float = 2.0
    absent_api: float = 900.0  # until an optional API is asked for again, ±20 %
    healthy: float = 1.0  # a stream that lived this long was no refusal in disguise
    backoff_first: float = 0.2
    backoff_longest: float = 30.0


@dataclass
class Surroundings:
    """Time and chance, replaced in tests."""

    now: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    stop: threading.Event = field(default_factory=threading.Event)

    def sleep(self, seconds: float) -> None:
        """Raises `Stopped` at once when the source stops."""
        if self.stop.wait(seconds):
            raise Stopped


class Stopped(Exception):
    """The source is to end."""


@dataclass
class Figures:
    """What one kind cost so far; read by the metrics."""

    requests: int = 0
    lists: int = 0
    streams: int = 0
    events: int = 0
    failures: int = 0
    last_byte: float = 0.0  # monotonic seconds; 0: nothing yet


DEFAULT_TIMING = Timing()
