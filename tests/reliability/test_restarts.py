"""Agents are killed, restarted, upgraded and downgraded under load and churn: clients must not notice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from pyagent.agent.loop import WANTED_SECONDS
from pyagent.demo.sandbox import Sandbox
from tests.datapath.ground import Agent, Manifests, StartAgent, node, service
from tests.datapath.ground.waiting import wait_for
from tests.fakes.api_server import ApiServer
from tests.reliability.ground.builds import Build, other_layout, other_programs
from tests.reliability.ground.load import Load, dialling, report
from tests.reliability.ground.served import Served

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("ROUNDS", "200"))
MOVING = (Served("one", 1, 1, 40), Served("two", 2, 41, 40, hosts=3))
STICKY = Served("sticky", 3, 90, 0, hosts=5)
PATIENCE = 180.0
"""Seconds that an agent may need where every core is busy and four programs are to be compiled."""


class Objects(Protocol):
    """Where an agent finds its objects."""

    def write(self, name: str, objects: list[dict[str, Any]], /) -> object: ...


class OfAServer:
    """Objects that an API server has."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def write(self, _name: str, objects: list[dict[str, Any]], /) -> None:
        for obj in objects:
            self._server.put(obj)


class Churn:
    """Moves the Services through their sets by writing objects, and tells the clients."""

    def __init__(self, objects: Objects, load: Load, moving: Sequence[Served] = MOVING) -> None:
        self._objects, self._load = objects, load
        self._generations = dict.fromkeys(moving, 0)
        self._confirmed = dict.fromkeys(moving, 0)

    def move(self) -> None:
        """One Service to its next set; no call may be led there yet that began before."""
        served = min(self._generations, key=lambda one: self._generations[one])
        generation = self._generations[served] + 1
        if generation - self._confirmed[served] >= served.sets:
            return  # or every set would be allowed
        self._generations[served] = generation
        self._load.begin(served, generation)
        self._objects.write(served.name, [served.service(), *served.slices(generation)])

    def confirm(self) -> None:
        """Wait until the kernel has the latest sets; none before may be seen afterwards."""
        for served, generation in self._generations.items():
            wait_for(
                lambda served=served: self._load.latest(served),  # type: ignore[misc]
                lambda seen, wanted=generation: seen >= wanted,  # type: ignore[misc]
                f"generation {generation} of {served.name}",
            )
            self._load.end(served, generation)
            self._confirmed[served] = generation

    @property
    def moves(self) -> int:
        return sum(self._generations.values())


@contextmanager
def under_load(
    sandbox: Sandbox, cgroup: Path, objects: Objects, clients: int = 0, moving: Sequence[Served] = MOVING
) -> Iterator[tuple[Load, Churn]]:
    with dialling(sandbox, cgroup, (*moving, STICKY), clients=clients) as load:
        wait_for(lambda: load.calls, lambda calls: min(calls) > 100, "the first calls of every client")
        yield load, Churn(objects, load, moving)


def put_all(objects: Objects, moving: Sequence[Served] = MOVING) -> None:
    for one in (*moving, STICKY):
        objects.write(one.name, [one.service(), *one.slices(0)])


def builds(folder: Path) -> dict[str, tuple[str, ...]]:
    return {
        "this build": Build(folder / "this").launcher,  # whatever happens to the tree meanwhile
        "other programs": other_programs(folder / "programs").launcher,
        "other layout": other_layout(folder / "layout").launcher,
    }


def churn_for(seconds: float, churn: Churn) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        churn.move()
        time.sleep(min(0.02, max(0.0, ends - time.monotonic())))


def stage(agent: Agent) -> str:
    """How far it has come."""
    log = agent.log.read_text(errors="replace")
    stages = (("ready after", "ready"), ("hooks attached", "attached"), ("kubesock agent", "starting"))
    return next((name for text, name in stages if text in log), "not yet started")


