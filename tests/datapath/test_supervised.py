"""An agent under a service manager that speaks sd_notify(3)."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.datapath.ground import Manifests, StartAgent

pytestmark = pytest.mark.kernel

PATIENCE = 30.0


def test_the_service_manager_hears_that_the_agent_serves_lives_and_stops(
    start_agent: StartAgent, manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        heard: list[str] = []

        def wait_for(assignment: str) -> None:
            deadline = time.monotonic() + PATIENCE
            while assignment not in heard:
                assert time.monotonic() < deadline, heard
                heard.extend(manager.recv(65536).decode().split("\n"))

        agent = start_agent(manifests.folder, ready=False)
        wait_for("READY=1")
        assert agent.get("/readyz")[0] == 200
        wait_for("WATCHDOG=1")
        assert agent.stop() == 0
        wait_for("STOPPING=1")
