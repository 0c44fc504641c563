"""What Prometheus's own tool says of metrics, alert rules and their tests: `make metrics-check`."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/kubesock-alerts.yaml"
ACCEPTED = {
    'kubeproxy_sync_proxy_rules_no_local_endpoints_total non-counter metrics should not have "_total" suffix',
}
"""kube-proxy's name, which is kept for its dashboards."""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here: `make metrics-check`"),
]


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )


def exposition() -> str:
    exposed: list[Metric] = runpy.run_path(str(ROOT / "build-aux/metrics_document.py"))["exposed"]()

    class Held(Collector):
        def collect(self) -> list[Metric]:
            return exposed

    registry = CollectorRegistry()
    registry.register(Held())
    return generate_latest(registry).decode()


def test_the_linter_has_nothing_to_say_of_our_names_and_texts() -> None:
    done = promtool("check", "metrics", text=exposition())
    found = {line for line in (done.stdout + done.stderr).splitlines() if line}
    assert found == ACCEPTED


def test_the_linter_would_say_so() -> None:
    done = promtool("check", "metrics", text="# TYPE kubesock_wrong counter\nkubesock_wrong 1\n")
    assert done.returncode != 0
    assert "kubesock_wrong" in done.stdout + done.stderr


def test_the_alert_rules_are_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_come_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", str(Path(__file__).with_name("alerts.yaml")))
    assert done.returncode == 0, done.stdout + done.stderr
