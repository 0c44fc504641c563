"""What a wheel brings along. Built here without the network, by the locked build backend."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    (built,) = target.glob("*.whl")
    return zipfile.ZipFile(built)


def sources(folder: str, *suffixes: str) -> set[str]:
    """Paths below a folder of the tree, relative to it, of files with one of these suffixes."""
    root = ROOT / folder
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.suffix in suffixes}


def test_every_bpf_source_travels_in_the_wheel_unchanged(wheel: zipfile.ZipFile) -> None:
    expected = sources("bpf", ".c", ".h")
    packed = {
        name.removeprefix("pyagent/_bpf/"): wheel.read(name)
        for name in wheel.namelist()
        if name.startswith("pyagent/_bpf/") and name.endswith((".c", ".h"))
    }
    assert "contract.h" in expected
    assert packed == {name: (ROOT / "bpf" / name).read_bytes() for name in expected}


def test_every_module_travels_in_the_wheel_and_no_test_does(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.endswith(".py")}
    assert packed == {f"pyagent/{name}" for name in sources("pyagent", ".py")}


def test_the_wheel_installs_the_command_and_both_licences(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "kubesock = pyagent.cli.main:main" in wheel.read(entry_points).decode()
    names = {Path(name).name for name in wheel.namelist()}
    assert {"LICENSE", "GPL-2.0-only.txt"} <= names


def test_the_wheel_brings_manual_pages_the_schema_and_the_plugin_of_kubectl(wheel: zipfile.ZipFile) -> None:
    names = {name.partition(".data/")[2] for name in wheel.namelist()}
    pages = sources("docs/man", ".1")
    assert "kubesock-services.1" in pages
    assert {f"data/share/man/man1/{page}" for page in pages} <= names
    assert {"data/share/kubesock/schema.json", "scripts/kubectl-kubesock"} <= names


def test_bcc_is_never_a_dependency() -> None:
    """The package of that name on the Python index is an unrelated one."""
    for lock in ROOT.glob("requirements*.lock"):
        assert "\nbcc==" not in lock.read_text(encoding="utf-8"), lock.name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert not [line for line in wanted if line.split()[0] == "bcc" or line.startswith("bcc=")]
