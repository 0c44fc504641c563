"""Metrics in documents, dashboard and alert rules are those that the agent exposes."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MADE = runpy.run_path(str(ROOT / "build-aux" / "metrics_document.py"))
DASHBOARD = json.loads((ROOT / "deploy/grafana/kubesock.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/kubesock-alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
NAME = re.compile(r"\b(?:kubesock|kubeproxy|process)_[a-z_]+\b")
LABELS: dict[str, set[str]] = {}
for _family in MADE["exposed"]():
    for _sample in _family.samples:
        LABELS.setdefault(_sample.name, set()).update(_sample.labels)


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def dashboard_queries() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    return asked + [one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one]


def series_of(query: str) -> list[tuple[str, set[str]]]:
    """Each series of a query with the labels that it is selected by."""
    found = []
    for match in NAME.finditer(query):
        selector = re.match(r"\{([^}]*)\}", query[match.end() :])
        inside = re.sub(r'"[^"]*"', "", selector[1]) if selector else ""
        found.append((match[0], set(re.findall(r"([a-z_]+)\s*[=!]", inside))))
    return found


def test_the_page_of_metrics_is_what_the_agent_exposes() -> None:
    made = MADE["document"]()
    assert (ROOT / "docs/metrics.md").read_text() == made, "run `make metrics`"


@pytest.mark.parametrize("query", [*dashboard_queries(), *(rule["expr"] for rule in RULES)])
def test_a_query_asks_for_series_and_labels_that_exist(query: str) -> None:
    series = series_of(query)
    assert series
    for name, labels in series:
        assert name in LABELS, f"{name} is exposed nowhere"
        assert labels <= LABELS[name] | {"instance"}, name


def test_labels_in_legends_and_texts_exist() -> None:
    for target in (target for panel in panels() for target in panel["targets"]):
        known = {label for name, _ in series_of(target["expr"]) for label in LABELS[name]} | {"instance"}
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known
    for rule in RULES:
        known = {label for name, _ in series_of(rule["expr"]) for label in LABELS[name]} | {"instance"}
        texts = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", texts)) <= known, rule["alert"]


def test_each_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["alert"].startswith("Kubesock")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description"}
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_panels_have_ids_of_their_own_and_lie_beside_each_other() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_asks_the_data_source_that_its_reader_chose() -> None:
    sources = re.findall(r'"uid": "([^"]+)"', json.dumps(DASHBOARD["panels"]))
    assert set(sources) == {"${datasource}"}


def test_the_pod_monitor_keeps_the_labels_of_services() -> None:
    monitor = yaml.safe_load((ROOT / "deploy/kustomize/components/podmonitor/podmonitor.yaml").read_text())
    assert [one["honorLabels"] for one in monitor["spec"]["podMetricsEndpoints"]] == [True]
