"""What Linux loses by itself, without any hook: the ground that the other figures stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyagent.demo import namespaces
from pyagent.demo.sandbox import Sandbox
from tests.reliability.ground.load import SOURCE, compiled, report

pytestmark = [pytest.mark.kernel, pytest.mark.long]

MOVED = SOURCE.with_name("moved.c")
DATAGRAMS = 1_000_000


def lost(sandbox: Sandbox, netns: Path, *words: str) -> int:
    child = sandbox.spawn(
        [str(compiled(sandbox, MOVED)), str(DATAGRAMS), *words], netns=netns, log="moved.log"
    )
    assert child.wait(500.0) == 0
    return int((sandbox.folder / "moved.log").read_text().split()[-1])


@pytest.mark.timeout(1200)
def test_a_datagram_misses_its_receiver_when_sockets_beside_it_move(sandbox: Sandbox) -> None:
    netns = sandbox.new_namespace("moved")
    namespaces.isolate(netns)
    at_rest, moving = lost(sandbox, netns), lost(sandbox, netns, "move")
    namespaces.remove(netns)
    report("datagrams that Linux lost", (f"{at_rest} and, beside moving sockets, {moving} of {DATAGRAMS:,}",))
    assert at_rest == 0
