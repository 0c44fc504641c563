"""Prometheus itself scrapes an agent, evaluates the alerts, answers the dashboard: `make metrics-check`."""

from __future__ import annotations

import http.client
import json
import shutil
import urllib.parse
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyagent.demo.calls import call
from pyagent.demo.sandbox import Sandbox
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.waiting import wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here: `make metrics-check`"),
]

ROOT = Path(__file__).resolve().parents[2]
PORT = 19090
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: kubesock
    honor_labels: true
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def ask(path: str, **parameters: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    try:
        connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(connection.getresponse().read())
    except OSError as error:
        return {"error": str(error)}
    finally:
        connection.close()
    return answer.get("data", answer)


def dashboard() -> list[str]:
    panels = json.loads((ROOT / "deploy/grafana/kubesock.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    for variable, text in (("$instance", ".*"), ("$namespace", ".*"), ("$service", ".*")):
        asked = [query.replace(f'"{variable}"', f'"{text}"') for query in asked]
    return [query.replace("$__rate_interval", "10s") for query in asked]


def test_prometheus_understands_what_an_agent_exposes(
    sandbox: Sandbox,
    cluster: SmallCluster,
    in_client: InClient,
    manifests: Manifests,
    start_agent: StartAgent,
    tmp_path: Path,
) -> None:
    port = (("http", 80, "TCP"),)
    manifests.write("web", [service("web", ["10.96.0.41"], port), service("empty", ["10.96.0.42"], port)])
    target = (("http", 8080, "TCP"),)
    manifests.write("slices", [endpoint_slice("web", [cluster.server("a").ipv4], target)])
    agent = start_agent(manifests.folder, arguments=("--metrics-by=backend",))
    rules = ROOT / "deploy/prometheus/kubesock-alerts.yaml"
    config = tmp_path / "prometheus.yaml"
    config.write_text(CONFIG.format(rules=rules, port=agent.metrics_port))
    command = [
        str(shutil.which("prometheus")),
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{PORT}",
        "--log.level=warn",
    ]
    server = sandbox.spawn(command, netns=cluster.node.netns, log="prometheus.log", label="prometheus")

    def asked(path: str, **parameters: str) -> Any:
        return call(partial(ask, path, **parameters), netns=cluster.node.netns, timeout=20)

    def result(query: str) -> list[Any]:
        found = asked("query", query=query)
        assert found.get("resultType"), f"{query}: {found}"
        return list(found["result"])

    try:
        wait_for(lambda: asked("query", query="up == 1"), lambda d: bool(d.get("result")), "a scrape")
        assert in_client(lambda: [ask_tcp("10.96.0.41", 80).pod for _ in range(7)]) == ["a"] * 7
        chosen = 'kubesock_service_chosen_total{namespace="default", service="web", port="http"}'
        wait_for(
            lambda: [row["value"][1] for row in result(chosen)], lambda found: found == ["7"], "seven choices"
        )
        (target_seen,) = asked("targets")["activeTargets"]
        assert (target_seen["health"], target_seen["lastError"]) == ("up", "")
        metadata = asked("metadata")
        assert metadata["kubesock_service_chosen_total"][0]["type"] == "counter"
        assert metadata["kubesock_hook_effective"][0]["type"] == "gauge"
        assert metadata["kubesock_change_duration_seconds"][0]["type"] == "histogram"
        for query in dashboard():
            result(query)
        assert result("topk(10, sum by (namespace, service) (kubesock_service_sockets))")
        found = asked("rules")["groups"]
        names = {rule["name"]: rule for group in found for rule in group["rules"]}
        assert len(names) >= 10
        wait_for(
            lambda: {r["health"] for g in asked("rules")["groups"] for r in g["rules"]},
            lambda health: health == {"ok"},
            "an evaluation of every rule",
        )
        assert not [alert for alert in asked("alerts")["alerts"] if alert["state"] == "firing"]
    finally:
        server.stop()
