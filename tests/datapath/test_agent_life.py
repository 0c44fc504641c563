"""The agent as a process: killed, restarted, upgraded, disturbed, stopped. Clients must not notice."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import META, Hook
from pyagent.datapath.writes import Store
from pyagent.demo.namespaces import named
from pyagent.demo.sandbox import Sandbox
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.links import UNCONNECTED_UDP, effective_programs, pinned_states, program_name
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.probe import SUB_CGROUP
from tests.datapath.ground import (
    Agent,
    Manifests,
    Reply,
    SmallCluster,
    StartAgent,
    ask_udp,
    endpoint_slice,
    service,
)
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, ask, refusal
from tests.datapath.ground.steps import repeating
from tests.datapath.ground.waiting import wait_for
from tests.reliability.ground.builds import Build

pytestmark = pytest.mark.kernel

FRONTEND = "10.96.0.1"
LINK_DETACH = 34
WAYS = (Way("tcp", 4), Way("datagram", 4))


def objects(cluster: SmallCluster, *names: str) -> list[dict[str, Any]]:
    addresses = [cluster.server(name).ipv4 for name in names]
    ports = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
    return [
        service("web", [FRONTEND], [("t", 80, "TCP"), ("u", 80, "UDP")]),
        endpoint_slice("web", addresses, ports),
    ]


def dial(way: Way) -> str:
    """The pod that answered through the Service, or what went wrong."""
    answer = ask(way, FRONTEND, 80)
    if not isinstance(answer, Reply):
        return answer
    return answer.pod if answer.peer == (FRONTEND, 80) else f"{answer.pod} as {answer.peer}"


@pytest.fixture
def undisturbed(in_client: InClient) -> Callable[[Callable[[], None]], None]:
    """Does something while clients dial, and demands that every one of them reached pod a or b."""

    def during(work: Callable[[], None]) -> None:
        with (
            repeating(in_client, partial(dial, WAYS[0])) as stop_tcp,
            repeating(in_client, partial(dial, WAYS[1])) as stop_udp,
        ):
            work()
            for seen in (stop_tcp(), stop_udp()):
                assert seen.keys() <= {"a", "b"}, seen
                assert seen.total() > 0

    return during


def programs_on(cgroup: Path) -> dict[Hook, list[int]]:
    return {hook: found for hook, found in effective_programs(cgroup).items() if found}


def link_ids(agent: Agent) -> dict[Hook, int]:
    return {state.hook: state.link_id for state in pinned_states(agent.bpffs / "links")}


def pins_of(bpffs: Path) -> list[str]:
    """Without those of packets from outside, which come in their own time: see tests/outside."""
    found = (str(path.relative_to(bpffs)) for path in bpffs.rglob("*"))
    return sorted(name for name in found if not name.startswith("outside"))


def restarted(start_agent: StartAgent, agent: Agent, manifests: Manifests) -> Agent:
    agent.stop(signal.SIGKILL)
    return start_agent(manifests.folder)


def test_killing_and_restarting_it_disturbs_nobody(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    undisturbed: Callable[[Callable[[], None]], None],
) -> None:
    manifests.write("web", objects(cluster, "a", "b"))
    agent = start_agent(manifests.folder)
    ids = link_ids(agent)
    programs = programs_on(agent.cgroup)

    def kill_again_and_again() -> None:
        restarted(start_agent, agent, manifests).stop(signal.SIGKILL)
        # Killed in the middle of its start, too.
        for _ in range(2):
            early = start_agent(manifests.folder, ready=False)
            wait_for(lambda early=early: early.log_tail(), bool, "its first line")  # type: ignore[misc]
            early.stop(signal.SIGKILL)
        start_agent(manifests.folder)

    undisturbed(kill_again_and_again)
    assert link_ids(agent) == ids, "links were kept, not made anew"
    assert programs_on(agent.cgroup) == programs, "and so were the programs"


def test_what_changed_while_it_was_away_is_caught_up(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", objects(cluster, "a"))
    manifests.write("gone", [service("gone", ["10.96.0.9"], [("t", 80, "TCP")])])
    agent = start_agent(manifests.folder)
    assert agent.stop() == 0
    manifests.write("web", objects(cluster, "b"))
    manifests.remove("gone")
    assert in_client(lambda: dial(WAYS[0])) == "a", "without an agent the old state serves"
    assert in_client(lambda: ask(Way("tcp", 4), "10.96.0.9", 80)) == refusal()
    start_agent(manifests.folder)
    assert in_client(lambda: dial(WAYS[0])) == "b"
    assert in_client(lambda: ask(Way("tcp", 4), "10.96.0.9", 80)) == "ENETUNREACH"


def test_stopping_it_leaves_everything_serving(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    undisturbed: Callable[[Callable[[], None]], None],
) -> None:
    manifests.write("web", objects(cluster, "a", "b"))
    agent = start_agent(manifests.folder)
    before = pins_of(agent.bpffs)
    codes: list[int] = []
    undisturbed(lambda: codes.append(agent.stop()))
    assert codes == [0]
    assert pins_of(agent.bpffs) == before
    assert programs_on(agent.cgroup).keys() == set(Hook)


def test_a_thread_that_fails_by_what_nobody_foresaw_ends_it_and_what_is_attached_serves(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient, tmp_path: Path
) -> None:
    """Without its grace periods no room would ever return: better that the next one begins anew."""
    manifests.write("web", objects(cluster, "a"))
    broken = Build(tmp_path / "broken")
    broken.change("pyagent/agent/grace.py", r"self\._period\.wait\(\)", "raise KeyError('nobody foresaw')")
    agent = start_agent(manifests.folder, launcher=broken.launcher)
    manifests.write("web", objects(cluster, "b"))
    assert agent.process.wait(20.0) == 1
    log = agent.log.read_text()
    assert "thread grace-period ended" in log
    assert "start the agent again" in log
    assert "Traceback" in log
    assert in_client(partial(dial, WAYS[0])) == "b"
    start_agent(manifests.folder)
    assert in_client(partial(dial, WAYS[0])) == "b"


def test_a_second_one_is_refused_and_told_who_is_there(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", objects(cluster, "a"))
    first = start_agent(manifests.folder)
    second = start_agent(manifests.folder, ready=False)
    assert second.process.wait(20.0) == 1
    assert f"process {first.process.pid}" in second.log_tail()
    code, out, err = first.verb("cleanup")
    assert (code, out) == (1, "")
    assert f"process {first.process.pid}" in err
    assert first.get("/readyz")[0] == 200
    assert in_client(lambda: dial(WAYS[0])) == "a"


def test_two_with_folders_of_their_own_live_side_by_side(
    sandbox: Sandbox, cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, tmp_path: Path
) -> None:
    manifests.write("web", objects(cluster, "a"))
    others = Manifests(tmp_path / "others")
    others.write("web", objects(cluster, "b"))
    start_agent(manifests.folder)
    other_cgroup = sandbox.new_cgroup("another")
    bpffs = sandbox.bpffs / "another"
    try:
        second = start_agent(
            others.folder, cgroup=other_cgroup, bpffs=bpffs, state_dir=tmp_path / "other-state"
        )
        one = InClient(cluster.client.netns, second.cgroup)
        assert one(lambda: dial(WAYS[0])) == "b"
        second.stop()
        assert second.verb("cleanup")[0] == 0
        assert one(lambda: dial(WAYS[0])) == "ENETUNREACH"
    finally:
        sandbox.remove_cgroup("another")


# --- disturbed


def detach(agent: Agent, hook: Hook) -> None:
    fd = bpf.obj_get(str(agent.bpffs / "links" / program_name(hook)))
    try:
        bpf.bpf(LINK_DETACH, bytearray(struct.pack("=I", fd)), "detach")
    finally:
        os.close(fd)


def test_detached_hooks_come_back(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder)
    lost = {Hook.CONNECT4, Hook.GETPEERNAME6}
    for hook in lost:
        detach(agent, hook)
    wait_for(lambda: programs_on(agent.cgroup), lambda found: found.keys() == set(Hook), "the hooks")
    assert in_client(lambda: dial(WAYS[0])) == "a"
    for hook in lost:
        line = f"repaired {program_name(hook)}"
        wait_for(agent.log_tail, lambda text, line=line: line in text, line)  # type: ignore[misc]


def test_lost_pins_come_back_and_nobody_notices(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    undisturbed: Callable[[Callable[[], None]], None],
) -> None:
    manifests.write("web", objects(cluster, "a", "b"))
    agent = start_agent(manifests.folder)
    before = pins_of(agent.bpffs)

    def lose() -> None:
        for lost in ("links/connect4", "current/sets", "current"):
            (agent.bpffs / lost).unlink()
        wait_for(lambda: pins_of(agent.bpffs), lambda found: found == before, "the three")
        for entry in agent.bpffs.iterdir():
            entry.unlink() if entry.is_symlink() else shutil.rmtree(entry)
        wait_for(lambda: pins_of(agent.bpffs), lambda found: found == before, "all of them")

    undisturbed(lose)
    assert agent.rows("services")


# --- upgraded


def store_tag(agent: Agent, tag: int) -> None:
    """Make the attached programs another version's."""
    maps = MapSet.open(current_folder(agent.bpffs), writable=True)
    maps.apply([Store("meta", META.offsets["program_tag"], struct.pack("=Q", tag))])
    maps.close()


