"""A running server, or a place for a configuration file, for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.agent.http_server import HttpServer


@pytest.fixture
def server() -> Iterator[HttpServer]:
    running = HttpServer("test-http", retry_seconds=0.05)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.conf"
