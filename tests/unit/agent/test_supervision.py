"""What the service manager hears, on a socket like its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from pyagent.agent.facts import Facts
from pyagent.agent.supervision import Notifier, Supervision, notifier

PATIENCE = 30.0
WATCHDOG = 0.03


class Manager:
    """A service manager's end: keeps every assignment it was sent."""

    def __init__(self, address: str) -> None:
        self.heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0.01)
        self._socket.bind(address)

    def listen(self) -> None:
        try:
            self.heard += self._socket.recv(65536).decode().split("\n")
        except TimeoutError:
            return

    def wait_for(self, assignment: str, times: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.heard.count(assignment) < times:
            assert time.monotonic() < deadline, f"{assignment} did not come; {self.heard}"
            self.listen()

    def listen_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.listen()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def to(tmp_path: Path, manager: Manager) -> Notifier:
    return Notifier(str(tmp_path / "notify"), WATCHDOG)


def become_ready(facts: Facts) -> None:
    facts.listed("Service")
    facts.listed("EndpointSlice")
    facts.applied(0.0)
    facts.hooks([("connect4", True)])
    facts.probed(ok=True)


def answered() -> Future[None]:
    answer: Future[None] = Future()
    answer.set_result(None)
    return answer


def test_ready_is_told_once_and_not_before_readyz_says_so(manager: Manager, to: Notifier) -> None:
    facts = Facts()
    supervision = Supervision(to, facts, answered)
    supervision.start()
    manager.wait_for("STATUS=not ready: EndpointSlices are not listed yet")
    manager.wait_for("WATCHDOG=1")
    assert "READY=1" not in manager.heard
    become_ready(facts)
    manager.wait_for("READY=1")
    manager.wait_for("WATCHDOG=1", manager.heard.count("WATCHDOG=1") + 2)
    facts.probed(ok=False, error="connect4 is silent")
    manager.wait_for("STATUS=not ready: the self-probe saw no translation: connect4 is silent")
    facts.probed(ok=True)
    manager.wait_for("STATUS=serving", 2)
    supervision.stop()
    manager.wait_for("STOPPING=1")
    assert manager.heard.count("READY=1") == 1


def test_a_loop_that_hangs_gives_no_sign_of_life_and_is_asked_once(manager: Manager, to: Notifier) -> None:
    facts = Facts()
    become_ready(facts)
    asked: list[Future[None]] = []

    def ask() -> Future[None]:
        asked.append(Future())
        return asked[-1]

    supervision = Supervision(to, facts, ask)
    supervision.start()
    manager.wait_for("READY=1")
    manager.listen_for(10 * WATCHDOG)
    assert "WATCHDOG=1" not in manager.heard
    assert len(asked) == 1
    asked[0].set_result(None)
    manager.wait_for("WATCHDOG=1")
    supervision.stop()


def test_a_watchdog_that_nobody_asked_for_is_not_fed(manager: Manager, tmp_path: Path) -> None:
    facts = Facts()
    become_ready(facts)
    supervision = Supervision(Notifier(str(tmp_path / "notify")), facts, answered)
    supervision.start()
    manager.wait_for("READY=1")
    supervision.stop()
    manager.wait_for("STOPPING=1")
    assert "WATCHDOG=1" not in manager.heard


def test_an_address_in_the_abstract_namespace() -> None:
    name = f"kubesock-test-{time.monotonic_ns()}"
    manager = Manager("\0" + name)
    found = notifier({"NOTIFY_SOCKET": "@" + name}, 1)
    assert found is not None
    assert found.send("READY=1")
    manager.wait_for("READY=1")
    manager.close()
    found.close()


def test_a_service_manager_that_is_gone_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    to = Notifier(str(tmp_path / "nobody"))
    assert not to.send("READY=1")
    assert not to.send("READY=1")
    to.close()
    assert caplog.text.count("the service manager is not told anything") == 1


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_service_manager_nothing_is_told(environ: dict[str, str]) -> None:
    assert notifier(environ, 1) is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_is_for_the_process_that_is_named(environ: dict[str, str], seconds: float) -> None:
    found = notifier({"NOTIFY_SOCKET": "/nowhere", **environ}, 7)
    assert found is not None
    assert found.watchdog_seconds == pytest.approx(seconds)
    found.close()
