"""`kubesock run --kubeconfig`: what the API server says is what clients reach, through every fault."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.agent.loop import WANTED_SECONDS
from tests.datapath.ground import (
    Agent,
    Reply,
    SmallCluster,
    StartAgent,
    endpoint_slice,
    node,
    service,
    service_cidr,
)
from tests.datapath.ground.api import ApiProcess
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, ask
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

WEB, CART, LATE = "10.96.0.1", "10.96.0.2", "10.96.0.3"


@pytest.fixture
def api(tmp_path: Path, cluster: SmallCluster) -> Iterator[ApiProcess]:
    """A cluster with two Services on pod a."""
    server = ApiProcess(tmp_path)
    server.put(node("n", [cluster.node.ipv4, cluster.node.ipv6]), *web(cluster, "web", WEB, "a"))
    server.put(*web(cluster, "cart", CART, "a"))
    yield server
    server.stop()


def web(cluster: SmallCluster, name: str, address: str, pod: str) -> list[dict[str, Any]]:
    ipv4 = cluster.server(pod).ipv4
    return [
        service(name, [address], [("t", 80, "TCP")]),
        endpoint_slice(name, [ipv4], [("t", 8080, "TCP")]),
    ]


def follow(kubeconfig: Path, start_agent: StartAgent, *arguments: str, ready: bool = True) -> Agent:
    """An agent in the namespace from where the API server can be reached."""
    return start_agent(kubeconfig=kubeconfig, in_node_namespace=False, arguments=arguments, ready=ready)


def dial(in_client: InClient, address: str, port: int = 80) -> str:
    answer = in_client(lambda: ask(Way("tcp", 4), address, port))
    return answer.pod if isinstance(answer, Reply) else answer


def until(in_client: InClient, address: str, wanted: str) -> None:
    wait_for(lambda: dial(in_client, address), lambda seen: seen == wanted, f"{wanted} at {address}")


def names(agent: Agent) -> list[str]:
    return sorted(str(row["name"]) for row in agent.rows("services"))


def test_services_and_endpoints_are_followed(
    api: ApiProcess, cluster: SmallCluster, start_agent: StartAgent, in_client: InClient
) -> None:
    agent = follow(api.kubeconfig, start_agent)
    assert (dial(in_client, WEB), dial(in_client, CART)) == ("a", "a")
    assert names(agent) == ["cart", "web"]
    api.put(*web(cluster, "web", WEB, "b"))
    until(in_client, WEB, "b")
    api.put(*web(cluster, "late", LATE, "c"))
    until(in_client, LATE, "c")
    api.delete("Service", "cart")
    until(in_client, CART, "ENETUNREACH")
    wait_for(lambda: names(agent), lambda seen: seen == ["late", "web"], "the list without cart")


def test_a_service_deleted_while_the_stream_is_cut_goes(
    api: ApiProcess, cluster: SmallCluster, start_agent: StartAgent, in_client: InClient
) -> None:
    agent = follow(api.kubeconfig, start_agent)
    assert dial(in_client, CART) == "a"
    api.fault("status", verb="watch", code=500, count=4)
    api.cut()
    api.delete("Service", "cart")
    api.put(*web(cluster, "web", WEB, "b"))
    until(in_client, CART, "ENETUNREACH")
    until(in_client, WEB, "b")
    assert names(agent) == ["web"]
    assert agent.get("/readyz")[0] == 200


@pytest.mark.parametrize("where", ["status", "error_in_stream"])
def test_after_410_nothing_is_lost(
    api: ApiProcess, cluster: SmallCluster, start_agent: StartAgent, in_client: InClient, where: str
) -> None:
    """The history with the deletion in it is gone too: only a new list tells."""
    agent = follow(api.kubeconfig, start_agent)
    assert dial(in_client, CART) == "a"
    api.fault("status", verb="watch", code=500, count=4)
    api.cut()
    api.delete("Service", "cart")
    api.put(*web(cluster, "web", WEB, "b"))
    api.do("compact")
    if where == "error_in_stream":
        for kind in ("Service", "EndpointSlice"):
            api.fault("error_in_stream", verb="watch", kind=kind, code=410)
    until(in_client, CART, "ENETUNREACH")
    until(in_client, WEB, "b")
    assert names(agent) == ["web"]


def test_a_server_that_is_away_at_the_start_takes_nothing_from_the_node(
    api: ApiProcess, cluster: SmallCluster, start_agent: StartAgent, in_client: InClient, tmp_path: Path
) -> None:
    first = follow(api.kubeconfig, start_agent)
    assert dial(in_client, WEB) == "a"
    first.stop()
    api.stop()
    second = follow(api.kubeconfig, start_agent, ready=False)
    wait_for(second.log_tail, lambda text: "not followed" in text, "its complaint about the server")
    time.sleep(1.5 * WANTED_SECONDS)  # the first plan waits no longer, once it may come at all
    assert (dial(in_client, WEB), dial(in_client, CART)) == ("a", "a")
    assert second.process.running
    assert second.get("/readyz")[0] != 200, "what it serves may be old: it has seen no list"
    back = ApiProcess(tmp_path, api.port)
    try:
        back.put(*web(cluster, "web", WEB, "b"))
        until(in_client, WEB, "b")
        until(in_client, CART, "ENETUNREACH")
        second.wait_ready()
    finally:
        back.stop()


FAR, NODE_PORT, UNALLOCATED = "192.0.2.77", 30001, "10.96.0.99"


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        pytest.param("stall_early", {"count": -1}, id="slow"),
        pytest.param("status", {"code": 503, "count": -1}, id="unavailable", marks=pytest.mark.long),
        pytest.param("status", {"code": 403, "count": -1}, id="forbidden", marks=pytest.mark.long),
        pytest.param("empty_list", {"count": 1}, id="empty", marks=pytest.mark.long),
    ],
)
def test_what_only_nodes_and_service_ranges_decide_stays_over_a_restart_until_they_are_listed(
    api: ApiProcess,
    cluster: SmallCluster,
    start_agent: StartAgent,
    in_client: InClient,
    fault: str,
    how: dict[str, Any],
) -> None:
    """The nodePorts of other nodes, and refusals at once; Services and endpoints are followed meanwhile."""
    shop = web(cluster, "shop", LATE, "a")
    shop[0]["spec"]["type"] = "NodePort"
    shop[0]["spec"]["ports"][0]["nodePort"] = NODE_PORT
    api.put(*shop, node("far", [FAR]), service_cidr("10.96.0.0/16"))
    remote = ("--remote-node-ports=on",)
    first = follow(api.kubeconfig, start_agent, *remote)
    wait_for(lambda: dial(in_client, FAR, NODE_PORT), lambda seen: seen == "a", "the far node's nodePort")
    wait_for(lambda: dial(in_client, UNALLOCATED), lambda seen: seen == "ECONNREFUSED", "the refusal")
    first.stop(signal.SIGKILL)
    for kind in ("Node", "ServiceCIDR") if fault != "empty_list" else ("Node",):
        api.fault(fault, kind=kind, **how)
    seen: set[tuple[str, str]] = set()

    def look() -> str:
        seen.add((dial(in_client, FAR, NODE_PORT), dial(in_client, UNALLOCATED)))
        return dial(in_client, WEB)

    second = follow(api.kubeconfig, start_agent, *remote, ready=False)
    api.put(*web(cluster, "web", WEB, "b"))
    wait_for(look, lambda pod: pod == "b", "the endpoints that moved meanwhile")
    api.put(*web(cluster, "new", "10.96.0.4", "c"))
    until(in_client, "10.96.0.4", "c")
    look()
    assert seen == {("a", "ECONNREFUSED")}
    if fault == "empty_list":
        wait_for(second.log_tail, lambda text: "ready after" in text, "it is ready")
        time.sleep(2 * WANTED_SECONDS)  # the list that denies the empty one has come
        look()
        assert seen == {("a", "ECONNREFUSED")}
        return
    api.delete("Node", "far", "")
    api.delete("ServiceCIDR", "kubernetes", "")
    api.do("clear")
    api.cut()
    wait_for(
        lambda: (dial(in_client, FAR, NODE_PORT), dial(in_client, UNALLOCATED)),
        lambda seen: seen == ("ENETUNREACH", "ENETUNREACH"),
        "what is gone from the lists",
    )


def test_a_server_that_goes_away_later_does_not_unready_the_node(
    api: ApiProcess, start_agent: StartAgent, in_client: InClient
) -> None:
    agent = follow(api.kubeconfig, start_agent)
    api.stop()
    wait_for(agent.log_tail, lambda text: "not followed" in text, "its complaint about the server")
    assert agent.get("/readyz")[0] == 200
    assert dial(in_client, WEB) == "a"
