"""`make install` and `make uninstall`, for real, below a prefix of the test's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """Folders that stand for a machine's."""

    def __init__(self, root: Path) -> None:
        self.prefix, self.units, self.state = root / "usr", root / "units", root / "state"
        self.environ = {
            **os.environ,
            "PREFIX": str(self.prefix),
            "UNITDIR": str(self.units),
            "STATEDIR": str(self.state),
            "BPFFS": str(root / "bpf"),
        }

    def run(self, verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ROOT / "build-aux" / "install.sh"), verb],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def files(self) -> set[Path]:
        root = self.prefix.parent
        return {path.relative_to(root) for path in root.rglob("*") if path.is_file() or path.is_symlink()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_uninstall_without_install_says_so_and_removes_nothing(machine: Machine) -> None:
    machine.units.mkdir()
    (machine.units / "kubesock.service").write_text("somebody else's")
    done = machine.run("uninstall")
    assert done.returncode == 1
    assert "another PREFIX" in done.stderr
    assert (machine.units / "kubesock.service").read_text() == "somebody else's"


def test_somebody_elses_file_is_not_overwritten(machine: Machine) -> None:
    machine.units.mkdir()
    (machine.units / "kubesock.service").write_text("somebody else's")
    done = machine.run("install")
    assert done.returncode == 1
    assert "not ours" in done.stderr
    assert machine.files() == {Path("units/kubesock.service")}


@pytest.mark.long
def test_installed_twice_it_runs_and_one_uninstall_leaves_the_configuration_alone(machine: Machine) -> None:
    for _ in range(2):
        done = machine.run("install")
        assert done.returncode == 0, done.stderr
    command = machine.prefix / "bin" / "kubesock"
    version = subprocess.run([command, "version"], capture_output=True, text=True, check=False, cwd="/")
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("kubesock ")
    assert f"{machine.prefix}/bin/kubesock run" in (machine.units / "kubesock.service").read_text()
    (machine.state / "config.yaml").write_text("# mine\n")
    assert machine.run("install").returncode == 0
    assert (machine.state / "config.yaml").read_text() == "# mine\n"
    done = machine.run("uninstall")
    assert done.returncode == 0, done.stderr
    assert machine.files() == {Path("state/config.yaml")}
