"""Which of several mounts of cgroup v2 is the hierarchy's root."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyagent.kernel import mounts
from pyagent.kernel.mounts import Mount, cgroup2_root
from pyagent.model.failures import KernelRefused


@pytest.fixture
def part(tmp_path: Path) -> Path:
    """What a runtime mounts into a container: its own cgroup."""
    folder = tmp_path / "part"
    folder.mkdir()
    (folder / "cgroup.type").write_text("domain\n")
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "whole"
    folder.mkdir()
    return folder


def mounted(monkeypatch: pytest.MonkeyPatch, *found: Mount) -> None:
    monkeypatch.setattr(mounts, "mounts", lambda: list(found))


def test_the_whole_hierarchy_wins_over_the_containers_own_part(
    monkeypatch: pytest.MonkeyPatch, part: Path, whole: Path
) -> None:
    mounted(monkeypatch, Mount(Path("/"), "ext4"), Mount(part, "cgroup2"), Mount(whole, "cgroup2"))
    assert cgroup2_root() == whole


def test_a_part_alone_is_better_than_nothing(monkeypatch: pytest.MonkeyPatch, part: Path) -> None:
    mounted(monkeypatch, Mount(part, "cgroup2"))
    assert cgroup2_root() == part


def test_without_any_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    mounted(monkeypatch, Mount(whole, "cgroup"))
    with pytest.raises(KernelRefused, match="mount -t cgroup2"):
        cgroup2_root()
