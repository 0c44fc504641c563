"""Health and metrics pages, byte for byte as kube-proxy's where it has them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from typing import Any

import pytest

from pyagent.agent.facts import STALE_SECONDS, Facts
from pyagent.agent.health import health_pages, metrics_pages, rfc3339
from pyagent.agent.http_server import HttpServer
from pyagent.model.address import Family
from pyagent.model.source_events import SourceState
from tests.unit.agent.asking import Answer, get, serve


class Agent:
    """Facts with a clock, served."""

    def __init__(self, server: HttpServer) -> None:
        self.mono = 100.0
        self.facts = Facts(monotonic=lambda: self.mono, wall=lambda: 1_700_000_000.25 + self.mono)
        self.port = serve(server, health_pages(self.facts))

    def get(self, path: str) -> Answer:
        return get(self.port, path)

    def make_ready(self) -> None:
        self.facts.listed("Service")
        self.facts.listed("EndpointSlice")
        self.facts.applied(self.mono)
        self.facts.hooks([("connect4", True)])
        self.facts.probed(True)


@pytest.fixture
def agent(server: HttpServer) -> Agent:
    return Agent(server)


T100 = "2023-11-14T22:15:00.250000Z"  # the wall clock when monotonic says 100
T200 = "2023-11-14T22:16:40.250000Z"


def both_families(updated: str, healthy: bool = True) -> dict[str, Any]:
    return {family: {"lastUpdated": updated, "healthy": healthy} for family in ("IPv4", "IPv6")}


def test_a_healthy_agent_says_what_kube_proxy_says(agent: Agent) -> None:
    agent.make_ready()
    agent.mono = 200
    answer = agent.get("/healthz")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json == {
        "lastUpdated": T200,  # now, although the last plan is older
        "currentTime": T200,
        "nodeEligible": True,
        "healthy": True,
        "status": both_families(T100),
    }
    assert list(answer.json) == ["lastUpdated", "currentTime", "nodeEligible", "healthy", "status"]


def test_livez_is_the_same_without_the_node(agent: Agent) -> None:
    agent.facts.node(False, "taint ToBeDeletedByClusterAutoscaler")
    answer = agent.get("/livez")
    assert answer.status == 200
    assert answer.json == {
        "lastUpdated": T100,
        "currentTime": T100,
        "healthy": True,
        "status": both_families(T100),
    }


def test_a_node_that_is_to_go_is_503_and_still_healthy(agent: Agent) -> None:
    agent.make_ready()
    agent.mono = 200
    agent.facts.node(False, "taint ToBeDeletedByClusterAutoscaler")
    answer = agent.get("/healthz")
    assert answer.status == 503
    assert answer.json == {
        "lastUpdated": T100,  # the truth, since it is not healthy
        "currentTime": T200,
        "nodeEligible": False,
        "healthy": True,
        "status": both_families(T100),
    }
    agent.facts.node(True)
    assert agent.get("/healthz").status == 200


def test_an_update_that_waits_too_long_is_503_on_both_pages(agent: Agent) -> None:
    agent.make_ready()
    agent.facts.queued(agent.mono)
    agent.mono += STALE_SECONDS - 0.5
    assert (agent.get("/healthz").status, agent.get("/livez").status) == (200, 200)
    agent.mono = 200
    for path in ("/healthz", "/livez"):
        answer = agent.get(path)
        assert answer.status == 503
        assert answer.json["healthy"] is False
        assert answer.json["lastUpdated"] == T100
        assert answer.json["status"] == both_families(T100, healthy=False)


def test_only_the_lagging_family_is_marked_and_the_other_one_does_not_help(agent: Agent) -> None:
    agent.make_ready()
    agent.facts.queued(agent.mono, families=[Family.IPV6])
    agent.mono = 200
    agent.facts.applied(agent.mono, families=[Family.IPV4])
    answer = agent.get("/healthz")
    assert answer.status == 503
    assert answer.json["lastUpdated"] == T200  # the newest of both
    assert answer.json["status"] == {
        "IPv4": {"lastUpdated": T200, "healthy": True},
        "IPv6": {"lastUpdated": T100, "healthy": False},
    }


def test_nothing_queued_for_hours_is_200(agent: Agent) -> None:
    agent.make_ready()
    agent.mono += 36_000
    assert agent.get("/healthz").status == 200


def test_a_starting_agent_is_alive_and_healthy_but_not_ready(agent: Agent) -> None:
    assert agent.get("/livez").status == 200
    assert agent.get("/healthz").status == 200
    answer = agent.get("/readyz")
    assert answer.status == 503
    assert answer.json["ready"] is False
    assert "Services are not listed yet" in answer.json["reasons"]


def test_readyz_tells_reasons_and_the_age_of_each_watch(agent: Agent) -> None:
    agent.make_ready()
    agent.facts.source_state(SourceState("Service", "watching"))
    agent.facts.source_state(SourceState("EndpointSlice", "watching"))
    agent.facts.source_state(SourceState("EndpointSlice", "disconnected", "connection refused"))
    agent.mono = 200
    answer = agent.get("/readyz")
    assert answer.status == 200
    assert answer.json == {
        "ready": True,
        "reasons": [],
        "watches": {
            "EndpointSlice": {"state": "disconnected", "ageSeconds": 100, "error": "connection refused"},
            "Service": {"state": "watching", "ageSeconds": 0},
        },
        "problems": 0,
        "unfit": 0,
        "currentTime": T200,
    }


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz/", "/debug/stacks"])
def test_the_health_server_has_no_other_page(agent: Agent, path: str) -> None:
    assert agent.get(path).status == 404


def test_answers_are_counted(agent: Agent) -> None:
    agent.get("/healthz")
    agent.facts.node(False)
    agent.get("/healthz")
    agent.get("/livez")
    assert agent.facts.view().answers == {("healthz", 200): 1, ("healthz", 503): 1, ("livez", 200): 1}


def metrics_port(server: HttpServer, *, profiling: bool = False) -> int:
    return serve(
        server,
        metrics_pages(
            lambda: (b"kubesock_ready 1\n", "text/plain; version=0.0.4; charset=utf-8"),
            lambda: {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"},
            profiling=profiling,
        ),
    )


def test_the_metrics_server_serves_metrics_and_a_ping(server: HttpServer) -> None:
    port = metrics_port(server)
    metrics = get(port, "/metrics")
    assert metrics.body == b"kubesock_ready 1\n"
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert get(port, "/healthz").body == b"ok"


def test_metrics_are_loaded_at_the_first_scrape() -> None:
    code = (
        "import sys\n"
        "from pyagent.agent.facts import Facts\n"
        "from pyagent.agent.health import exposition\n"
        "from pyagent.agent.kernel_counters import KernelCounters\n"
        "scrape = exposition(Facts(), KernelCounters)\n"
        "print('prometheus_client' in sys.modules, 'http.server' in sys.modules)\n"
        "print(b'kubesock_ready 0.0' in scrape()[0], scrape()[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False False", "True text/plain; version=0.0.4; charset=utf-8"]


def test_the_proxy_mode_is_ours(server: HttpServer) -> None:
    answer = get(metrics_port(server), "/proxyMode")
    assert (answer.status, answer.body) == (200, b"kubesock")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_configz_has_the_configuration_under_its_api_group(server: HttpServer) -> None:
    answer = get(metrics_port(server), "/configz")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "kubeproxy.config.k8s.io": {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
        }
    }


def test_stacks_are_served_with_profiling_only(server: HttpServer) -> None:
    assert get(metrics_port(server), "/debug/stacks").status == 404
    answer = get(metrics_port(server, profiling=True), "/debug/stacks")
    assert answer.status == 200
    assert b"thread MainThread\n" in answer.body
    assert b"thread test-http\n" in answer.body


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/metrics/slis", "/debug/pprof/"])
def test_the_metrics_server_has_no_other_page(server: HttpServer, path: str) -> None:
    assert get(metrics_port(server), path).status == 404


def test_times_are_written_as_kubernetes_does() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert dt.datetime.fromisoformat(rfc3339(1.5)).timestamp() == 1.5
