"""What others could have written is not read, whatever the way to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyagent.own_folder import NotOurs, opened

FOREIGN_UID = 12345
NAME = "kept"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ours"
    made.mkdir(mode=0o700)
    (made / NAME).write_text("content")
    (made / NAME).chmod(0o600)
    return made


def read(folder: Path, through_link: bool = False) -> bytes:
    with opened(folder, through_link=through_link) as own:
        return own.read(NAME, 100)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o644])
def test_what_others_may_read_at_most_is_read(folder: Path, mode: int) -> None:
    (folder / NAME).chmod(mode)
    assert read(folder) == b"content"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not(folder: Path, mode: int) -> None:
    (folder / NAME).chmod(mode)
    with pytest.raises(NotOurs, match=f"{NAME} is not used: others may write it, mode {mode:04o}"):
        read(folder)


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_a_file_of_another_user_is_not(folder: Path, mode: int) -> None:
    (folder / NAME).chmod(mode)
    os.chown(folder / NAME, FOREIGN_UID, -1)
    with pytest.raises(NotOurs, match=f"{NAME} is not used: it belongs to uid {FOREIGN_UID}; remove it"):
        read(folder)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
@pytest.mark.parametrize("through_link", [False, True])
def test_a_folder_that_others_may_write_is_not(folder: Path, mode: int, through_link: bool) -> None:
    folder.chmod(mode)
    with pytest.raises(NotOurs, match="ours is not used: others may write it"):
        read(folder, through_link)


@needs_root
@pytest.mark.parametrize("through_link", [False, True])
def test_a_folder_of_another_user_is_not(folder: Path, through_link: bool) -> None:
    os.chown(folder, FOREIGN_UID, -1)
    with pytest.raises(NotOurs, match=f"ours is not used: it belongs to uid {FOREIGN_UID}"):
        read(folder, through_link)


def test_a_link_to_the_folder_is_followed_only_where_the_command_line_named_it(folder: Path) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    with pytest.raises(NotOurs, match="link is not used: it is a link"):
        read(link)
    assert read(link, through_link=True) == b"content"


def test_a_link_in_the_folder_is_not_followed(folder: Path) -> None:
    (folder / NAME).rename(folder / "elsewhere")
    (folder / NAME).symlink_to("elsewhere")
    with pytest.raises(NotOurs, match=f"{NAME} is not used: it is a link"):
        read(folder)


def test_a_pipe_or_a_folder_in_the_place_of_the_file_keeps_nobody_waiting(folder: Path) -> None:
    (folder / NAME).unlink()
    for make in (os.mkfifo, os.mkdir):
        make(folder / NAME)
        with pytest.raises(NotOurs, match="no plain file"):
            read(folder)
        (folder / NAME).rmdir() if (folder / NAME).is_dir() else (folder / NAME).unlink()


def test_no_more_than_the_limit_is_read(folder: Path) -> None:
    with opened(folder) as own:
        assert own.read(NAME, 3) == b"con"


def test_what_is_not_there(folder: Path) -> None:
    (folder / NAME).unlink()
    with pytest.raises(FileNotFoundError):
        read(folder)
    with pytest.raises(FileNotFoundError):
        read(folder / "nowhere")


def test_a_written_file_is_for_its_owner_and_takes_the_place_of_a_link(folder: Path) -> None:
    before = os.umask(0)
    try:
        (folder / NAME).rename(folder / "elsewhere")
        (folder / NAME).symlink_to("elsewhere")
        with opened(folder) as own:
            own.write(NAME, b"new", "unfinished-")
            assert own.names() == ["elsewhere", NAME]
    finally:
        os.umask(before)
    assert read(folder) == b"new"
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert (folder / "elsewhere").read_text() == "content"


def test_a_file_that_cannot_take_its_place_leaves_nothing_half_written(folder: Path) -> None:
    (folder / "taken").mkdir()
    with opened(folder) as own:
        with pytest.raises(IsADirectoryError):
            own.write("taken", b"new", "unfinished-")
        assert own.names() == [NAME, "taken"]
