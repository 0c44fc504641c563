"""Writes docs/metrics.md from what the agent exposes: `make metrics`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric

from pyagent.agent.facts import Facts
from pyagent.agent.facts_view import HEALTH_PAGES
from pyagent.agent.kernel_counters import KernelCounters
from pyagent.agent.metrics import Metrics
from pyagent.agent.traffic import BackendTraffic, ServiceTraffic, TrafficCounts
from pyagent.model.source_events import SourceState
from pyagent.view.names import PortName

HEAD = """# Metrics

Served at `/metrics` on `--metrics-bind-address`. Names that begin with `kubeproxy_` are kube-proxy's, with
its meaning and its buckets, so its dashboards and alerts go on working; their `ip_family` is there for the
same reason, one plan serves both. `kubesock_` are our own. Made by `make metrics` from the code.

A dashboard is in [deploy/grafana](../deploy/grafana/kubesock.json), alert rules are in
[deploy/prometheus](../deploy/prometheus/kubesock-alerts.yaml); `make metrics-check` holds both, and the
names below, against Prometheus itself.

"""

SERVICES = """
## Of Services and backends

`namespace`, `service`, `port`, `protocol` and `ip_family` name a service port. One has series once it was
dialled on this node or has open sockets; with `--metrics-by=none` none has. `--metrics-by=backend` adds a
series for each backend that was chosen: with many pods and rollouts that is many; `kubesock backends` shows
the same without.

* `kubesock_service_chosen_total` starts at 0 with the agent and never falls, also when backends go. Its
  first sample may be above 0.
* `kubesock_service_refused_total` and `kubesock_backend_chosen_total` are the kernel's counts: they outlive
  the agent.
* Open sockets are counted at a scrape, at most 2 % of the time; with very many sockets
  `kubesock_sockets_age_seconds` says how old the count is. They are missing where the kernel cannot list
  sockets (`kubesock check`).
* Prometheus renames `namespace` and `service` to `exported_…` if its own target labels have these names,
  unless the scrape sets `honorLabels: true`, which the dashboard and the alerts here want.

## Beside kube-proxy's linter

`promtool check metrics` complains of one name: `kubeproxy_sync_proxy_rules_no_local_endpoints_total` is a
gauge. It is kube-proxy's.
"""


def exposed() -> list[Metric]:
    """Every family that an agent can expose, each with a sample."""
    facts = Facts()
    for page in HEALTH_PAGES:
        facts.answered(page, 200)
    facts.source_state(SourceState("Service", "watching"))
    facts.hooks([("connect4", True)])
    port = PortName(1, 1, "shop", "web", "http", "TCP", "IPv4", "ClusterIP", 0)
    read = KernelCounters(
        map_entries={"frontends": 1},
        map_capacity={"frontends": 2},
        map_memory={"frontends": 3},
        hooks_effective={"connect4": True},
        traffic=TrafficCounts((ServiceTraffic(port, 1, 1, 1),), (BackendTraffic(port, "10.1.0.1:80", 1, 1),)),
        sockets=1,
    )
    return list(Metrics(facts, lambda: read).families())


def names() -> set[str]:
    """Every series name that a query may use."""
    return {sample.name for family in exposed() for sample in family.samples}


def document() -> str:
    """The whole page."""
    families = sorted(exposed(), key=lambda family: family.name)
    ours = [family for family in families if family.name.startswith("kubesock_")]
    theirs = [family for family in families if family.name.startswith("kubeproxy_")]
    process = [family for family in families if family not in ours and family not in theirs]
    parts = (("kubesock's own", ours), ("kube-proxy's", theirs), ("Of the process", process))
    return HEAD + "\n".join(f"## {title}\n\n{_table(found)}" for title, found in parts) + SERVICES


def _table(families: Iterable[Metric]) -> str:
    rows = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        listed = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {listed} | {family.documentation} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path("docs/metrics.md").write_text(document())
