"""The startup taint of this node, on an API server: when it goes, and what stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyagent.agent.startup_taint import StartupTaint
from pyagent.cluster.api_source import ApiSource
from pyagent.cluster.backoff import Backoff
from pyagent.cluster.node_taint import RBAC_RULE
from pyagent.model.source_events import Emit
from tests.cluster.conftest import Follow
from tests.cluster.support import PATIENCE
from tests.fakes.api_server import ApiServer, Request

KEY = "kubesock.io/agent-not-ready"
STARTUP = {"key": KEY, "effect": "NoExecute", "value": "x"}
OTHER = {"key": "dedicated", "value": "gpu", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}

Untaint = Callable[[], threading.Event]


def node(*taints: dict[str, str], name: str = "node-a") -> dict[str, Any]:
    spec = {"podCIDRs": ["10.244.0.0/24"], "taints": list(taints)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}


def taints_of(server: ApiServer, name: str = "node-a") -> list[dict[str, str]]:
    return list(server.store.objects["Node"]["", name]["spec"]["taints"])


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def untaint(follow: Follow) -> Iterator[Untaint]:
    """Starts a source whose events the remover of the taint sees; what is returned makes the agent ready."""
    started: list[StartupTaint] = []

    def start() -> threading.Event:
        ready = threading.Event()

        def through(source: ApiSource, emit: Emit) -> Emit:
            backoff = Backoff(lambda: 0.5, 0.01, 0.1)
            taint = StartupTaint(
                KEY, "node-a", source.node_taint(KEY), ready.is_set, every=0.01, backoff=backoff
            )
            started.append(taint)
            taint.start()
            return taint.noted(emit)

        _, recorder = follow(through=through)
        recorder.wait_for_watching("Node")
        return ready

    yield start
    for taint in started:
        taint.stop()


def test_it_goes_when_the_agent_is_ready_and_not_before(server: ApiServer, untaint: Untaint) -> None:
    server.put(node(OTHER, STARTUP))
    ready = untaint()
    time.sleep(0.1)
    assert not server.seen("patch")
    ready.set()
    wait(lambda: taints_of(server) == [OTHER])
    assert server.store.objects["Node"]["", "node-a"]["spec"]["podCIDRs"] == ["10.244.0.0/24"]


def test_nothing_is_written_to_a_node_without_it_or_to_another(server: ApiServer, untaint: Untaint) -> None:
    server.put(node(OTHER))
    server.put(node(STARTUP, name="node-b"))
    untaint().set()
    time.sleep(0.1)
    assert not server.seen("patch")
    assert taints_of(server, "node-b") == [STARTUP]


def test_it_goes_again_when_a_node_is_registered_anew(server: ApiServer, untaint: Untaint) -> None:
    server.put(node(STARTUP))
    untaint().set()
    wait(lambda: taints_of(server) == [])
    server.put(node(OTHER, STARTUP))
    wait(lambda: taints_of(server) == [OTHER])


def test_a_taint_that_is_added_at_the_same_time_stays(
    server: ApiServer, untaint: Untaint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody taints the Node between our read and our write, twice."""
    server.put(node(STARTUP))
    note = server.note
    added: list[dict[str, str]] = []

    def interfere(request: Request) -> None:
        note(request)
        if request.verb == "patch" and len(added) < 2:
            added.append({**OTHER, "key": f"other-{len(added)}"})
            server.put(node(STARTUP, *added))

    monkeypatch.setattr(server, "note", interfere)
    untaint().set()
    wait(lambda: taints_of(server) == added and len(added) == 2)
    assert len(server.seen("patch")) == 3


def test_a_refusal_names_the_rule_that_is_missing_and_is_tried_again(
    server: ApiServer, untaint: Untaint, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(node(STARTUP))
    server.fault("status", verb="patch", kind="Node", count=3, code=403)
    untaint().set()
    wait(lambda: taints_of(server) == [])
    assert RBAC_RULE in caplog.text
    assert caplog.text.count("stays on this node") == 1


def test_a_token_that_was_replaced_is_read_again(server: ApiServer, untaint: Untaint) -> None:
    server.put(node(STARTUP))
    server.fault("status", verb="patch", kind="Node", count=1, code=401)
    untaint().set()
    wait(lambda: taints_of(server) == [])
