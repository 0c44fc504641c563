"""What the agent says when it cannot start, and what it does not need."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pyagent.datapath.layout import Hook
from pyagent.demo.agent_process import kubesock
from pyagent.demo.calls import call
from pyagent.demo.sandbox import Sandbox
from pyagent.demo.syscalls import mount_filesystem, unmount
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.mounts import BPFFS_MAGIC, filesystem_type
from tests.datapath.ground import Manifests, StartAgent
from tests.datapath.ground.hooks import SMALL

pytestmark = pytest.mark.kernel

CLONE_NEWNS = 0x20000
MS_REC_PRIVATE = 0x4000 | 1 << 18
HEADERS = ("/lib/modules", "/usr/lib/modules", "/usr/src")

Refused = Callable[..., tuple[int, str]]


@pytest.fixture
def refused(cgroup: Path, bpffs: Path, manifests: Manifests, tmp_path: Path) -> Refused:
    """Exit code and text of a `kubesock run` that does not start; flags replace the good ones."""

    def run(*, user: int | None = None, **flags: str | Path) -> tuple[int, str]:
        good: dict[str, str | Path] = {
            "manifests": manifests.folder,
            "cgroup": cgroup,
            "bpffs": bpffs,
            "state-dir": tmp_path / "state",
        }
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in {**good, **flags}.items()]
        done = subprocess.run(
            kubesock(
                "run",
                "--node-name=n",
                "--metrics-bind-address=0",
                "--healthz-bind-address=0",
                "--log-format=text",
                *arguments,
            ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            cwd="/",
        )
        return done.returncode, done.stderr

    return run


def told_in_one_line(text: str) -> str:
    """The error among the log: one line, no traceback."""
    assert "Traceback" not in text
    found = [line for line in text.splitlines() if line.startswith("kubesock: ")]
    assert len(found) == 1, text
    return found[0]


def test_a_cgroup_that_is_not_there(refused: Refused, cgroup: Path) -> None:
    code, text = refused(cgroup=cgroup / "nowhere")
    assert code == 2
    assert f"--cgroup {cgroup / 'nowhere'}" in told_in_one_line(text)


def test_a_cgroup_that_is_an_ordinary_folder(refused: Refused, tmp_path: Path) -> None:
    code, text = refused(cgroup=tmp_path)
    assert code == 2
    assert "not a cgroup v2 folder" in told_in_one_line(text)


def test_a_bpffs_that_is_a_file(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("not a folder")
    code, text = refused(bpffs=path)
    assert code == 1
    assert f"--bpffs {path}" in told_in_one_line(text)
    assert path.read_text() == "not a folder"


def test_a_bpffs_below_a_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, text = refused(bpffs=tmp_path / "file" / "kubesock")
    assert code == 1
    assert f"--bpffs {tmp_path / 'file' / 'kubesock'}" in told_in_one_line(text)


def test_a_folder_without_a_bpf_file_system_gets_one_and_loses_it(
    start_agent: StartAgent, manifests: Manifests, tmp_path: Path
) -> None:
    folder = tmp_path / "pins"
    try:
        agent = start_agent(manifests.folder, bpffs=folder)
        assert filesystem_type(folder) == BPFFS_MAGIC
        assert agent.stop() == 0
        assert agent.verb("cleanup")[0] == 0
        assert not folder.is_mount()
    finally:
        if folder.is_mount():
            unmount(folder)


def test_without_rights(refused: Refused) -> None:
    code, text = refused(user=65534)
    if "ModuleNotFoundError" in text:
        pytest.skip("nobody cannot read this tree")
    assert code == 3
    assert "root" in told_in_one_line(text)


def test_a_kubeconfig_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("{ this is no kubeconfig")
    code, text = refused(kubeconfig=tmp_path / "config", manifests="")
    assert code in (1, 2)
    assert "config" in told_in_one_line(text)


def without_kernel_headers() -> None:
    """Hide the folders of kernel modules and sources from this process and its children."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) == 0, os.strerror(ctypes.get_errno())
    for folder in map(Path, HEADERS):
        if folder.is_dir() and not folder.is_symlink():
            mount_filesystem("tmpfs", folder)
        assert not folder.exists() or list(folder.iterdir()) == []


def test_programs_compile_without_kernel_headers(sandbox: Sandbox, cgroup: Path, bpffs: Path) -> None:
    """Nothing of the machine's kernel packages is read; no cache is asked either."""

    def compile_and_attach() -> set[Hook]:
        without_kernel_headers()
        datapath = Datapath(bpffs, cgroup, SMALL)
        datapath.open()
        datapath.load_programs()
        datapath.attach()
        datapath.open_connections()
        return {state.hook for state in datapath.link_states() if state.attached}

    assert call(compile_and_attach, timeout=60.0) == set(Hook)
