"""What the screen is made with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.remembered import Remembered
from pyagent.view.terminal.sample import Reader
from pyagent.view.terminal.view_kinds import Request


class Settings(NamedTuple):
    """Everything from outside.

    Attributes:
        explain: (target, client, columns) -> the text of `kubesock explain`; called in a thread.
        chosen: choices of the user; changed as they change.
        state_file: where these are kept; None: nowhere.
        clock: the monotonic clock that `Sample.taken` is of.
    """

    reader: Reader
    node: str
    kernel: str
    explain: Callable[[str, str, int], str]
    chosen: Remembered
    marks: Marks = Marks(True)
    interval: float = 1.0
    first: Request = Request("services")
    state_file: Path | None = None
    clock: Callable[[], float] = time.monotonic
