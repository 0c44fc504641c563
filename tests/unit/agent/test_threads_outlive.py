"""Threads that a node cannot do without live on when the kernel refuses them something for a while."""

from __future__ import annotations

import errno
import queue
import subprocess
from collections.abc import Callable, Collection, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyagent.agent import grace, stale
from pyagent.agent.facts import Facts
from pyagent.agent.grace import GraceKeeper
from pyagent.agent.stale import BackendsUsed, Reaper
from pyagent.datapath.held import Freed
from pyagent.kernel.grace import GracePeriod
from pyagent.kernel.loader import Unit
from pyagent.model.address import Protocol
from pyagent.model.failures import KernelRefused

PATIENCE = 30.0
Used = tuple[int, int, int, int, bytes, int]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (grace, stale):
        monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)


class Refusing:
    """A call that is refused at first."""

    def __init__(self, times: int, error: Exception) -> None:
        self.left = times
        self._error = error

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise self._error


def test_room_returns_after_a_grace_period_that_could_not_be_had() -> None:
    refuse = Refusing(3, OSError(errno.ENOMEM, "no memory"))
    ended: queue.SimpleQueue[tuple[Freed, ...]] = queue.SimpleQueue()
    keeper = GraceKeeper(cast("GracePeriod", SimpleNamespace(wait=refuse)), ended.put)
    freed = cast("Freed", object())
    keeper.start()
    keeper.free(freed)
    assert ended.get(timeout=PATIENCE) == (freed,)
    assert not refuse.left, "no room returns before"
    keeper.stop()


class OneFlow:
    """A connection from outside to a backend."""

    used_backend: Used = (1, 1, 1, 1, bytes(16), 8080)

    def used(self, protocols: Collection[Protocol]) -> set[Used]:
        return {self.used_backend}

    def end(self, doomed: Iterable[Used], protocols: Collection[Protocol]) -> int:
        return 0


def test_stale_sockets_are_looked_for_after_a_walk_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Refusing(2, KernelRefused("connection table: too many open files"))

    def walk(_link: int) -> tuple[()]:
        refuse()
        return ()

    monkeypatch.setattr(stale, "connections", walk)
    asked: queue.SimpleQueue[BackendsUsed] = queue.SimpleQueue()
    ask: Callable[[BackendsUsed], None] = asked.put
    reaper = Reaper(lambda: 7, Facts(), ask, frozenset({Protocol.UDP}), lambda _ended: None, OneFlow())
    reaper.start()
    reaper.look()
    assert asked.get(timeout=PATIENCE).backends == {OneFlow.used_backend}
    assert not refuse.left
    reaper.stop()


def test_a_compiler_that_hangs_is_a_failure_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_more: object) -> None:
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", hang)
    specs = {"backends": SimpleNamespace(max_entries=64)}
    unit = Unit("translate.c", cast("Any", SimpleNamespace(specs=specs, folder="/x")))
    with pytest.raises(KernelRefused, match="took more than 120 s"):
        unit.load({})