def test_new_programs_are_swapped_in_and_nobody_notices(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    undisturbed: Callable[[Callable[[], None]], None],
) -> None:
    manifests.write("web", objects(cluster, "a", "b"))
    agent = start_agent(manifests.folder)
    ids, programs = link_ids(agent), programs_on(agent.cgroup)

    def upgrade() -> None:
        agent.stop()
        store_tag(agent, 1)
        start_agent(manifests.folder)
        wait_for(lambda: programs_on(agent.cgroup), lambda found: found != programs, "new programs")

    undisturbed(upgrade)
    assert link_ids(agent) == ids, "the links stayed, their programs changed"
    after = programs_on(agent.cgroup)
    assert after.keys() == programs.keys()
    assert all(set(after[hook]).isdisjoint(programs[hook]) for hook in programs)


def test_maps_of_another_layout_are_replaced_and_every_connect_is_translated(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    """Whatever another build's layout is: see reliability/test_restarts.py."""
    manifests.write("web", objects(cluster, "a", "b"))
    agent = start_agent(manifests.folder)
    with repeating(in_client, partial(dial, WAYS[0])) as stop:
        agent.stop()
        folder = current_folder(agent.bpffs)
        older = agent.bpffs / "v0-1"
        folder.rename(older)
        (agent.bpffs / "current").unlink()
        (agent.bpffs / "current").symlink_to(older.name)
        start_agent(manifests.folder)
        wait_for(lambda: pins_of(agent.bpffs), lambda found: "v0-1" not in found, "removal of the old maps")
        seen = stop()
    assert {said.split()[0] for said in seen} <= {"a", "b"}, seen
    assert agent.rows("services")
    assert in_client(lambda: dial(WAYS[0])) in ("a", "b")


def test_unconnected_udp_may_be_left_alone(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder, arguments=("--udp=connected",))
    assert programs_on(agent.cgroup).keys() == set(Hook) - UNCONNECTED_UDP
    assert in_client(lambda: dial(Way("tcp", 4))) == "a"
    connected = in_client(lambda: ask_udp(FRONTEND, 80, connected=True))
    assert (connected.pod, connected.peer) == ("a", (FRONTEND, 80))
    assert in_client(lambda: dial(Way("datagram", 4))) == "ENETUNREACH"
    agent = restarted(start_agent, agent, manifests)
    assert programs_on(agent.cgroup).keys() == set(Hook)
    assert in_client(lambda: dial(Way("datagram", 4))) == "a"


# --- where it runs


def test_it_becomes_ready_inside_the_cgroup_that_it_serves(
    sandbox: Sandbox, cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, cgroup: Path
) -> None:
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder, cgroup=sandbox.cgroup)
    try:
        assert InClient(cluster.client.netns, cgroup)(lambda: dial(WAYS[0])) == "a"
    finally:
        agent.stop()
        assert agent.verb("cleanup")[0] == 0


