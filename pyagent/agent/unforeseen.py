"""What nobody foresaw in a thread: the agent ends and is begun again, not to go on with a part missing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pyagent.model.failures import KubesockError

log = logging.getLogger(__name__)


class ThreadEnded(KubesockError):
    """A part of the agent is gone."""

    def __init__(self, thread: str, error: str) -> None:
        super().__init__(
            f"the agent's thread {thread} ended: {error}: unforeseen, please report it with the log; what is "
            "attached goes on serving, start the agent again"
        )


@contextmanager
def threads_watched(end: Callable[[ThreadEnded], None]) -> Iterator[None]:
    """Have `end` called, in the thread that ends, when an exception leaves any thread.

    The loop's own thread is not meant: what it raises reaches its caller.
    """

    def tell(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is SystemExit:
            return
        name = ended.thread.name if ended.thread is not None else "without a name"
        told = (ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback)
        log.critical("thread %s ended", name, exc_info=told)
        end(ThreadEnded(name, f"{ended.exc_type.__name__}: {ended.exc_value}"))

    before, threading.excepthook = threading.excepthook, tell
    try:
        yield
    finally:
        threading.excepthook = before
