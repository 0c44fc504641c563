"""A running server for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyagent.agent.http_server import HttpServer


@pytest.fixture
def server() -> Iterator[HttpServer]:
    running = HttpServer("test-http", retry_seconds=0.05)
    running.start()
    yield running
    running.stop()
