"""What others than root see of a node: nothing, or what a group may read and never write."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo.agent_process import items_of, kubesock
from pyagent.demo.sandbox import Sandbox
from pyagent.kernel.features import kernel_version
from tests.datapath.ground import Agent, Manifests, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

GROUP, SOMEBODY = 54_321, 54_322


def as_somebody(group: int | None, *arguments: str) -> tuple[int, str, str]:
    """A verb by a user without rights, in that group or in none."""
    done = subprocess.run(
        kubesock(*arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=SOMEBODY,
        group=SOMEBODY,
        extra_groups=[group] if group else [],
        cwd="/",
    )
    if "ModuleNotFoundError" in done.stderr or "Permission denied: '/work" in done.stderr:
        pytest.skip("others than root cannot read this tree")
    return done.returncode, done.stdout, done.stderr


def try_as_member(code: str, path: Path) -> str:
    """What Python code says when a member of the group runs it on a path."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, os, fcntl\npath = sys.argv[1]\n{code}", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=SOMEBODY,
        group=SOMEBODY,
        extra_groups=[GROUP],
        cwd="/",
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def modes(agent: Agent) -> dict[str, int]:
    paths = [agent.bpffs, agent.state_dir, agent.state_dir / "agent.sock", *agent.bpffs.rglob("*")]
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in paths if not path.is_symlink()}


@pytest.fixture
def state_dir(sandbox: Sandbox) -> Iterator[Path]:
    """Below a folder that others may pass. Not pytest's own, which every new session closes to them."""
    mode = stat.S_IMODE(sandbox.folder.stat().st_mode)
    sandbox.folder.chmod(0o711)
    yield sandbox.folder / "readers-state"
    sandbox.folder.chmod(mode)


def serve(cluster: SmallCluster, manifests: Manifests) -> None:
    slices = endpoint_slice("web", [cluster.server("a").ipv4], [("t", 8080, "TCP")])
    manifests.write("web", [service("web", ["10.96.0.1"], [("t", 80, "TCP")]), slices])


def test_by_default_root_alone_reads_pins_and_state(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, state_dir: Path
) -> None:
    serve(cluster, manifests)
    agent = start_agent(manifests.folder, state_dir=state_dir)
    wait_for(lambda: modes(agent), lambda found: not any(m & 0o077 for m in found.values()), "closed doors")
    code, _, err = as_somebody(None, "services", "-A", f"--bpffs={agent.bpffs}")
    assert code == 3
    assert "permission denied" in err.lower()


@pytest.mark.skipif(
    kernel_version() < (5, 19) and Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text()[0] != "0",
    reason="bpf(2) is for root alone here",
)
def test_a_group_may_read_and_can_change_nothing(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    state_dir: Path,
) -> None:
    serve(cluster, manifests)
    agent = start_agent(manifests.folder, state_dir=state_dir, arguments=(f"--readers-group={GROUP}",))
    current = agent.bpffs / (agent.bpffs / "current").readlink()
    wait_for(lambda: (agent.bpffs / "outside").exists(), bool, "packets from outside are served")
    agent.bpffs.chmod(0o700)  # as an agent without a group left it
    wait_for(lambda: agent.bpffs.stat().st_mode & 0o777, lambda mode: mode == 0o710, "a way for the group")
    wait_for(lambda: (current / "sets").stat().st_gid, lambda gid: gid == GROUP, "the group")
    for verb in ("services", "backends"):
        code, out, err = as_somebody(GROUP, verb, "-A", "-o", "json", f"--bpffs={agent.bpffs}")
        assert code == 0, err
        assert items_of(out) == agent.rows(verb)
    code, out, err = as_somebody(GROUP, "diff", f"--bpffs={agent.bpffs}", f"--state-dir={agent.state_dir}")
    assert (code, out) == (0, ""), err

    for folder in (agent.bpffs, current, agent.state_dir):
        said = try_as_member("fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)", folder)
        assert "PermissionError" in said, "who can lock the folder can keep an agent from starting"
    assert "PermissionError" in try_as_member("os.listdir(path)", agent.bpffs / "links")
    assert "PermissionError" in try_as_member("open(path + '/x', 'w')", agent.state_dir)
    assert not any(mode & 0o007 for mode in modes(agent).values())
    assert not any(
        mode & 0o020
        for path, mode in modes(agent).items()
        if Path(path).parent == current and not path.endswith("/connections")
    )
