"""Fixtures of the ground that datapath tests stand on; see `ground/__init__.py`."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.agent.state_files import PROGRAMS
from pyagent.demo.sandbox import Sandbox, remove_leftovers
from pyagent.kernel.program_cache import ProgramCache
from tests.datapath.ground.agent import Agent, StartAgent
from tests.datapath.ground.cluster import InClient, SmallCluster
from tests.datapath.ground.hooks import Hooks
from tests.datapath.ground.manifests import Manifests

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Everything that this session makes on the machine. Also removes what a killed session left."""
    remove_leftovers("test")
    with Sandbox.create("test") as made:
        yield made


@pytest.fixture(scope="session")
def cluster(sandbox: Sandbox) -> SmallCluster:
    return SmallCluster(sandbox)


@pytest.fixture(scope="session")
def hooks(sandbox: Sandbox, cluster: SmallCluster, programs: Path) -> Iterator[Hooks]:
    """The programs, without an agent, on a cgroup that only tests' clients are in; see `ground/hooks.py`."""
    cgroup = sandbox.new_cgroup("hooks")
    made = Hooks(cluster, cgroup, sandbox.bpffs / "hooks", ProgramCache(programs))
    yield made
    made.close()


@pytest.fixture
def cgroup(sandbox: Sandbox) -> Iterator[Path]:
    """A cgroup of this test alone, gone afterwards with its processes."""
    name = f"t{next(_numbers)}"
    yield sandbox.new_cgroup(name)
    sandbox.remove_cgroup(name)


@pytest.fixture
def in_client(cluster: SmallCluster, cgroup: Path) -> InClient:
    return InClient(cluster.client.netns, cgroup)


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    return Manifests(tmp_path / "manifests")


@pytest.fixture
def bpffs(sandbox: Sandbox) -> Iterator[Path]:
    """A bpffs folder for one agent; does not exist yet. Whatever is pinned there goes with the test."""
    path = sandbox.bpffs / f"t{next(_numbers)}"
    yield path
    if path.exists():
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that agents of this session have compiled already: a start takes half the time with them."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def start_agent(
    sandbox: Sandbox,
    cluster: SmallCluster,
    compiled: Path,
    cgroup: Path,
    bpffs: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[StartAgent]:
    """Starts agents. They are killed afterwards; a failed test shows their logs."""
    started: list[Agent] = []
    states: set[Path] = set()
    own_cgroup, own_bpffs = cgroup, bpffs

    def start(
        manifests: Path | None = None,
        *,
        kubeconfig: Path | None = None,
        cgroup: Path | None = None,
        bpffs: Path | None = None,
        state_dir: Path | None = None,
        in_node_namespace: bool = True,
        ready: bool = True,
        arguments: tuple[str, ...] = (),
        launcher: tuple[str, ...] = (),
    ) -> Agent:
        state = state_dir or tmp_path / "state"
        shutil.copytree(compiled, state / PROGRAMS, dirs_exist_ok=True)
        (state / PROGRAMS).chmod(0o700)
        states.add(state)
        source = ("--kubeconfig", str(kubeconfig)) if kubeconfig else ("--manifests", str(manifests))
        agent = Agent(
            sandbox,
            source,
            node_name="n",
            cgroup=cgroup or own_cgroup,
            bpffs=bpffs or own_bpffs,
            state_dir=state,
            netns=cluster.node.netns if in_node_namespace else None,
            arguments=arguments,
            launcher=launcher,
        )
        started.append(agent)
        if ready:
            agent.wait_ready()
        return agent

    yield start
    for agent in started:
        agent.process.kill()
        request.node.add_report_section("teardown", f"log of agent {agent.process.pid}", agent.log_tail())
    for state in states:
        if (state / PROGRAMS).is_dir():
            shutil.copytree(state / PROGRAMS, compiled, dirs_exist_ok=True)
