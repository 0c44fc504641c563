"""Somebody leaves other things where pins belong: the agent starts, puts them right, and follows no link."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.links import pinned_states
from tests.datapath.ground import Agent, Manifests, SmallCluster, StartAgent
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.waiting import wait_for
from tests.datapath.test_agent_life import WAYS, dial, objects

pytestmark = pytest.mark.kernel


def maps_of(agent: Agent) -> Path:
    return agent.bpffs / (agent.bpffs / "current").readlink()


def pin_a_map(agent: Agent, at: Path) -> None:
    fd = bpf.obj_get(str(maps_of(agent) / "names"))
    bpf.obj_pin(fd, str(at))
    os.close(fd)


def in_its_place(path: Path, link_to: str | Path | None = None) -> None:
    """A folder that is not empty, or a link."""
    path.unlink()
    if link_to is None:
        (path / "below").mkdir(parents=True)
    else:
        path.symlink_to(link_to)


def leave_sets(agent: Agent, others: Path) -> None:
    """What is named like a set of maps and is none."""
    for name in ("v9-1", "v9-2", "v9-3"):
        assert not (agent.bpffs / name).exists(), "the last agent took it away"
    pin_a_map(agent, agent.bpffs / "v9-1")
    (agent.bpffs / "v9-2" / "x" / "y").mkdir(parents=True)
    (agent.bpffs / "v9-3").symlink_to(others)


@pytest.mark.parametrize("lost", ["a map", "current"])
def test_the_next_agent_starts_whatever_is_in_the_place_of_pins(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    in_client: InClient,
    tmp_path: Path,
    lost: str,
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    (others / "file").touch()
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder)
    agent.stop(signal.SIGKILL)
    links = agent.bpffs / "links"
    in_its_place(links / "connect4")
    in_its_place(links / "connect6", "connect6")
    in_its_place(links / "sendmsg4", others)
    leave_sets(agent, others)
    (agent.bpffs / "next" / "x").mkdir(parents=True)
    in_its_place(maps_of(agent) / "frontends" if lost == "a map" else agent.bpffs / "current")
    manifests.write("web", objects(cluster, "b"))
    start_agent(manifests.folder).stop()
    assert in_client(lambda: dial(WAYS[0])) == "b"
    assert all(state.attached for state in pinned_states(links))
    leave_sets(agent, others)
    code, _out, err = agent.verb("cleanup")
    assert (code, err) == (0, "")
    assert not agent.bpffs.exists()
    assert (others / "file").exists(), "no link was followed"


def test_folders_in_the_place_of_pins_are_put_right(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent
) -> None:
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder)
    places = agent.bpffs / "links" / "connect4", maps_of(agent) / "sets", agent.bpffs / "current"
    for place in reversed(places):  # `current` last would hide the others
        in_its_place(place)
    wait_for(lambda: [p for p in places if p.is_dir() and not p.is_symlink()], lambda left: not left, "pins")
    wait_for(lambda: agent.verb("status")[0], lambda code: code == 0, "readers")
