"""Waiting for what comes by itself. A test that gives up says what it saw; how long it took is no matter."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 20.0


def wait_for(look: Callable[[], T], wanted: Callable[[T], bool], what: str, patience: float = PATIENCE) -> T:
    """The first thing seen that is as wanted.

    Args:
        patience: seconds until it gives up.

    Raises:
        AssertionError: it did not come; the text has what was seen last.
    """
    deadline = time.monotonic() + patience
    while not wanted(seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come; last seen: {seen!r}")
        time.sleep(0.02)
    return seen
