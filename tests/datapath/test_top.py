"""`kubesock top` on the real kernel, without a terminal and on a real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo.agent_process import Agent, kubesock
from pyagent.demo.children import Child
from pyagent.demo.sandbox import Sandbox
from pyagent.kernel.connections import PIN
from tests.conftest import ON_CI
from tests.datapath.ground import Manifests, SmallCluster, StartAgent
from tests.datapath.ground.sockets import OPEN, WEB, hold_open, write_services
from tests.datapath.ground.terminal import Terminal, until

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


@pytest.mark.parametrize("view", ["services", "backends", "connections", "events", "maps", "hooks", "sync"])
def test_every_view_of_top_has_a_twin_without_a_terminal(agent: Agent, holder: Child, view: str) -> None:
    arguments = ("top", view, "--interval", "0.25", f"--state-dir={agent.state_dir}")
    code, out, err = agent.verb(*arguments, "-o", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["apiVersion"] == "kubesock.io/v1"
    assert document["items"]
    code, out, err = agent.verb(*arguments, "--once")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(document["items"]) + 1


def test_top_counts_runs_of_the_hooks_only_while_it_looks(
    agent: Agent, holder: Child, cluster: SmallCluster
) -> None:
    rows = json.loads(agent.verb("top", "hooks", "-o", "json", "--interval", "0.25")[1])["items"]
    assert all(row["attached"] and row["effective"] for row in rows)
    assert Path("/proc/sys/kernel/bpf_stats_enabled").read_text().strip() == "0"


def test_a_map_of_top_is_decoded_or_bytes(agent: Agent) -> None:
    rows = json.loads(agent.verb("top", "maps", "frontends", "-o", "json")[1])["items"]
    assert f"{WEB}:80" in {row["dialled"] for row in rows}
    raw = json.loads(agent.verb("top", "maps", "frontends", "--raw", "-o", "json")[1])["items"]
    assert len(raw) == len(rows)
    assert all(re.fullmatch("[0-9a-f]+", row["key"]) for row in raw)


def test_top_without_a_terminal_or_without_pins_is_one_line(agent: Agent, tmp_path: Path) -> None:
    code, out, err = agent.verb("top")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--once" in err
    done = subprocess.run(
        kubesock("top", "--once", f"--bpffs={tmp_path}"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


@pytest.fixture
def terminal(agent: Agent, holder: Child, tmp_path: Path) -> Iterator[Terminal]:
    """`kubesock top` on a real terminal."""
    if shutil.which("tmux") is None:
        reason = "tmux is not installed; `make setup` installs it"
        pytest.fail(reason) if ON_CI else pytest.skip(reason)
    folder = tmp_path / "terminal"
    folder.mkdir()
    command = kubesock("top", f"--bpffs={agent.bpffs}", f"--state-dir={agent.state_dir}")
    made = Terminal(folder, command)
    yield made
    made.close()


def test_a_real_terminal_shows_the_views_and_is_restored(terminal: Terminal, cluster: SmallCluster) -> None:
    terminal.shows("default/web:http")
    terminal.shows("agent running")
    terminal.keys("3")
    terminal.shows(cluster.client.netns.name)
    terminal.shows(f"{WEB}:80")
    terminal.keys("4")
    terminal.shows("new: Cluster has")
    terminal.keys("5")
    terminal.shows("lpm_trie")
    terminal.keys("Enter")
    terminal.shows("TAG-MATCHES")
    terminal.keys("6")
    terminal.shows("getpeername4")
    terminal.keys("1")
    terminal.shows("FRONTENDS")
    terminal.keys("/", "d", "n", "s")
    terminal.shows("1 of 2 rows, /dns")
    terminal.keys("Enter", "e")
    terminal.shows("explain default/dns:dns/UDP")
    terminal.shows("because")
    terminal.keys("Escape")  # alone: with a letter right behind it, a terminal says Alt and that letter
    until(lambda: "because" not in terminal.text)
    terminal.keys("q")
    assert terminal.exit_code() == 0
    assert terminal.is_restored


def test_a_terminal_is_restored_when_top_is_told_to_end(terminal: Terminal) -> None:
    terminal.shows("default/web:http")
    os.kill(terminal.process(), signal.SIGTERM)
    assert terminal.exit_code() == 0
    assert terminal.is_restored
    assert "Traceback" not in terminal.text


def test_cleanup_under_a_running_top_is_told_and_breaks_nothing(terminal: Terminal, agent: Agent) -> None:
    terminal.shows("default/web:http")
    agent.stop()
    terminal.shows("no agent")
    assert agent.verb("cleanup", f"--state-dir={agent.state_dir}")[0] == 0
    terminal.shows("nothing is pinned there")
    terminal.keys("q")
    assert terminal.exit_code() == 0
    assert terminal.is_restored
