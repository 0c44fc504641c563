"""`kubesock run --observe`: maps as ever, and nothing attached."""

from __future__ import annotations

import json

import pytest

from pyagent.demo.agent_process import Agent
from pyagent.kernel.links import effective_programs
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import errno_of
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

IP = "10.96.0.71"
PORT, TARGET = (("http", 80, "TCP"),), (("http", 8080, "TCP"),)


def names(agent: Agent) -> list[str]:
    return [row["name"] for row in agent.rows("services")]


def test_maps_are_filled_and_followed_and_nothing_is_attached_until_an_agent_serves(
    cluster: SmallCluster, in_client: InClient, manifests: Manifests, start_agent: StartAgent
) -> None:
    manifests.write("web", [service("web", [IP], PORT)])
    manifests.write("slices", [endpoint_slice("web", [cluster.server("a").ipv4], TARGET)])
    observer = start_agent(manifests.folder, arguments=("--observe",))
    assert not any(effective_programs(observer.cgroup).values())
    assert in_client(lambda: errno_of(ask_tcp, IP, 80)) not in ("", "ECONNREFUSED")
    assert names(observer) == ["web"]
    manifests.write("more", [service("api", ["10.96.0.72"], PORT)])
    wait_for(lambda: names(observer), lambda found: found == ["api", "web"], "a Service that came later")
    code, text, _ = observer.verb("status", "-o", "json", f"--state-dir={observer.state_dir}")
    status = json.loads(text)
    assert (code, status["problems"], status["sync"]["observing"]) == (0, [], True)
    code, out, _ = observer.verb("diff", f"--state-dir={observer.state_dir}")
    assert code == 0, out
    assert "kubesock_observing 1.0" in observer.get("/metrics", metrics=True)[1]

    observer.stop()
    agent = start_agent(manifests.folder)
    assert in_client(lambda: ask_tcp(IP, 80)).pod == "a"
    agent.stop()
    again = start_agent(manifests.folder, arguments=("--observe",), ready=False)
    assert again.process.wait(20) == 2
    assert "hooks are attached already" in again.log_tail()
    assert in_client(lambda: ask_tcp(IP, 80)).pod == "a"
