"""Maps that are too small, socket storage that the kernel refuses: who is hurt, who is not, for how long."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from pyagent.demo.agent_process import items_of
from pyagent.demo.calls import call
from pyagent.model.outcome import Outcome
from tests.datapath.ground import Agent, Manifests, Reply, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import WAYS, Way, ask, refusal
from tests.datapath.ground.hooks import Hooks
from tests.datapath.ground.steps import repeating
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

WEB, TCP = "10.96.0.1", Way("tcp", 4)
OPTMEM = Path("/proc/sys/net/core/optmem_max")


def dial(address: str = WEB) -> str:
    answer = ask(TCP, address, 80)
    return answer.pod if isinstance(answer, Reply) else answer


def unfit(agent: Agent) -> int:
    """How many things found no room, by the metric."""
    found = re.search(r"^kubesock_services_unfit (\d+)", agent.get("/metrics", metrics=True)[1], re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_maps_that_are_too_small_grow_and_nobody_else_notices(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    """Far too small for what comes at once: some Services wait, those that fit go on serving, then all do."""
    addresses = [cluster.server(name).ipv4 for name in "ab"]
    manifests.write(
        "web",
        [service("web", [WEB], [("t", 80, "TCP")]), endpoint_slice("web", addresses, [("t", 8080, "TCP")])],
    )
    sizes = "frontends=32,sets=32,service-ports=32,slots=256,backends=64,service-addresses=32"
    agent = start_agent(manifests.folder, arguments=(f"--map-sizes={sizes}",))
    assert in_client(dial) in ("a", "b")
    with repeating(in_client, dial) as stop:
        manifests.write(
            "many",
            [service(f"s{number}", [f"10.96.1.{number}"], [("t", 80, "TCP")]) for number in range(200)],
        )
        log = wait_for(agent.log.read_text, lambda text: "larger maps are in use" in text, "larger maps")
        wait_for(lambda: unfit(agent), lambda count: count == 0, "room for everything")
        seen = stop()
    assert seen.keys() <= {"a", "b"}, seen
    assert "maps are nearly full, larger ones are made: frontends 32 -> " in log
    assert "no room: default/s" in log
    wait_for(agent.log.read_text, lambda text: "room for everything again" in text, "its relief")
    assert agent.process.running
    for number in (0, 199):
        assert in_client(partial(dial, f"10.96.1.{number}")) == refusal()
    rows = {row["name"]: row for row in items_of(agent.verb("maps", "-o", "json")[1])}
    assert rows["frontends"]["capacity"] >= 256
    assert agent.verb("diff", f"--state-dir={agent.state_dir}")[0] == 0


@contextmanager
def without_option_memory(netns: Path) -> Iterator[None]:
    """No socket of the namespace may have storage (since Linux 6.9 net.core.optmem_max is its own)."""

    def read() -> str:
        return OPTMEM.read_text() if os.access(OPTMEM, os.W_OK) else ""

    before = call(read, netns=netns)
    if not before:
        pytest.skip("net.core.optmem_max belongs to the whole machine here")
    call(lambda: OPTMEM.write_text("0"), netns=netns)
    try:
        yield
    finally:
        call(lambda: OPTMEM.write_text(before), netns=netns)


@pytest.fixture
def no_storage(cluster: SmallCluster) -> Iterator[InClient]:
    with without_option_memory(cluster.other_client.netns):
        yield InClient(cluster.other_client.netns, None)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_connection_whose_origin_the_kernel_does_not_store_is_translated_and_counted(
    hooks: Hooks, no_storage: InClient, way: Way
) -> None:
    """Open rather than shut: the connection is made, only getpeername() shows the backend."""
    a = hooks.cluster.server("a")
    served = ["10.96.0.1", "fd44:10:96::1"]
    ports, targets = [("t", 80, "TCP"), ("u", 80, "UDP")], [("t", 8080, "TCP"), ("u", 8080, "UDP")]
    slices = [endpoint_slice("web", [a.address(family)], targets) for family in (4, 6)]
    hooks.serve([service("web", served, ports), *slices])
    try:
        client = InClient(no_storage.netns, hooks.cgroup)
        got = hooks.measure(lambda: ask(way, way.text(*served), 80), client)
    finally:
        hooks.serve([])
    assert isinstance(got.answer, Reply), got.answer
    assert got.answer.pod == "a"
    assert got.answer.peer == (way.text(a.ipv4, a.ipv6), 8080)
    assert got.outcomes[Outcome.TRANSLATED] == 1
    assert got.outcomes[Outcome.ORIGIN_NOT_STORED] == 1
    assert Outcome.PEER_TRANSLATED not in got.outcomes
