"""The pages of the health server and of the metrics server.

`/healthz` and `/livez` answer as kube-proxy's do (pkg/proxy/healthcheck, proxy_health.go); `/readyz` is ours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from pyagent.agent.facts import Facts
from pyagent.agent.facts_view import HealthPage, View
from pyagent.agent.http_exchange import JSON, Handler, Page, Response, pages
from pyagent.agent.kernel_counters import KernelCounters
from pyagent.agent.stacks import stacks

if TYPE_CHECKING:
    from pyagent.agent.metrics import Metrics

PROXY_MODE = "kubesock"
CONFIG_KEY = "kubeproxy.config.k8s.io"


def health_pages(facts: Facts) -> Handler:
    """What listens on `--healthz-bind-address`: for kubelet, load balancers and rollouts."""
    return pages(
        {
            "/healthz": lambda: _health(facts, "healthz"),
            "/livez": lambda: _health(facts, "livez"),
            "/readyz": lambda: _readiness(facts.view()),
        }
    )


def metrics_pages(
    metrics: Callable[[], tuple[bytes, str]],
    configuration: Callable[[], dict[str, object]],
    *,
    profiling: bool = False,
) -> Handler:
    """What listens on `--metrics-bind-address`: for Prometheus and for whoever looks closer.

    Args:
        metrics: the exposition and its content type.
        configuration: the effective KubeProxyConfiguration.
        profiling: serve /debug/stacks too.
    """

    def scraped() -> Response:
        body, content_type = metrics()
        return Response(body, content_type)

    known: dict[str, Page] = {
        "/metrics": scraped,
        "/healthz": lambda: Response("ok"),
        "/proxyMode": lambda: Response(PROXY_MODE),
        "/configz": lambda: _json({CONFIG_KEY: configuration()}),
    }
    if profiling:
        known["/debug/stacks"] = lambda: Response(stacks())
    return pages(known)


def exposition(facts: Facts, counters: Callable[[], KernelCounters]) -> Callable[[], tuple[bytes, str]]:
    """Metrics for `metrics_pages`. The client library is loaded at the first scrape: it costs 50 ms and up to
    10 MB, which an agent that nobody scrapes does not pay.

    Args:
        counters: reads the kernel's maps; may raise KubesockError or OSError.
    """
    made: list[Metrics] = []

    def scrape() -> tuple[bytes, str]:
        if not made:
            from pyagent.agent.metrics import Metrics

            made.append(Metrics(facts, counters))
        return made[0].exposition()

    return scrape


def _health(facts: Facts, page: HealthPage) -> Response:
    view = facts.view()
    with_node = page == "healthz"
    healthy = view.healthy and (view.node_eligible or not with_node)
    status = 200 if healthy else 503
    facts.answered(page, status)
    body: dict[str, object] = {
        # "Now" while healthy: once this was the time of the last sync, and clients still read it so.
        "lastUpdated": rfc3339(view.now if healthy else view.last_updated),
        "currentTime": rfc3339(view.now),
    }
    if with_node:
        body["nodeEligible"] = view.node_eligible
    body["healthy"] = view.healthy
    body["status"] = {
        family.label: {"lastUpdated": rfc3339(health.last_updated), "healthy": health.healthy}
        for family, health in view.families.items()
    }
    return _json(body, status)


def _readiness(view: View) -> Response:
    body = {
        "ready": view.ready,
        "reasons": view.not_ready_because,
        "watches": {
            kind: {
                "state": watch.state,
                "ageSeconds": round(watch.age, 3),
                **({"error": watch.error} if watch.error else {}),
            }
            for kind, watch in view.watches.items()
        },
        "problems": len(view.problems),
        "unfit": len(view.unfit),
        "currentTime": rfc3339(view.now),
    }
    return _json(body, 200 if view.ready else 503)


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), JSON, status)


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as Kubernetes writes times: UTC, fractions of a second, `Z`."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="microseconds")[:-6] + "Z"