@pytest.mark.timeout(600)
def test_another_layout_of_the_maps_and_back_disturbs_nobody(
    sandbox: Sandbox, cgroup: Path, manifests: Manifests, start_agent: StartAgent, tmp_path: Path
) -> None:
    """Sockets that were open before show the Service, clients stay on their backend, every call arrives.

    On the way back the API server is down: what is pinned is taken over without it.
    """
    put_all(manifests)
    other = other_layout(tmp_path / "layout").launcher
    with ApiServer() as server:
        away = server.kubeconfig(tmp_path / "kubeconfig.yaml")
    agent = start_agent(manifests.folder)
    with under_load(sandbox, cgroup, manifests, clients=1) as (load, churn):
        agent.stop(signal.SIGKILL)
        agent = start_agent(manifests.folder, launcher=other, ready=False)
        agent.wait_ready(PATIENCE)
        assert "records of open sockets were carried over" in agent.log_tail()
        churn.move()
        churn.confirm()
        agent.stop(signal.SIGKILL)
        agent = start_agent(kubeconfig=away, ready=False)
        wait_for(agent.log_tail, lambda text: "hooks attached" in text, "the hooks' end of the way", PATIENCE)
        assert "records of open sockets were carried over" in agent.log_tail()
        assert len(list(agent.bpffs.glob("v*-*"))) == 1, "earlier maps are gone"
        assert not (agent.bpffs / "earlier").is_symlink()
        agent.stop(signal.SIGKILL)
        agent = start_agent(manifests.folder)
        churn.move()
        churn.confirm()
        seen = load.stop()
    assert (seen.wrong, seen.texts) == (0, ())
    assert seen.asked > 1000


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "kinds", [("this build",), ("this build", "other programs", "other layout")], ids=len
)
def test_hundreds_of_kills_disturb_nobody(
    sandbox: Sandbox,
    cgroup: Path,
    manifests: Manifests,
    start_agent: StartAgent,
    tmp_path: Path,
    kinds: tuple[str, ...],
) -> None:
    """Each round starts an agent and kills it at a random moment, at times long after it was ready."""
    put_all(manifests)
    launchers = builds(tmp_path / "builds")

    def start(kind: str, ready: bool = True) -> Agent:
        """With a folder of its own, so that each build keeps its compiled programs."""
        return start_agent(
            manifests.folder, launcher=launchers[kind], state_dir=tmp_path / f"state {kind}", ready=ready
        )

    seed = random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    agent = start("this build")
    kills: Counter[str] = Counter()
    kind = "this build"
    with under_load(sandbox, cgroup, manifests) as (load, churn):
        agent.stop()
        began = time.monotonic()
        agent = start("this build")
        longest = 2 * (time.monotonic() - began)
        for number in range(ROUNDS):
            churn_for(chance.uniform(0.0, longest), churn)
            kills[stage(agent)] += 1
            agent.stop(signal.SIGKILL)
            before, kind = kind, chance.choice(kinds)
            kills[f"{before} -> {kind}"] += 1
            agent = start(kind, ready=False)
            if number % 5 == 4:
                agent.wait_ready(PATIENCE)
                churn.move()
                churn.confirm()
            assert load.wrong == 0, load.stop().texts
        agent.stop(signal.SIGKILL)
        agent = start("this build", ready=False)
        agent.wait_ready(PATIENCE)
        churn.confirm()
        seen = load.stop()
    report(
        f"{ROUNDS} rounds of kill -9, builds: {', '.join(kinds)}",
        (
            str(seen),
            f"{churn.moves:,} sets switched; killed within {longest:.1f} s; seed {seed}",
            str(dict(kills)),
            *seen.texts,
        ),
    )
    assert (seen.wrong, seen.texts) == (0, ())


FAR = ("192.0.2.77", "fd44:192:0:2::77")
OF_A_CLUSTER = (MOVING[0]._replace(nodes=FAR), MOVING[1])
TROUBLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("none", {}),
    ("status", {"code": 503, "count": 3}),
    ("status", {"code": 403, "count": -1}),
    ("stall_early", {"count": -1}),
)
ROOM = "frontends=64,sets=64"
"""So little that each of the first rounds may need more."""
GROWN = "the larger maps are in use"
LONGEST = 4 * WANTED_SECONDS
"""From a start to its end: long enough for a first plan that waited for Nodes, and what follows."""


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_nor_do_those_of_agents_of_a_cluster_whose_nodes_cannot_be_listed_at_times(
    sandbox: Sandbox, cgroup: Path, start_agent: StartAgent, tmp_path: Path
) -> None:
    """They follow an API server; the nodePort of another node is dialled too, and the maps grow."""
    launcher = Build(tmp_path / "build").launcher
    seed = random.SystemRandom().getrandbits(32)
    chance = random.Random(seed)
    kills: Counter[str] = Counter()
    growths = 0
    with ApiServer() as server:
        objects = OfAServer(server)
        objects.write("nodes", [node("n", ["192.0.2.1"]), node("far", FAR)])
        put_all(objects, OF_A_CLUSTER)
        kubeconfig = server.kubeconfig(tmp_path / "kubeconfig.yaml")

        def start(trouble: tuple[str, dict[str, Any]], ready: bool = True) -> Agent:
            server.faults.clear()
            if trouble[1]:
                server.fault(trouble[0], kind="Node", **trouble[1])
            return start_agent(
                kubeconfig=kubeconfig,
                in_node_namespace=False,
                launcher=launcher,
                arguments=("--remote-node-ports=on", f"--map-sizes={ROOM}"),
                ready=ready,
            )

        agent = start(TROUBLE[0])
        with under_load(sandbox, cgroup, objects, moving=OF_A_CLUSTER) as (load, churn):
            for number in range(ROUNDS):
                churn_for(chance.uniform(0.0, LONGEST), churn)
                kills[stage(agent)] += 1
                agent.stop(signal.SIGKILL)
                growths += agent.log.read_text(errors="replace").count(GROWN)
                trouble = chance.choice(TROUBLE)
                kills[f"Nodes: {trouble[0]} {trouble[1].get('code', '')}".strip()] += 1
                objects.write("more", [_one_more(4 * number + i) for i in range(4)])
                agent = start(trouble, ready=False)
                if number % 5 == 4:
                    agent.wait_ready(PATIENCE)
                    churn.move()
                    churn.confirm()
                assert load.wrong == 0, load.stop().texts
            agent.wait_ready(PATIENCE)
            churn.confirm()
            seen = load.stop()
    report(
        f"{ROUNDS} rounds of kill -9 of agents of a cluster",
        (
            str(seen),
            f"{churn.moves:,} sets switched; maps grew {growths} times; seed {seed}",
            str(dict(kills)),
            *seen.texts,
        ),
    )
    assert (seen.wrong, seen.texts) == (0, ())


def _one_more(number: int) -> dict[str, Any]:
    return service(f"more-{number}", [f"10.96.{16 + number // 200}.{1 + number % 200}"], [("t", 80, "TCP")])
