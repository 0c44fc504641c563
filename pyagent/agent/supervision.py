"""Tells the service manager how the agent is: sd_notify(3), and the watchdog of sd_watchdog_enabled(3)."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotAnswered
from typing import Final

from pyagent.agent.facts import Facts

log = logging.getLogger(__name__)

ALIVE: Final = "WATCHDOG=1"
LOOK_SECONDS = 0.5
"""Between two looks at readiness."""

BEATS = 3
"""Signs of life within the time after which the service manager ends us."""


class Notifier:
    """A datagram socket to the service manager. Usable from one thread at a time."""

    def __init__(self, address: str, watchdog_seconds: float = 0.0) -> None:
        """
        Args:
            address: of $NOTIFY_SOCKET; a leading `@` stands for the abstract namespace (unix(7)).
            watchdog_seconds: after which silence counts as a hang; 0: never.
        """
        self.watchdog_seconds = watchdog_seconds
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(1.0)
        self._failing = False

    def send(self, *assignments: str) -> bool:
        """Whether the service manager took it; a failure is logged once until it works again."""
        try:
            self._socket.sendto("\n".join(assignments).encode(errors="replace"), self._address)
        except OSError as error:
            if not self._failing:
                log.warning("the service manager is not told anything: %s: %s", self._address, error)
            self._failing = True
            return False
        self._failing = False
        return True

    def close(self) -> None:
        self._socket.close()


def notifier(environ: Mapping[str, str], process: int) -> Notifier | None:
    """How to reach the service manager that started this process; None without one.

    Args:
        process: our own id; the watchdog is for the process that $WATCHDOG_PID names.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    meant = environ.get("WATCHDOG_PID", str(process)) == str(process)
    microseconds = environ.get("WATCHDOG_USEC", "")
    return Notifier(address, int(microseconds) / 1e6 if meant and microseconds.isdecimal() else 0.0)


class Supervision:
    """READY=1 when /readyz first answers 200, then a sign of life as long as the loop answers questions.

    Args:
        ask_loop: an answer that only the loop's thread gives, so that a loop that hangs is found.
    """

    def __init__(self, to: Notifier, facts: Facts, ask_loop: Callable[[], Future[None]]) -> None:
        self._to = to
        self._facts = facts
        self._ask_loop = ask_loop
        self._told_ready = False
        self._told_status = ""
        self._asked: Future[None] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervision", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Also says that we stop."""
        self._stopping.set()
        self._thread.join(timeout=2)
        self._to.send("STOPPING=1", "STATUS=stopping; what is attached goes on serving")
        self._to.close()

    def _run(self) -> None:
        pause = LOOK_SECONDS
        if self._to.watchdog_seconds:
            pause = min(pause, self._to.watchdog_seconds / BEATS)
        while not self._stopping.wait(pause):
            self._tell_standing()
            if self._to.watchdog_seconds and self._loop_answers(pause):
                self._to.send(ALIVE)

    def _tell_standing(self) -> None:
        ready, reasons = self._facts.ready()
        status = "serving" if ready else f"not ready: {reasons[0]}"
        if ready and not self._told_ready:
            self._told_ready = self._to.send("READY=1", f"STATUS={status}")
            self._told_status = status
        elif status != self._told_status and self._to.send(f"STATUS={status}"):
            self._told_status = status

    def _loop_answers(self, seconds: float) -> bool:
        """One question at a time: a loop that hangs must not find a heap of them."""
        if self._asked is None:
            self._asked = self._ask_loop()
        try:
            self._asked.result(seconds)
        except NotAnswered:
            return False
        self._asked = None
        return True


def supervised(facts: Facts, ask_loop: Callable[[], Future[None]]) -> tuple[Supervision, ...]:
    """For the service manager that started this process, if one did."""
    to = notifier(os.environ, os.getpid())
    return () if to is None else (Supervision(to, facts, ask_loop),)
