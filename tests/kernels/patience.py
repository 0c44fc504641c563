"""A pytest plugin for slow machines: the compiler gets the time that it needs under emulation."""

from __future__ import annotations

from pyagent.kernel import loader

COMPILE_SECONDS = 540


def pytest_configure() -> None:
    loader.COMPILE_SECONDS = COMPILE_SECONDS
