"""Names of pods' cgroups, as both of kubelet's drivers make them, followed in real folders."""

from __future__ import annotations

import errno
import queue
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.kernel import pod_cgroups
from pyagent.kernel.pod_cgroups import PodCgroups, PodCgroupWatch, depth, find_kubepods, pod_uid

UID = "0a9a4e46-f436-39c4-8ed4-30da743de5b4"
DASHED = UID.replace("-", "_")
PATIENCE = 20.0


@pytest.mark.parametrize(
    ("folder", "uid"),
    [
        (f"pod{UID}", UID),
        (f"kubepods-pod{DASHED}.slice", UID),
        (f"kubepods-burstable-pod{DASHED}.slice", UID),
        (f"kubelet-kubepods-besteffort-pod{DASHED}.slice", UID),
        ("pod7e3a9b12c45d6f708192a3b4c5d6e7f8", "7e3a9b12c45d6f708192a3b4c5d6e7f8"),  # a static pod
        ("kubepods-burstable.slice", None),
        ("burstable", None),
        ("pod", None),
        ("podman", None),
        (f"cri-containerd-{UID}.scope", None),
        (f"kubepods-pod{DASHED}", None),
    ],
)
def test_a_uid_is_read_from_the_name(folder: str, uid: str | None) -> None:
    assert pod_uid(folder) == uid


@given(st.uuids(), st.sampled_from(["", "burstable-", "besteffort-"]))
def test_both_drivers_names_lead_to_the_same_uid(uid: uuid.UUID, qos: str) -> None:
    assert pod_uid(f"pod{uid}") == str(uid)
    assert pod_uid(f"kubepods-{qos}pod{str(uid).replace('-', '_')}.slice") == str(uid)


@pytest.mark.parametrize(
    "place", ["kubepods", "kubepods.slice", "kubelet.slice/kubelet-kubepods.slice", "a/b/kubepods"]
)
def test_kubelets_folder_is_found_wherever_its_cgroup_root_is(tmp_path: Path, place: str) -> None:
    (tmp_path / "system.slice" / "x.service").mkdir(parents=True)
    (tmp_path / place).mkdir(parents=True)
    assert find_kubepods(tmp_path) == tmp_path / place


def test_where_there_is_no_kubelet_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "system.slice").mkdir()
    assert find_kubepods(tmp_path) is None


def test_a_folder_that_is_no_cgroup_has_no_depth(tmp_path: Path) -> None:
    assert depth(tmp_path) is None


class Seen:
    """What a watch told last."""

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[PodCgroups] = queue.SimpleQueue()
        self.told: list[PodCgroups] = []

    def __call__(self, found: PodCgroups) -> None:
        self._told.put(found)

    def until(self, holds: Callable[[PodCgroups], bool]) -> PodCgroups:
        while not (self.told and holds(self.told[-1])):
            self.told.append(self._told.get(timeout=PATIENCE))
        return self.told[-1]


@pytest.fixture
def follow() -> Iterator[Callable[[Path], Seen]]:
    watches: list[PodCgroupWatch] = []

    def start(root: Path) -> Seen:
        seen = Seen()
        watch = PodCgroupWatch(root, seen)
        watches.append(watch)
        watch.start()
        return seen

    yield start
    for watch in watches:
        watch.stop()


def test_pods_are_told_as_they_come_and_go(tmp_path: Path, follow: Callable[[Path], Seen]) -> None:
    base = tmp_path / "kubepods"
    (base / "burstable").mkdir(parents=True)
    first = base / "burstable" / f"pod{UID}"
    first.mkdir()
    seen = follow(tmp_path)
    assert seen.until(lambda found: bool(found.ids)).ids == {UID: first.stat().st_ino}
    second = base / "podabc"
    second.mkdir()
    seen.until(lambda found: found.ids == {UID: first.stat().st_ino, "abc": second.stat().st_ino})
    first.rmdir()
    seen.until(lambda found: set(found.ids) == {"abc"})


def test_a_new_quality_class_is_followed_with_the_pods_it_has_already(
    tmp_path: Path, follow: Callable[[Path], Seen]
) -> None:
    (tmp_path / "kubepods").mkdir()
    seen = follow(tmp_path)
    seen.until(lambda found: found.ids == {})
    (tmp_path / "kubepods" / "besteffort" / "podabc").mkdir(parents=True)
    seen.until(lambda found: set(found.ids) == {"abc"})
    (tmp_path / "kubepods" / "besteffort" / "poddef").mkdir()
    seen.until(lambda found: set(found.ids) == {"abc", "def"})


def test_a_kubelet_that_starts_later_is_found(tmp_path: Path, follow: Callable[[Path], Seen]) -> None:
    seen = follow(tmp_path)
    assert seen.until(lambda _found: True) == PodCgroups({}, 0)
    (tmp_path / "kubepods.slice" / "kubepods-podabc.slice").mkdir(parents=True)
    seen.until(lambda found: set(found.ids) == {"abc"})


def test_without_the_hierarchys_root_in_sight_there_is_no_level(
    tmp_path: Path, follow: Callable[[Path], Seen], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kubepods" / "podabc").mkdir(parents=True)
    assert follow(tmp_path).until(lambda found: bool(found.ids)).level == 0
    assert "cannot be told inside a cgroup namespace" in caplog.text


def test_a_look_that_the_kernel_refuses_is_taken_again(
    tmp_path: Path, follow: Callable[[Path], Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left for a moment, say: the thread, and with it the agent, must outlive that."""
    monkeypatch.setattr(pod_cgroups, "LOOK_SECONDS", 0.05)
    look, refused = PodCgroupWatch._look, [OSError(errno.EMFILE, "too many open files")] * 2

    def refused_at_first(watch: PodCgroupWatch) -> None:
        if refused:
            raise refused.pop()
        look(watch)

    monkeypatch.setattr(PodCgroupWatch, "_look", refused_at_first)
    (tmp_path / "kubepods" / "podabc").mkdir(parents=True)
    follow(tmp_path).until(lambda found: set(found.ids) == {"abc"})
