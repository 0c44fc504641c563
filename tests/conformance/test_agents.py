"""What an operator and a load balancer see of the agents, and what happens while one is away."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TypeVar

import pytest

from pyagent.demo.children import wait_until
from tests.conformance.ground.clients import TCP, Page, ask_kept, http_get, keep, talk_kept
from tests.conformance.ground.nodes import Cluster
from tests.conformance.ground.objects import (
    Address,
    Object,
    Port,
    balanced,
    both,
    service,
    slices,
    terminating,
    unready,
)
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.dialling import WAYS

pytestmark = pytest.mark.kernel

T = TypeVar("T")

WEB = Address("10.96.0.10", "fd44:10:96::10")
OTHER = Address("10.96.0.11", "fd44:10:96::11")
OUTSIDE = Address("203.0.113.10", "2001:db8::10")
NODE_PORT, CHECK_PORT = 30080, 32000


def eventually(read: Callable[[], T], expected: T) -> None:
    def same() -> bool:
        try:
            return read() == expected
        except OSError:  # nobody listens yet
            return False

    wait_until(same, timeout=10.0)
    assert read() == expected


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_services_and_connections_outlive_a_restart_of_the_agent(
    cluster: Cluster, how: signal.Signals
) -> None:
    client, tcp = cluster.place("client-1"), WAYS[0]
    cluster.put(service("web", WEB), slices("web", cluster["a1"], cluster["a2"]))
    client.do(keep, "long", tcp)
    before = client.do(ask_kept, "long", WEB.ipv4, 80)
    assert isinstance(before, Reply)
    cluster.stop_agent("node-1", how)
    assert cluster.everyone(WEB) == {"a1", "a2"}, "nothing is missing while it is away"
    cluster.put(
        service("api", OTHER), slices("api", cluster["b2"]), service("web", WEB), slices("web", cluster["a2"])
    )
    assert cluster.place("client-2").who(OTHER) == {"b2"}
    cluster.start_agents()
    assert cluster.everyone(OTHER) == {"b2"}
    assert cluster.everyone(WEB) == {"a2"}
    assert client.do(talk_kept, "long") == before


@pytest.mark.files_only("the outage is of a folder")
def test_services_outlive_an_outage_of_their_source_and_new_ones_follow_after_it(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"]))
    folder = cluster.manifests.folder
    away = folder.with_name("away")
    folder.rename(away)
    assert cluster.everyone(WEB) == {"a1"}
    away.rename(folder)
    cluster.put(
        service("web", WEB), slices("web", cluster["a1"]), service("api", OTHER), slices("api", cluster["a2"])
    )
    assert cluster.everyone(WEB) == {"a1"}
    assert cluster.everyone(OTHER) == {"a2"}


@pytest.mark.files_only("the outage is of a folder")
def test_an_agent_that_starts_without_its_source_takes_nothing_away(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"], cluster["a2"]))
    cluster.stop_agent("node-1")
    folder = cluster.manifests.folder
    away = folder.with_name("away")
    folder.rename(away)
    try:
        (agent,) = cluster.start_agents(ready=False)
        eventually(lambda: agent.get("/readyz")[0], 503)
        assert agent.get("/livez")[0] == 200
        assert cluster.everyone(WEB) == {"a1", "a2"}
    finally:
        away.rename(folder)
    agent.wait_ready()
    cluster.put(service("web", WEB), slices("web", cluster["a2"]))
    assert cluster.everyone(WEB) == {"a2"}


def test_the_verbs_show_what_is_served(cluster: Cluster) -> None:
    cluster.put(
        service("web", WEB, both(80, node_port=NODE_PORT)),
        slices("web", cluster["a1"], terminating(cluster["b1"]), cluster["a2"]),
    )
    for agent in cluster.agents.values():
        rows = [row for row in agent.rows("services") if row["name"] == "web"]
        dialled = {text for row in rows for text in row["frontends"]}
        assert dialled == {"10.96.0.10:80", "[fd44:10:96::10]:80", f"node:{NODE_PORT}"}
        assert {(row["ready"], row["local"]) for row in rows} == {(2, 1)}
        shown = {row["backend"] for row in agent.rows("backends", "conf/web")}
        pods = cluster["a1"], cluster["a2"]
        assert shown == {f"{pod.ipv4}:8080" for pod in pods} | {f"[{pod.ipv6}]:8080" for pod in pods}


def test_the_pages_of_kube_proxy_are_served(cluster: Cluster) -> None:
    for agent in cluster.agents.values():
        for path in ("/healthz", "/livez"):
            status, body = agent.get(path)
            assert status == 200
            assert "lastUpdated" in json.loads(body)
        assert agent.get("/readyz")[0] == 200
        assert agent.get("/proxyMode", metrics=True) == (200, "kubesock")
        assert agent.get("/healthz", metrics=True) == (200, "ok")
        status, body = agent.get("/configz", metrics=True)
        assert status == 200
        assert json.loads(body)["kubeproxy.config.k8s.io"]["kind"] == "KubeProxyConfiguration"


@pytest.mark.parametrize(
    "sign",
    [
        "taint",
        pytest.param(
            "deletion", marks=pytest.mark.files_only("a deletion without finalizers is over at once")
        ),
    ],
)
def test_healthz_drains_a_node_on_its_way_out(cluster: Cluster, sign: str) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"]))
    changed: Object = {
        "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}
    }
    if sign == "deletion":
        changed = {"metadata": {"name": "node-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    cluster.describe_nodes(changed={"node-1": changed})
    going, staying = cluster.agents["node-1"], cluster.agents["node-2"]
    eventually(lambda: going.get("/healthz")[0], 503)
    assert json.loads(going.get("/healthz")[1])["nodeEligible"] is False
    assert going.get("/livez")[0] == 200
    assert staying.get("/healthz")[0] == 200
    assert cluster.everyone(WEB) == {"a1"}, "it serves as before"
    cluster.describe_nodes()
    eventually(lambda: going.get("/healthz")[0], 200)


def metric(cluster: Cluster, node: str, name: str, **labels: str) -> float:
    text = cluster.agents[node].get("/metrics", metrics=True)[1]
    found = 0.0
    for line in text.splitlines():
        wanted = all(f'{key}="{value}"' in line for key, value in labels.items())
        if wanted and line.startswith((name + "{", name + " ")):
            found += float(line.rpartition(" ")[2])
    return found


def test_metrics_count_what_clients_saw(cluster: Cluster) -> None:
    def outcomes(label: str) -> float:
        return metric(cluster, "node-1", "kubesock_outcomes_total", outcome=label)

    cluster.put(service("web", WEB), slices("web", cluster["a1"]))
    before = {label: outcomes(label) for label in ("translated", "refused_undefined_port")}
    tcp = [WAYS[0]]
    assert cluster.place("client-1").who(WEB, 80, tcp, times=5) == {"a1"}
    assert cluster.place("node-1").who(WEB, 81, tcp, times=3) == {"ECONNREFUSED"}
    assert outcomes("translated") >= before["translated"] + 5
    assert outcomes("refused_undefined_port") == before["refused_undefined_port"] + 3


def test_a_metric_counts_local_policies_without_a_local_endpoint(cluster: Cluster) -> None:
    name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"

    def counted(node: str) -> list[int]:
        return [
            int(metric(cluster, node, name, traffic_policy=policy)) for policy in ("internal", "external")
        ]

    one_port = [Port("tcp", 80, "TCP", NODE_PORT)]
    web = service("web", WEB, one_port, internalTrafficPolicy="Local", externalTrafficPolicy="Local")
    target = [Port("tcp", 8080, "TCP")]
    for endpoints, on_node_1, on_node_2 in (
        ([cluster["a1"]], [0, 0], [2, 2]),
        ([cluster["a1"], cluster["a2"]], [0, 0], [0, 0]),
        ([], [0, 0], [0, 0]),  # refused, hence not counted
    ):
        cluster.put(web, slices("web", *endpoints, ports=target))
        eventually(lambda: counted("node-1"), on_node_1)
        eventually(lambda: counted("node-2"), on_node_2)


def load_balanced(policy: str = "Local", check_port: int = CHECK_PORT) -> Object:
    made = service("web", WEB, both(80, node_port=NODE_PORT), externalTrafficPolicy=policy)
    if policy == "Local":
        made["spec"]["healthCheckNodePort"] = check_port
    return balanced(made, {"ip": OUTSIDE.ipv4}, {"ip": OUTSIDE.ipv6})


def check(cluster: Cluster, node: str, family: int = 4) -> Page | str:
    """The health check of a node as its load balancer sees it: from another machine."""
    pod = cluster[node]
    return cluster.place("a3").do(http_get, pod.ipv4 if family == 4 else pod.ipv6, CHECK_PORT, "/anything")


def await_checks(cluster: Cluster, expected: dict[str, tuple[int, int] | str]) -> None:
    """Wait until each node answers with that status and weight, or not at all."""

    def now() -> dict[str, tuple[int, int] | str]:
        pages = {node: check(cluster, node) for node in expected}
        return {
            node: page if isinstance(page, str) else (page.status, _weight(page))
            for node, page in pages.items()
        }

    eventually(now, expected)


def _weight(page: Page) -> int:
    return int(page.headers["X-Load-Balancing-Endpoint-Weight"])


def test_a_health_check_port_tells_which_nodes_have_ready_endpoints(cluster: Cluster) -> None:
    cluster.put(load_balanced(), slices("web", cluster["a1"], cluster["b1"]))
    await_checks(cluster, {"node-1": (200, 2), "node-2": (503, 0)})
    for family in (4, 6):
        page = check(cluster, "node-1", family)
        assert isinstance(page, Page)
        assert page.headers["Content-Type"] == "application/json"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert json.loads(page.body) == {
            "service": {"namespace": "conf", "name": "web"},
            "localEndpoints": 2,
            "serviceProxyHealthy": True,
        }
    cluster.put(load_balanced(), slices("web", cluster["a2"]))
    await_checks(cluster, {"node-1": (503, 0), "node-2": (200, 1)})


def test_a_health_check_fails_while_only_terminating_endpoints_serve(cluster: Cluster) -> None:
    cluster.put(load_balanced(), slices("web", cluster["a1"]))
    await_checks(cluster, {"node-1": (200, 1)})
    for endpoint in (terminating(cluster["a1"]), unready(cluster["a1"])):
        cluster.put(load_balanced(), slices("web", endpoint))
        await_checks(cluster, {"node-1": (503, 0)})
        seen = {"a1"} if endpoint.terminating else {"ECONNREFUSED"}
        assert cluster.place("client-2").who(cluster["node-1"], NODE_PORT) == seen


def test_node_ports_and_health_checks_follow_the_external_policy(cluster: Cluster) -> None:
    client, none_there = cluster.place("client-1"), {"EHOSTUNREACH"}
    for policy in ("Local", "Cluster", "Local"):
        cluster.put(load_balanced(policy), slices("web", cluster["a2"]))
        local = policy == "Local"
        await_checks(
            cluster,
            {
                "node-1": (503, 0) if local else "ECONNREFUSED",
                "node-2": (200, 1) if local else "ECONNREFUSED",
            },
        )
        assert client.who(cluster["node-2"], NODE_PORT) == {"a2"}, "where the endpoint is"
        assert client.who(cluster["node-1"], NODE_PORT) == {"a2"}, "on the client's own node"
        assert client.who(cluster["node-3"], NODE_PORT) == (none_there if local else {"a2"})
        for way in WAYS:
            (answer,) = client.ask(way, cluster["node-2"], NODE_PORT)
            assert isinstance(answer, Reply)
            assert answer.seen_client[0] in client.pod


@pytest.mark.files_only("it takes no bad object")
def test_a_bad_object_is_reported_and_stops_nothing_else(cluster: Cluster) -> None:
    bad = service("bad", OTHER, [Port("tcp", 99_999, "TCP")])
    pieces = slices("web", cluster["a1"], cluster["a2"])
    pieces[0]["endpoints"][0]["addresses"] = ["10.244.1.999"]
    cluster.put(bad, service("web", WEB), pieces)
    assert cluster.everyone(WEB) == {"a1", "a2"}, "the IPv6 slice has both"
    assert cluster.everyone(OTHER, 80) == {"ECONNREFUSED"}
    for agent in cluster.agents.values():
        assert json.loads(agent.get("/readyz")[1])["problems"] == 2
        told = [line for line in agent.log.read_text().splitlines() if "not usable" in line]
        assert any("conf/bad" in line and "99999" in line for line in told)
        assert any("web-x-ipv4" in line and "10.244.1.999" in line for line in told)


def test_node_ports_and_health_checks_answer_where_the_operator_says(cluster: Cluster) -> None:
    node = cluster["node-1"]
    loopback = Address("127.0.0.1", "::1")
    with cluster.agents_with("--nodeport-addresses=127.0.0.0/8,fd44:172:30::/64"):
        cluster.put(load_balanced(), slices("web", cluster["a1"]))
        host = cluster.place("node-1")
        for way in TCP:
            is_ipv4 = way.family != 6
            at_loopback, at_node = ({"a1"}, {"ECONNREFUSED"})[:: 1 if is_ipv4 else -1]
            assert host.who(loopback, NODE_PORT, [way]) == at_loopback
            assert cluster.everyone(node, NODE_PORT, ways=[way]) == at_node
        eventually(lambda: isinstance(check(cluster, "node-1", 6), Page), True)
        assert check(cluster, "node-1", 4) == "ECONNREFUSED"
    cluster.put(load_balanced(), slices("web", cluster["a1"]))
    assert cluster.everyone(node, NODE_PORT) == {"a1"}
