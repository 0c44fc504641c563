"""/metrics of a real agent: what clients did, by Service and by backend."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pyagent.demo.agent_process import Agent
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import errno_of, refusal
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

IP, EMPTY = "10.96.0.31", "10.96.0.32"
PORT = (("http", 80, "TCP"),)
TARGET = (("http", 8080, "TCP"),)
WEB = {"namespace": "default", "service": "web", "port": "http", "protocol": "TCP", "ip_family": "IPv4"}


def value(agent: Agent, name: str, **labels: str) -> float | None:
    status, text = agent.get("/metrics", metrics=True)
    assert status == 200
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def endpoints(manifests: Manifests, cluster: SmallCluster, *names: str) -> None:
    addresses = [cluster.server(name).ipv4 for name in names]
    manifests.write("endpoints", [endpoint_slice("web", addresses, TARGET)] if addresses else [])


def answers_of(dial: Callable[[], list[str]], pod: str) -> None:
    wait_for(lambda: set(dial()), lambda found: found == {pod}, f"an answer of {pod} alone")


def test_counts_of_a_service_survive_its_backends_and_start_anew_with_the_agent(
    cluster: SmallCluster, in_client: InClient, manifests: Manifests, start_agent: StartAgent
) -> None:
    manifests.write("services", [service("web", [IP], PORT), service("empty", [EMPTY], PORT)])
    endpoints(manifests, cluster, "a", "b")
    agent = start_agent(manifests.folder, arguments=("--metrics-by=backend",))
    chosen = partial(value, agent, "kubesock_service_chosen_total", **WEB)
    assert chosen() is None  # nobody dialled it yet

    def dial(times: int) -> list[str]:
        return [ask_tcp(IP, 80).pod for _ in range(times)]

    answered = in_client(partial(dial, 12))
    assert chosen() == 12
    for name in "ab":
        backend = f"{cluster.server(name).ipv4}:8080"
        found = value(agent, "kubesock_backend_chosen_total", backend=backend)
        assert (found or 0) == answered.count(name)

    endpoints(manifests, cluster, "c")
    answers_of(lambda: in_client(partial(dial, 2)), "c")
    before = chosen()
    endpoints(manifests, cluster, "a")  # takes the id of one that is gone
    answers_of(lambda: in_client(partial(dial, 2)), "a")
    assert in_client(partial(dial, 3)) == ["a"] * 3
    assert before is not None
    assert before >= 14
    now = chosen()
    assert now is not None
    assert now >= before + 5
    assert in_client(lambda: [errno_of(ask_tcp, EMPTY, 80) for _ in range(4)]) == [refusal()] * 4
    assert value(agent, "kubesock_service_refused_total", service="empty") == 4

    agent.stop()
    again = start_agent(manifests.folder)
    assert value(again, "kubesock_service_chosen_total", **WEB) in (None, 0)
    assert value(again, "kubesock_service_refused_total", service="empty") == 4
    in_client(partial(dial, 2))
    assert value(again, "kubesock_service_chosen_total", **WEB) == 2
    assert value(again, "kubesock_backend_chosen_total", **WEB) is None  # asked for by a flag


def test_hooks_and_maps_are_told_as_the_kernel_has_them(
    cluster: SmallCluster, in_client: InClient, manifests: Manifests, start_agent: StartAgent, tmp_path: Path
) -> None:
    manifests.write("services", [service("web", [IP], PORT)])
    endpoints(manifests, cluster, "a")
    agent = start_agent(manifests.folder)
    assert value(agent, "kubesock_hook_effective", hook="connect4") == 1
    assert (value(agent, "kubesock_map_memory_bytes", map="backends") or 0) > 4096
    assert value(agent, "kubesock_collection_errors_total") == 0
    gate = tmp_path / "gate"

    def hold() -> int:
        with socket.create_connection((IP, 80)):
            gate.with_suffix(".open").touch()
            deadline = time.monotonic() + 30
            while not gate.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        return 0

    holder = threading.Thread(target=lambda: in_client(hold, timeout=40))
    holder.start()
    try:
        wait_for(lambda: gate.with_suffix(".open").exists(), bool, "the client's socket")
        wait_for(lambda: value(agent, "kubesock_service_sockets", **WEB), lambda n: n == 1, "its count")
        assert (value(agent, "kubesock_sockets") or 0) >= 1
    finally:
        gate.touch()
        holder.join()


def test_without_the_flag_nothing_is_told_of_services(
    cluster: SmallCluster, in_client: InClient, manifests: Manifests, start_agent: StartAgent
) -> None:
    manifests.write("services", [service("web", [IP], PORT)])
    endpoints(manifests, cluster, "a")
    agent = start_agent(manifests.folder, arguments=("--metrics-by=none",))
    assert in_client(lambda: ask_tcp(IP, 80)).pod == "a"
    assert value(agent, "kubesock_service_chosen_total") is None
    assert (value(agent, "kubesock_outcomes_total", outcome="translated") or 0) >= 1
