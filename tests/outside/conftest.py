"""Fixtures: the namespaces, and the programs on one node's uplink."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo.sandbox import Sandbox, remove_leftovers
from tests.outside.lan import Lan
from tests.outside.served import Served


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    remove_leftovers("test")
    with Sandbox.create("test") as made:
        yield made


@pytest.fixture(scope="session")
def lan(sandbox: Sandbox) -> Lan:
    return Lan(sandbox)


@pytest.fixture(scope="session")
def served_once(sandbox: Sandbox, lan: Lan, programs: Path) -> Iterator[Served]:
    made = Served(lan, sandbox.bpffs / "outside", programs)
    yield made
    made.close()


@pytest.fixture
def served(served_once: Served) -> Served:
    """With nothing served, and no flows of earlier tests."""
    served_once.serve([])
    served_once.forget_flows()
    return served_once
