"""`kubesock connections` on sockets of the real kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.demo.agent_process import Agent
from pyagent.demo.children import Child
from pyagent.demo.sandbox import Sandbox
from pyagent.kernel.connections import PIN
from tests.datapath.ground import Manifests, SmallCluster, StartAgent
from tests.datapath.ground.sockets import OPEN, TCP_SOCKETS, WEB, hold_open, write_services
from tests.datapath.ground.terminal import until

pytestmark = pytest.mark.kernel


@pytest.fixture
def agent(manifests: Manifests, start_agent: StartAgent, cluster: SmallCluster) -> Agent:
    """Serves the two Services by servers a and b."""
    a, b = cluster.server("a").ipv4, cluster.server("b").ipv4
    write_services(manifests, [a, b], [a])
    return start_agent(manifests.folder)


@pytest.fixture
def holder(sandbox: Sandbox, cluster: SmallCluster, cgroup: Path, agent: Agent) -> Iterator[Child]:
    """A process in the client's namespace that has sockets open."""
    child = sandbox.spawn(hold_open, netns=cluster.client.netns, cgroup=cgroup, label="holder")
    until(lambda: (agent.bpffs / "current" / PIN).exists() and len(agent.rows("connections")) == OPEN)
    yield child
    child.kill()


def listed(agent: Agent, *arguments: str) -> list[dict[str, Any]]:
    return agent.rows("connections", *arguments)


def test_every_open_socket_is_listed_with_its_client_and_its_backend(
    agent: Agent, holder: Child, cluster: SmallCluster
) -> None:
    rows = listed(agent, "--processes")
    assert {row["service"] for row in rows} == {"default/web:http/TCP", "default/dns:dns/UDP"}
    assert {row["netns"] for row in rows} == {cluster.client.netns.name}
    command = Path(f"/proc/{holder.pid}/comm").read_text().strip()
    assert all(row["processes"] == [f"{holder.pid}/{command}"] for row in rows)
    web = [row for row in rows if row["name"] == "web"]
    servers = {f"{cluster.server(name).ipv4}:8080" for name in "ab"}
    assert {row["dialled"] for row in web} == {f"{WEB}:80"}
    assert {row["chosen"] for row in web} <= servers
    assert {row["state"] for row in web} == {"established"}
    assert all(0 <= row["ageSeconds"] < 60 for row in rows)
    assert len({row["cookie"] for row in rows}) == OPEN


def test_filters_choose_sockets(agent: Agent, holder: Child, cluster: SmallCluster) -> None:
    assert len(listed(agent, "--service", "default/dns")) == 1
    assert len(listed(agent, "--service", "web:http/TCP")) == TCP_SOCKETS
    a = cluster.server("a").ipv4
    assert {row["chosen"] for row in listed(agent, "--backend", a)} <= {f"{a}:8080", f"{a}:5353"}
    assert len(listed(agent, "--pod", cluster.client.netns.name)) == OPEN
    assert listed(agent, "--pod", "somebody-else") == []
    code, out, _ = agent.verb("connections", "-n", "elsewhere", "-o", "name")
    assert (code, out) == (0, "")


def test_the_drain_view_shows_who_still_uses_a_backend_that_goes(
    agent: Agent, holder: Child, manifests: Manifests, cluster: SmallCluster
) -> None:
    assert listed(agent, "--draining") == []
    backend = next(row["chosen"] for row in listed(agent, "--service", "default/web")).partition(":")[0]
    users = len(listed(agent, "--service", "default/web", "--backend", backend))
    others = [pod.ipv4 for pod in cluster.servers if pod.ipv4 != backend]
    write_services(manifests, others, [cluster.server("a").ipv4])
    until(lambda: len(listed(agent, "--draining", "--backend", backend)) == users)
    assert {row["backendState"] for row in listed(agent, "--draining", "--backend", backend)} == {"removed"}


def test_sockets_are_listed_without_the_agent_and_without_the_compiler(agent: Agent, holder: Child) -> None:
    agent.stop()
    program = (
        "import sys; sys.modules['bcc'] = None; sys.argv[0] = 'kubesock';"
        "from pyagent.cli.main import main; sys.exit(main())"
    )
    for verb in (("connections",), ("top", "connections", "--interval", "0.25")):
        done = subprocess.run(
            [sys.executable, "-c", program, *verb, "-o", "json", f"--bpffs={agent.bpffs}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "no agent is running" in done.stderr
        rows = json.loads(done.stdout)["items"]
        assert len(rows) == OPEN
        assert all(row["old"] for row in rows)


def test_a_lost_table_is_pinned_again_and_cleanup_removes_it(agent: Agent) -> None:
    pin = agent.bpffs / "current" / PIN
    said: list[str] = []

    def is_missed() -> bool:
        """False where the agent was quicker."""
        until(pin.exists)
        pin.unlink()
        code, _, err = agent.verb("connections")
        said.append(err)
        return code == 3

    until(is_missed)
    assert said[-1].count("\n") == 1
    assert "no connection table is pinned" in said[-1]
    until(pin.exists)
    agent.stop()
    assert agent.verb("cleanup", f"--state-dir={agent.state_dir}")[0] == 0
    assert not agent.bpffs.exists()


def test_the_table_of_a_new_agent_takes_the_place_of_the_old_ones(
    agent: Agent, holder: Child, start_agent: StartAgent, manifests: Manifests
) -> None:
    before = (agent.bpffs / "current" / PIN).stat().st_ino
    agent.stop()
    following = start_agent(manifests.folder)
    until(lambda: (agent.bpffs / "current" / PIN).stat().st_ino != before)
    assert len(listed(following)) == OPEN
