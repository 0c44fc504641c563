"""A server and sources that follow it, with the waits of a day shrunk to moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.cluster.access import Access, Credentials
from pyagent.cluster.addresses import Addresses
from pyagent.cluster.api_source import ApiSource, NodeChoice, Wanted
from pyagent.cluster.surroundings import Surroundings, Timing
from pyagent.model.source_events import Emit
from tests.cluster.support import Recorder
from tests.fakes.api_server import ApiServer

QUICK = Timing(
    relist_bytes_a_second=1e9,
    read=2.0,
    confirm_empty=0.05,
    absent_api=0.2,
    backoff_first=0.01,
    backoff_longest=0.1,
)

Follow = Callable[..., tuple[ApiSource, Recorder]]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


def credentials_of(api: ApiServer, /, **changes: Any) -> Credentials:
    fields: dict[str, Any] = {
        "server": f"https://{api.address}",
        "authorization": f"Bearer {api.token}",
        "ca": api.ca_pem,
    }
    return Credentials(**(fields | changes))


@pytest.fixture
def follow(server: ApiServer, tmp_path: Path) -> Iterator[Follow]:
    """Start a source against the server; keyword arguments as below."""
    started: list[ApiSource] = []

    def start(
        timing: Timing = QUICK,
        load: Callable[[], Credentials] | None = None,
        nodes: NodeChoice = "own",
        workloads: bool = False,
        api_server: str | None = None,
        had_objects: bool = False,
        through: Callable[[ApiSource, Emit], Emit] = lambda _source, emit: emit,
    ) -> tuple[ApiSource, Recorder]:
        around = Surroundings(random=lambda: 0.5)
        access = Access(load or (lambda: credentials_of(server)))
        addresses = Addresses(api_server, tmp_path / "state", around.now)
        source = ApiSource(access, addresses, Wanted("node-a", nodes, workloads), around, timing, had_objects)
        recorder = Recorder()
        source.start(through(source, recorder))
        started.append(source)
        return source, recorder

    yield start
    for source in started:
        source.stop()
