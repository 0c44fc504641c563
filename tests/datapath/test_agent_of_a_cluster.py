"""An agent of a cluster: which Nodes and Pods it follows, and the Events that it records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.cluster.node_reflector import MOST_NODES
from pyagent.datapath.layout import Capacities
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.model.address import format_address
from tests.cluster.support import node, service
from tests.datapath.ground import Agent, StartAgent
from tests.datapath.ground.waiting import wait_for
from tests.fakes.api_server import ApiServer

pytestmark = pytest.mark.kernel

UID = "0a9a4e46-f436-39c4-8ed4-30da743de5b4"
FRONTENDS = 64


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.put(node("n"))
        yield running


@pytest.fixture
def start(server: ApiServer, start_agent: StartAgent, tmp_path: Path) -> Callable[..., Agent]:
    """Starts an agent of that cluster, where it can reach it."""
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig.yaml")

    def started(*arguments: str) -> Agent:
        return start_agent(kubeconfig=kubeconfig, in_node_namespace=False, arguments=arguments)

    return started


def events(server: ApiServer, reason: str) -> list[dict[str, Any]]:
    return [event for event in list(server.events.values()) if event["reason"] == reason]


def test_a_start_and_a_repair_are_events_of_the_node(server: ApiServer, start: Callable[..., Agent]) -> None:
    agent = start()
    (started,) = wait_for(lambda: events(server, "Starting"), bool, "the Event of the start")
    assert (started["type"], started["regarding"]["kind"], started["regarding"]["name"]) == (
        "Normal",
        "Node",
        "n",
    )
    (agent.bpffs / "links" / "connect4").unlink()
    (repaired,) = wait_for(lambda: events(server, "Repaired"), bool, "the Event of the repair")
    assert repaired["note"].startswith("connect4: its pin was gone")


def test_maps_that_fill_up_are_told_on_the_node(
    server: ApiServer, bpffs: Path, start: Callable[..., Agent]
) -> None:
    small = Capacities(
        frontends=FRONTENDS, sets=256, slots=4096, backends=256, service_ports=256, service_addresses=256,
        node_addresses=64, affinity=64, overflow=64, source_ranges=64, clients=64, event_bytes=4096,
    )  # fmt: skip
    bpffs.mkdir()
    MapSet.create(bpffs / "v1-1", small).close()
    (bpffs / "current").symlink_to("v1-1")
    start()
    for number in range(FRONTENDS * 9 // 10):
        server.put(service(f"s{number}", ip=f"10.96.1.{number}"))
    (nearly,) = wait_for(lambda: events(server, "MapNearlyFull"), bool, "the Event of a filling map")
    assert nearly["note"].startswith("map frontends is more than 80% full")
    for number in range(FRONTENDS):
        server.put(service(f"t{number}", ip=f"10.96.2.{number}"))
    full = wait_for(lambda: events(server, "MapFull"), bool, "the Event of a full map")
    assert full[0]["note"].startswith("map frontends has no room; not served in full: shop/")


def test_pods_and_namespaces_are_asked_for_with_opt_out_alone(
    server: ApiServer, start: Callable[..., Agent]
) -> None:
    agent = start()
    agent.stop()
    assert not {"Pod", "Namespace"} & {request.kind for request in server.seen()}
    start("--opt-out=on")
    (pods, *_), (namespaces, *_) = server.seen(kind="Pod"), server.seen(kind="Namespace")
    assert pods.query["fieldSelector"] == "spec.nodeName=n"
    assert "as=PartialObjectMetadata" in namespaces.accept


def test_a_pod_of_the_cluster_is_entered_as_soon_as_its_cgroup_is_there(
    server: ApiServer, cgroup: Path, start: Callable[..., Agent]
) -> None:
    server.put(
        {
            "kind": "Namespace",
            "metadata": {"name": "shop", "annotations": {"kubesock.io/translate": "false"}},
        }
    )
    agent = start("--opt-out=on")
    server.put(
        {
            "kind": "Pod",
            "metadata": {"name": "p", "namespace": "shop", "uid": UID},
            "spec": {"nodeName": "n"},
        }
    )
    folder = cgroup / "kubepods" / "besteffort" / f"pod{UID}"
    folder.mkdir(parents=True)

    def keys() -> set[int]:
        maps = MapSet.open(current_folder(agent.bpffs))
        try:
            return {int.from_bytes(key[:8], "little") for key, _ in maps.items("opted_out")}
        finally:
            maps.close()

    wait_for(keys, lambda found: found == {folder.stat().st_ino}, "the entry")
    server.delete("Pod", "shop", "p")
    wait_for(keys, lambda found: not found, "its end")


def test_other_nodes_addresses_leave_the_maps_when_nodes_grow_beyond_500(
    server: ApiServer, start: Callable[..., Agent]
) -> None:
    def put(number: int) -> None:
        address = {"type": "InternalIP", "address": f"172.31.{number // 250}.{number % 250 + 1}"}
        server.put({**node(f"w{number}"), "status": {"addresses": [address]}})

    put(0)
    server.put(service("web", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    agent = start()

    def others() -> set[str]:
        maps = MapSet.open(current_folder(agent.bpffs))
        try:
            return {format_address(key) for key, value in maps.items("node_addresses") if any(value)}
        finally:
            maps.close()

    wait_for(others, lambda found: found == {"172.31.0.1"}, "the other node")
    for number in range(1, MOST_NODES):
        put(number)  # with node `n` one more than are followed
    wait_for(others, lambda found: not found, "an end of other nodes")
    assert "more than 500 Nodes: only the own one is followed" in agent.log.read_text()
