"""A client that lives through several steps of a test, its sockets open in between."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pyagent.demo.children import spawn
from tests.datapath.ground.cluster import InClient

T = TypeVar("T")
STEP_SECONDS = 20.0
REPEAT_SECONDS = 60.0
PAUSE_SECONDS = 0.01


class Steps(Generic[T]):
    """`next()` runs the client to its next `yield`, and has what it yields."""

    def __init__(self, talk: socket.socket) -> None:
        self._socket = talk
        self._talk = talk.makefile("rwb")

    def next(self) -> T:
        self.begin()
        return self.finish()

    def begin(self) -> None:
        """Let the client run; the caller may do something meanwhile, and then `finish`."""
        self._talk.write(b"?")
        self._talk.flush()

    def ready(self) -> bool:
        """Whether `finish` has its answer at once."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def finish(self) -> T:
        try:
            succeeded, value = pickle.load(self._talk)
        except EOFError:
            raise AssertionError("the client ended") from None
        if not succeeded:
            raise AssertionError(f"in the client:\n{value}")
        return value  # type: ignore[no-any-return]


@contextlib.contextmanager
def in_steps(client: InClient, work: Callable[[], Iterator[T]]) -> Iterator[Steps[T]]:
    """Run a generator inside (client namespace, cgroup), step by step; killed at the end."""
    here, there = socket.socketpair()
    here.settimeout(STEP_SECONDS)
    with here, there:
        child = spawn(lambda: _run(work, there, here), netns=client.netns, cgroup=client.cgroup)
        there.close()
        try:
            yield Steps(here)
        finally:
            child.kill()


def _run(work: Callable[[], Iterator[T]], talk: socket.socket, other: socket.socket) -> None:
    other.close()
    going = work()
    with talk.makefile("rwb") as stream:
        while stream.read(1):
            try:
                answer: tuple[bool, object] = (True, next(going))
            except BaseException:  # noqa: BLE001  told to the test
                answer = (False, traceback.format_exc())
            pickle.dump(answer, stream)
            stream.flush()
    os._exit(0)


@contextlib.contextmanager
def repeating(client: InClient, work: Callable[[], str]) -> Iterator[Callable[[], Counter[str]]]:
    """Do something in a client over and over, until the function that this gives is called.

    Returns:
        How often `work` said what, from the call of that function. At least once before it can be called.
    """
    flags = mmap.mmap(-1, 2)  # the parent says stop in the first, the client has begun in the second

    def repeat() -> Iterator[Counter[str]]:
        seen: Counter[str] = Counter()
        deadline = time.monotonic() + REPEAT_SECONDS
        while not flags[0] and time.monotonic() < deadline:
            seen[work()] += 1
            flags[1] = 1
            time.sleep(PAUSE_SECONDS)
        yield seen

    def stop() -> Counter[str]:
        flags[0] = 1
        return steps.finish()

    with in_steps(client, repeat) as steps:
        steps.begin()
        while not flags[1] and not steps.ready():
            time.sleep(PAUSE_SECONDS)
        yield stop
