"""The command line as a process: errors in one line, exit codes, nothing imported that is not needed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ENTRY = "import sys; sys.argv[0] = 'kubesock'; from pyagent.cli.main import main; sys.exit(main())"
SLOW = {"bcc", "kubernetes", "textual", "rich", "pyroute2", "prometheus_client", "http", "yaml", "asyncio"}

READERS = {"cli", "datapath", "kernel", "model", "own_folder", "view"}
"""What the verbs that read pins are made of: nothing of the agent's."""


def kubesock(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture
def nothing_pinned(tmp_path: Path) -> str:
    return f"--bpffs={tmp_path}"


@pytest.mark.parametrize(
    "verb",
    [
        "services", "backends", "affinity", "maps", "status", "connections", "events", "top --once",
        "explain 10.96.0.1:80", "migrate compare",
    ],
)  # fmt: skip
def test_where_nothing_is_pinned_a_reader_ends_with_3_and_one_line(verb: str, nothing_pinned: str) -> None:
    done = kubesock(*verb.split(), nothing_pinned)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "nothing is pinned there" in done.stderr
    assert "kubesock run" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-flag"],
        ["no-such-verb"],
        ["services", "--no-such-flag"],
        ["services", "-o", "xml"],
        ["services", "--interval", "soon"],
        ["services", "a", "b"],
        ["completion", "tcsh"],
        ["completion"],
        ["maps", "--raw"],
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(arguments: list[str]) -> None:
    done = kubesock(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kubesock: ")
    assert done.stderr.count("\n") == 1


def test_an_error_that_quotes_control_characters_does_not_emit_them() -> None:
    # Not colours alone, which click takes out by itself where nobody looks.
    done = kubesock("services", "--bpffs", "/no\x1b[31m\x1b]0;title\x07\x9b2J\r\u202e\nwhere")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip("\n").isprintable()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
@pytest.mark.parametrize("verb", ["services", "maps", "status", "cleanup"])
def test_pins_that_only_root_may_read_end_with_3_and_one_line(verb: str) -> None:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        pins = Path(parent, "pins")
        pins.mkdir(mode=0o700)
        done = subprocess.run(
            [sys.executable, "-c", ENTRY, verb, "--bpffs", str(pins)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=65534,
            group=65534,
            extra_groups=[],
            cwd="/",
        )
    if done.returncode == 1:
        pytest.skip(f"nobody cannot read this tree: {done.stderr[-200:]}")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.lower() == f"kubesock: {pins}: permission denied; run as root\n"


def test_cleanup_leaves_the_state_folder_of_an_agent_with_other_pins(tmp_path: Path) -> None:
    arguments = ("cleanup", f"--bpffs={tmp_path / 'mine'}", f"--state-dir={tmp_path}")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent.sock"))
        agent.listen()
        assert "would remove" not in kubesock(*arguments, "--dry-run").stdout
        done = kubesock(*arguments)
        assert done.returncode == 0
        assert "another agent" in done.stderr
        assert (tmp_path / "agent.sock").exists()
    assert f"removed {tmp_path / 'agent.sock'}" in kubesock(*arguments).stdout


@pytest.mark.parametrize("before", [True, False])
def test_a_traceback_comes_with_v_alone(before: bool, nothing_pinned: str) -> None:
    assert "Traceback" not in kubesock("services", nothing_pinned).stderr
    arguments = ["-v", "services"] if before else ["services", "-v"]
    done = kubesock(*arguments, nothing_pinned)
    assert done.returncode == 3
    assert "Traceback" in done.stderr


def test_a_failure_that_nobody_foresaw_is_one_line_and_names_the_way_to_more() -> None:
    broken = (
        "import sys, pyagent.cli.main as m\n"
        "m.VERBS['services'] = m.Verb('no.such.module:verb', '')\n"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", broken, "services"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "-v" in done.stderr


def test_a_reader_who_has_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", ENTRY, "version"],
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_with_130() -> None:
    interrupted = (
        "import sys, click, pyagent.cli.main as m\n"
        "@click.command()\n"
        "def services(): raise KeyboardInterrupt\n"
        "m.LazyGroup.get_command = lambda *_: services\n"
        "sys.exit(m.main(['services']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupted], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (130, "")


@pytest.mark.parametrize("verb", ["services", "backends", "affinity", "maps", "status"])
def test_a_reader_imports_nothing_heavy(verb: str, nothing_pinned: str) -> None:
    listing = (
        "import sys; from pyagent.cli.main import main; before = set(sys.modules)\n"
        "main(sys.argv[1:]); print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", listing, verb, nothing_pinned],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        # Without `site`, whose .pth files bring what they like.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    modules = done.stdout.split()
    imported = {name.split(".")[0] for name in modules}
    assert f"pyagent.cli.{verb}" in modules
    assert not imported & SLOW
    # A library that comes in by a module of ours is seen here before it is felt.
    others = imported - set(sys.stdlib_module_names) - {"__main__"}
    assert others <= {"pyagent", "click", "msgspec", "typing_extensions"}
    folders = {name.split(".")[1] for name in modules if name.startswith("pyagent.")}
    assert folders <= READERS


def test_help_lists_every_verb_without_loading_one() -> None:
    from pyagent.cli.main import VERBS

    done = kubesock("--help")
    assert done.returncode == 0
    listed = done.stdout.partition("Verbs:")[2]
    assert re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE) == list(VERBS)


@pytest.mark.parametrize("verb", ["services", "backends", "affinity", "maps"])
def test_every_list_verb_has_the_flags_of_lists(verb: str) -> None:
    text = kubesock(verb, "--help").stdout
    for flag in ("-l", "-w", "-o", "--no-headers", "--sort-by", "--bpffs", "--color"):
        assert f"{flag}" in text, flag


def test_version_tells_the_layout_and_the_kernel() -> None:
    done = kubesock("version", "-o", "json")
    found = json.loads(done.stdout)
    assert found["kind"] == "Version"
    assert found["kernel"] == os.uname().release
    assert found["layout"] == 1
    assert found["kubesock"][0].isdigit()


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete")])
def test_completion_prints_a_script_for_the_shell(shell: str, word: str) -> None:
    done = kubesock("completion", shell)
    assert done.returncode == 0
    assert word in done.stdout
    assert "_KUBESOCK_COMPLETE" in done.stdout


def test_the_shell_completes_verbs_and_maps() -> None:
    def complete(line: str) -> list[str]:
        done = kubesock(_KUBESOCK_COMPLETE="bash_complete", COMP_LINE=line)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("kubesock se") == ["services"]
    assert complete("kubesock maps front") == ["frontends"]


def test_the_shell_completes_no_name_where_nothing_can_be_read(tmp_path: Path) -> None:
    done = kubesock(
        _KUBESOCK_COMPLETE="bash_complete",
        COMP_LINE=f"kubesock services --bpffs {tmp_path} sh",
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("argument", [["-v=2"], ["-v2"], ["-v", "2"], ["--v=2"]], ids=" ".join)
def test_the_verbosity_may_be_written_as_for_kube_proxy(argument: list[str], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    done = kubesock("run", *argument, "--manifests", str(tmp_path), "--write-config-to", str(file))
    assert done.returncode == 0, done.stderr
    assert "verbosity: 2" in file.read_text()