def test_it_becomes_ready_outside_the_nodes_namespace(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder, in_node_namespace=False)
    assert agent.get("/readyz")[0] == 200
    assert in_client(lambda: dial(WAYS[0])) == "a"
    assert not (agent.cgroup / SUB_CGROUP).exists()


def test_cleanup_leaves_nothing(
    sandbox: Sandbox,
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    in_client: InClient,
    cgroup: Path,
) -> None:
    namespaces = named(f"kubesock-{sandbox.id}-")
    inherited = programs_on(cgroup)
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder)

    def hold() -> str:
        with closing(socket.create_connection((FRONTEND, 80), timeout=3)) as held:
            return str(held.getpeername()[0])

    assert in_client(hold) == FRONTEND
    agent.stop()
    code, out, _ = agent.verb("cleanup", f"--state-dir={agent.state_dir}")
    assert code == 0
    assert str(agent.bpffs / "links" / "connect4") in out
    assert not agent.bpffs.exists()
    assert programs_on(cgroup) == inherited
    assert [entry for entry in cgroup.iterdir() if entry.is_dir()] == []
    assert named(f"kubesock-{sandbox.id}-") == namespaces
    assert not agent.state_dir.exists() or not any(agent.state_dir.iterdir())
    assert in_client(lambda: dial(WAYS[0])) == "ENETUNREACH"
    code, out, _ = agent.verb("cleanup")
    assert (code, "nothing" in out) == (0, True), "and again is no error"
