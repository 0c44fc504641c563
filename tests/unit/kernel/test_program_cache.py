"""Kept programs are used only for what they were made from, and only if nobody has touched them."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from pyagent.kernel import program_cache
from pyagent.kernel.program_cache import MAX_FILES, ProgramCache

IDENTITY = b"source and definitions"
PROGRAMS = {"connect4": bytes(range(64)), "connect6": bytes(8)}
NAMES = sorted(PROGRAMS)
Uname = namedtuple("Uname", "release machine")


@pytest.fixture
def cache(tmp_path: Path) -> ProgramCache:
    made = ProgramCache(tmp_path / "programs")
    made.put(IDENTITY, PROGRAMS)
    return made


def the_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "programs").iterdir()
    return found


def test_what_was_kept_comes_back(cache: ProgramCache) -> None:
    assert cache.get(IDENTITY, NAMES) == PROGRAMS
    assert cache.get(IDENTITY, ["connect4"]) == {"connect4": PROGRAMS["connect4"]}


def test_another_source_is_another_program(cache: ProgramCache) -> None:
    assert cache.get(b"source and other definitions", NAMES) is None


def test_a_program_that_was_not_kept(cache: ProgramCache) -> None:
    assert cache.get(IDENTITY, [*NAMES, "sendmsg4"]) is None


@pytest.mark.parametrize("now", [Uname("99.1.0", os.uname().machine), Uname(os.uname().release, "arm64")])
def test_another_kernel(cache: ProgramCache, now: Uname, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: now)
    assert cache.get(IDENTITY, NAMES) is None


def test_another_compiler(cache: ProgramCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_cache, "_bcc_version", lambda: "another one")
    assert cache.get(IDENTITY, NAMES) is None


def _one_bit(data: bytes) -> bytes:
    document = json.loads(data)
    programs = json.loads(document["programs"])
    programs["connect4"] = "AAEC" + "/" + programs["connect4"][5:]
    return json.dumps({**document, "programs": json.dumps(programs, sort_keys=True)}).encode()


@pytest.mark.parametrize(
    "change",
    [
        _one_bit,
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"[1, 2]",
        lambda data: b"\xff" * 100,
        lambda data: data.replace(b'"sha256"', b'"sha1"'),
    ],
    ids=["one bit", "cut", "empty", "another document", "no text", "no digest"],
)
def test_a_file_that_was_changed(
    cache: ProgramCache, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = the_file(tmp_path)
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    assert cache.get(IDENTITY, NAMES) is None
    cache.put(IDENTITY, PROGRAMS)
    assert cache.get(IDENTITY, NAMES) == PROGRAMS


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write(cache: ProgramCache, tmp_path: Path, mode: int) -> None:
    the_file(tmp_path).chmod(mode)
    assert cache.get(IDENTITY, NAMES) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
@pytest.mark.parametrize("part", ["file", "folder"])
def test_what_belongs_to_another_user(
    cache: ProgramCache, tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    os.chown(the_file(tmp_path) if part == "file" else tmp_path / "programs", 12345, -1)
    assert cache.get(IDENTITY, NAMES) is None
    assert "it belongs to uid 12345; remove it" in caplog.text


def test_a_folder_that_is_a_link_is_neither_read_nor_written(cache: ProgramCache, tmp_path: Path) -> None:
    (tmp_path / "programs").rename(tmp_path / "elsewhere")
    (tmp_path / "programs").symlink_to(tmp_path / "elsewhere")
    assert cache.get(IDENTITY, NAMES) is None
    old = tmp_path / "elsewhere" / "unfinished-old"
    old.touch()
    os.utime(old, (0, 0))
    before = sorted((tmp_path / "elsewhere").iterdir())
    cache.put(b"another source", PROGRAMS)
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


def test_a_link_is_not_followed(cache: ProgramCache, tmp_path: Path) -> None:
    path = the_file(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.get(IDENTITY, NAMES) is None


def test_only_the_newest_are_kept(cache: ProgramCache, tmp_path: Path) -> None:
    for number in range(MAX_FILES + 3):
        cache.put(b"%d" % number, PROGRAMS)
        os.utime(tmp_path / "programs" / program_cache._file_name(b"%d" % number), (number, number))
    kept = [number for number in range(MAX_FILES + 3) if cache.get(b"%d" % number, NAMES) is not None]
    assert len(list((tmp_path / "programs").iterdir())) == MAX_FILES
    assert kept[-1] == MAX_FILES + 2


def test_what_a_killed_agent_left_half_written_goes(cache: ProgramCache, tmp_path: Path) -> None:
    old, fresh = (tmp_path / "programs" / f"unfinished-{name}" for name in ("old", "fresh"))
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    cache.put(b"another source", PROGRAMS)
    assert not old.exists()
    assert fresh.exists(), "somebody may be writing it"


def test_a_folder_that_cannot_be_written_costs_a_compilation(tmp_path: Path) -> None:
    (tmp_path / "programs").write_text("in the way")
    cache = ProgramCache(tmp_path / "programs")
    cache.put(IDENTITY, PROGRAMS)
    assert cache.get(IDENTITY, NAMES) is None
