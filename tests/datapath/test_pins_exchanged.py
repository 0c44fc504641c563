"""What somebody with root's rights does to pins: one look finds it, tells it and puts it right."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import connections
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.links import effective_programs, pinned_states
from pyagent.kernel.map_pins import is_folder
from pyagent.kernel.readers import Readers
from pyagent.model.failures import KernelRefused
from tests.datapath.ground.hooks import SMALL, Hooks

pytestmark = pytest.mark.kernel
GROUP, SOMEBODY = 54_321, 54_322


@pytest.fixture
def opened(hooks: Hooks, cgroup: Path, bpffs: Path, request: pytest.FixtureRequest) -> Iterator[Datapath]:
    """As an agent has it after its first look; the parameter is the readers' group."""
    readers = Readers(getattr(request, "param", None))
    made = Datapath(bpffs, cgroup, SMALL, cache=hooks.cache, readers=readers)
    made.open()
    made.load_programs()
    made.attach()
    made.open_connections()
    (bpffs / "outside").mkdir(0o777)
    bpf.obj_pin(made.maps.fd("names"), str(bpffs / "outside" / "arrive-1"))
    assert made.repair() == ([], []), "how things stood at the start is nobody's deed"
    yield made
    made.close()


def links(opened: Datapath) -> Path:
    return opened.bpffs / "links"


def exchange(opened: Datapath, pin: Path) -> None:
    pin.unlink()
    bpf.obj_pin(opened.maps.fd("names"), str(pin))


def put_folder(pin: Path) -> None:
    pin.unlink()
    (pin / "below").mkdir(parents=True)


def lead_elsewhere(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    if elsewhere.is_dir():
        shutil.rmtree(elsewhere)
    path.rename(elsewhere)
    path.symlink_to("elsewhere")


DEEDS: dict[str, tuple[Callable[[Datapath], None], str]] = {
    "a link's pin, exchanged for a map's": (
        lambda o: exchange(o, links(o) / "connect4"),
        "connect4: its pin was gone",
    ),
    "a link's pin, behind a symbolic link": (
        lambda o: lead_elsewhere(links(o) / "connect6"),
        "connect6: its pin was gone",
    ),
    "a map's pin, behind a symbolic link": (
        lambda o: lead_elsewhere(o.maps.folder / "sets"),
        "map sets: its pin was gone",
    ),
    "the connection table, exchanged": (
        lambda o: exchange(o, o.maps.folder / "connections"),
        "connection table: its pin was gone",
    ),
    "the connection table, a folder": (
        lambda o: put_folder(o.maps.folder / "connections"),
        "connection table: its pin was gone",
    ),
    "the connection table, removed": (
        lambda o: (o.maps.folder / "connections").unlink(),
        "connection table: its pin was gone",
    ),
    "links, behind a symbolic link": (
        lambda o: lead_elsewhere(links(o)),
        "links: the folder was gone, all pins with it",
    ),
    "links, removed": (
        lambda o: shutil.rmtree(links(o)),
        "links: the folder was gone, all pins with it",
    ),
    "the maps, behind a symbolic link": (
        lambda o: lead_elsewhere(o.maps.folder),
        "v1: the folder was gone, all pins with it",
    ),
}


def test_each_is_told_once_and_put_right(opened: Datapath) -> None:
    found = {}
    for name, (deed, _) in DEEDS.items():
        deed(opened)
        found[name] = opened.repair()
        assert opened.repair() == ([], [])
        assert is_folder(opened.maps.folder)
        assert is_folder(links(opened))
        assert all(state.attached for state in pinned_states(links(opened)))
        table = connections.open_pinned(opened.maps.folder)
        assert list(connections.connections(table)) == []
        os.close(table)
        for left in opened.bpffs.rglob("elsewhere"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    folder = opened.maps.folder.name
    assert found == {name: ([line.replace("v1", folder)], []) for name, (_, line) in DEEDS.items()}


def test_links_behind_a_symbolic_link_do_not_run_beside_those_of_the_next_agent(
    hooks: Hooks, cgroup: Path, bpffs: Path
) -> None:
    programs = []
    for _ in range(2):
        made = Datapath(bpffs, cgroup, SMALL, cache=hooks.cache)
        made.open()
        made.load_programs()
        made.attach()
        programs.append(effective_programs(cgroup))
        assert is_folder(links(made))
        made.close()
        lead_elsewhere(links(made))
    assert [len(found) for both in programs for found in both.values()] == [1] * 16


def test_hooks_that_cannot_be_attached_do_not_keep_pins_from_being_put_right(
    opened: Datapath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_programs: object) -> None:
        raise KernelRefused("the cgroup is gone")

    (links(opened) / "connect4").unlink()
    (opened.maps.folder / "sets").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(opened.links, "point_to", refuse)
        assert opened.repair() == (["map sets: its pin was gone"], ["the cgroup is gone"])
    assert opened.repair() == (["connect4: its pin was gone"], [])


def test_what_was_opened_to_others_is_closed_and_told(opened: Datapath) -> None:
    root = opened.bpffs
    assert stat.S_IMODE((root / "outside").stat().st_mode) == 0o700
    folder = opened.maps.folder.name
    modes = {
        "links": 0o777,
        "links/connect4": 0o666,
        "outside": 0o755,
        "outside/arrive-1": 0o640,
        f"{folder}/sets": 0o604,
        f"{folder}/connections": 0o666,
    }
    for path, mode in modes.items():
        (root / path).chmod(mode)
    os.chown(root / "links" / "connect6", SOMEBODY, -1)
    told = {f"{path}: it was open to others, its mode was {mode:04o}" for path, mode in modes.items()}
    told.add(f"links/connect6: it was open to others, its owner was {SOMEBODY}")
    lines, failures = opened.repair()
    assert (set(lines), failures) == (told, [])
    assert opened.repair() == ([], [])
    for there in (root, *root.rglob("*")):
        found = there.lstat()
        closed = 0o700 if there.is_dir() else 0o600
        assert there.is_symlink() or (found.st_mode & 0o777, found.st_uid) == (closed, 0), there


@pytest.mark.parametrize("opened", [GROUP], indirect=True)
def test_no_link_is_followed_and_what_it_leads_to_keeps_its_mode_and_group(
    opened: Datapath, tmp_path: Path
) -> None:
    """Looks at modes alone: `repair` would have put the pins right before."""
    theirs = tmp_path / "theirs"
    theirs.touch()
    theirs.chmod(0o604)
    maps = opened.maps.folder
    kept = (theirs, links(opened) / "connect6", maps / "backends")

    def standing() -> list[tuple[int, int, int]]:
        return [(found.st_mode, found.st_uid, found.st_gid) for found in (path.stat() for path in kept)]

    before = standing()
    for pin, target in (
        (maps / "connections", theirs),
        (maps / "sets", links(opened) / "connect6"),
        (links(opened) / "connect4", theirs),
    ):
        pin.unlink()
        pin.symlink_to(target)
    shutil.rmtree(opened.bpffs / "outside")
    (opened.bpffs / "outside").symlink_to(maps.name)
    mounted = maps / "slots"
    subprocess.run(["mount", "--bind", theirs, mounted], check=True)
    try:
        readers = Readers(GROUP)
        for _ in range(2):
            assert readers.admit(opened.bpffs, opened.maps) == []
            assert standing() == before
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert len(opened.repair().lines) == 3
    assert standing() == before
    table = (maps / "connections").lstat()
    assert (table.st_gid, stat.S_IMODE(table.st_mode)) == (GROUP, 0o660)
