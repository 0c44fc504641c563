"""Where every thread stands now: what an operator needs when the agent seems to hang."""

from __future__ import annotations

import sys
import threading
import traceback


def stacks() -> str:
    """The stack of each Python thread, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, '?')}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
