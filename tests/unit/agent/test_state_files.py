"""What `cleanup` takes away of the agent's state: its own files, and nothing that a link leads to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyagent.agent.state_files import PROGRAMS, is_in_use
from pyagent.cli.main import kubesock
from pyagent.cluster.server_address import FILE_NAME, remember
from pyagent.kernel.program_cache import ProgramCache
from pyagent.view.agent_socket import SOCKET

FOREIGN_UID = 12345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """As an agent that was killed leaves it."""
    folder = tmp_path / "state"
    remember(folder, ["192.0.2.1:6443"])
    (folder / f".{FILE_NAME}.half").write_text("{")
    ProgramCache(folder / PROGRAMS).put(b"source", {"connect4": bytes(8)})
    (folder / PROGRAMS / "unfinished-half").touch()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cleanup(state_dir: Path, *more: str) -> Result:
    arguments = ["cleanup", f"--bpffs={state_dir.parent / 'bpf'}", f"--state-dir={state_dir}", *more]
    return CliRunner().invoke(kubesock, arguments)


def test_nothing_is_left_and_a_dry_run_says_so_before(state_dir: Path) -> None:
    would = cleanup(state_dir, "--dry-run").output.splitlines()
    done = cleanup(state_dir)
    assert done.exit_code == 0
    assert sorted(would) == sorted(
        f"would {line.replace('removed', 'remove')}" for line in done.output.splitlines()[:-1]
    )
    assert done.output.splitlines()[-1] == f"removed {state_dir}"
    assert not state_dir.exists()
    assert cleanup(state_dir).output == f"nothing to remove below {state_dir.parent / 'bpf'}\n"


def test_what_a_link_in_the_place_of_the_folder_leads_to_stays(state_dir: Path, tmp_path: Path) -> None:
    (state_dir / PROGRAMS).rename(tmp_path / "elsewhere")
    (state_dir / PROGRAMS).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "foreign").touch()
    before = names(tmp_path / "elsewhere")
    assert len(before) == 3
    done = cleanup(state_dir)
    assert done.exit_code == 0
    assert f"removed {state_dir / PROGRAMS}\n" in done.output
    assert "elsewhere" not in done.output
    assert names(tmp_path / "elsewhere") == before
    assert not state_dir.exists()


@pytest.mark.parametrize("name", [FILE_NAME, SOCKET])
def test_what_a_link_in_the_place_of_a_file_leads_to_stays(
    state_dir: Path, tmp_path: Path, name: str
) -> None:
    for target in (tmp_path / "file", tmp_path / "nowhere"):
        state_dir.mkdir(exist_ok=True)
        (tmp_path / "file").write_text("of others")
        (state_dir / name).unlink(missing_ok=True)
        (state_dir / name).symlink_to(target)
        assert cleanup(state_dir).exit_code == 0
        assert not state_dir.exists()
        assert (tmp_path / "file").read_text() == "of others"


def test_files_of_others_stay_and_are_named_on_one_line(state_dir: Path) -> None:
    for foreign in (state_dir / "notes", state_dir / PROGRAMS / "not\x1b[2J\nours"):
        foreign.write_text("of others")
    (state_dir / PROGRAMS / "unfinished-\x1b\n").touch()
    done = cleanup(state_dir)
    assert done.exit_code == 0
    assert names(state_dir) == ["notes", PROGRAMS]
    assert names(state_dir / PROGRAMS) == ["not\x1b[2J\nours"]
    assert f"kubesock: {state_dir / PROGRAMS} stays: 'not\\x1b[2J\\nours' in it is not ours\n" in done.output
    assert all(line.isprintable() for line in done.output.splitlines())


def test_a_folder_by_the_name_of_a_file_stays_and_the_rest_goes(state_dir: Path) -> None:
    (state_dir / SOCKET).mkdir()
    (state_dir / PROGRAMS / "x.programs.json").mkdir()
    done = cleanup(state_dir)
    assert done.exit_code == 0
    assert f"{state_dir / SOCKET} stays: it is a folder" in done.output
    assert f"{state_dir / PROGRAMS / 'x.programs.json'} stays: it is a folder" in done.output
    assert names(state_dir) == [SOCKET, PROGRAMS]
    assert names(state_dir / PROGRAMS) == ["x.programs.json"]


def test_a_file_by_the_name_of_the_folder_goes(state_dir: Path) -> None:
    cleanup(state_dir)
    state_dir.mkdir()
    (state_dir / PROGRAMS).write_text("in the way")
    assert cleanup(state_dir).exit_code == 0
    assert not state_dir.exists()


@needs_root
def test_a_folder_of_another_user_is_left_to_him(state_dir: Path) -> None:
    os.chown(state_dir / PROGRAMS, FOREIGN_UID, -1)
    done = cleanup(state_dir)
    assert f"{state_dir / PROGRAMS} stays: " in done.output
    assert f"belongs to uid {FOREIGN_UID}" in done.output
    assert len(names(state_dir / PROGRAMS)) == 2
    assert not (state_dir / FILE_NAME).exists()


def test_what_cannot_be_removed_is_an_error_after_the_rest_is_gone(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if str(path).endswith(".programs.json"):
            raise PermissionError(1, "Operation not permitted", path)
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    done = cleanup(state_dir)
    (kept,) = names(state_dir / PROGRAMS)
    assert names(state_dir) == [PROGRAMS]
    assert f"{state_dir / PROGRAMS / kept} cannot be removed: Operation not permitted" in str(done.exception)
    assert f"removed {state_dir / FILE_NAME}\n" in done.output


def test_an_agent_behind_a_long_path_is_seen(tmp_path: Path) -> None:
    state_dir = tmp_path / ("x" * 120)
    state_dir.mkdir()
    assert not is_in_use(state_dir)
    folder = os.open(state_dir, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(f"/proc/self/fd/{folder}/{SOCKET}")
        os.close(folder)
        assert not is_in_use(state_dir), "nobody listens"
        agent.listen()
        assert is_in_use(state_dir)
    assert not is_in_use(state_dir)
    assert not is_in_use(state_dir / SOCKET)
    assert not is_in_use(tmp_path / "nowhere")
