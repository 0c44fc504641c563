"""`make release` in a clean copy of the tree, without the image: what it makes, and the same twice."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from pyagent import __version__

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("release") / "kubesock"
    git = ["git", "-c", f"safe.directory={ROOT}", "-c", f"safe.directory={ROOT}/.git"]
    subprocess.run([*git, "clone", "--quiet", str(ROOT), str(place)], check=True, capture_output=True)
    (place / ".git" / "info" / "exclude").write_text(".venv\n")
    (place / ".venv").symlink_to(ROOT / ".venv")
    return place


def release(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(place / "build-aux" / "release.sh")],
        env={**os.environ, "IMAGE": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_same_commit_gives_the_same_files(copy: Path) -> None:
    sums = []
    for _ in range(2):
        done = release(copy)
        assert done.returncode == 0, done.stderr
        sums.append((copy / "dist" / "SHA256SUMS").read_text())
        (copy / "README.md").touch()
    assert sums[0] == sums[1]
    made = {line.split()[1] for line in sums[0].splitlines()}
    assert made == {
        f"kubesock-{__version__}-py3-none-any.whl",
        f"kubesock-{__version__}.tar.gz",
        f"kubesock-{__version__}-install.yaml",
        f"kubesock-{__version__}-kustomize.tar.gz",
    }


def test_the_source_archive_holds_what_a_checkout_has(copy: Path) -> None:
    assert release(copy).returncode == 0
    with tarfile.open(copy / "dist" / f"kubesock-{__version__}.tar.gz") as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=copy, check=True, capture_output=True, text=True
    ).stdout.split()
    left_out = {name for name in tracked if name not in held}
    assert left_out <= {".ci/run", ".gitignore"}


def test_a_changed_tree_is_no_release(copy: Path) -> None:
    (copy / "new").write_text("x")
    done = release(copy)
    (copy / "new").unlink()
    assert done.returncode == 1
    assert "commit them first" in done.stderr
