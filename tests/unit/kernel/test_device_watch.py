"""Devices are looked at until the watch is stopped, however long a look takes."""

from __future__ import annotations

import threading

from pyagent.agent.unforeseen import ThreadEnded, threads_watched
from pyagent.kernel.devices import DeviceWatch

PATIENCE = 30.0


def test_a_look_that_outlasts_the_stop_ends_quietly() -> None:
    """It may compile for longer than anybody waits for it; what it would wait for next is closed then."""
    looking, may_end = threading.Event(), threading.Event()
    ended: list[ThreadEnded] = []

    def look() -> None:
        looking.set()
        assert may_end.wait(PATIENCE)

    with threads_watched(ended.append):
        watch = DeviceWatch(look, lambda: PATIENCE)
        watch._thread.join = lambda timeout=None: None  # type: ignore[method-assign]
        watch.start()
        assert looking.wait(PATIENCE)
        watch.stop()
        may_end.set()
        threading.Thread.join(watch._thread, PATIENCE)
    assert not watch._thread.is_alive()
    assert ended == []
