"""Completion in real shells, at a real terminal: verbs, flags, and names from pinned maps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo.agent_process import kubesock
from pyagent.kernel.map_set import MapSet
from tests.datapath.ground.listed import pin_two_services
from tests.datapath.ground.terminal import Terminal

pytestmark = pytest.mark.kernel

COLONS = (
    "backends --bpffs {bpffs} shop/we",
    "backends --bpffs {bpffs} shop/web:",
    "backends --bpffs {bpffs} shop/web:h",
)
TYPED = (
    ("stat", "kubesock status"),
    ("services --bpffs {bpffs} -n sh", "-n shop"),
    ("services --bpffs {bpffs} --namespace=sh", "--namespace=shop"),
    ("services --no-hea", "--no-headers"),
    ("services -o wi", "-o wide"),
    *((line, "{bpffs} shop/web:http/TCP") for line in COLONS),
)
"""What is typed after `kubesock`, and what stands on the line after Tab."""

STARTS = {
    "bash": ("bash --norc --noprofile -i", "source <(kubesock completion bash)"),
    "zsh": ("zsh -f -i", "autoload -U compinit && compinit -u -D && source <(kubesock completion zsh)"),
}


@pytest.fixture
def maps(bpffs: Path) -> Iterator[MapSet]:
    made_set = pin_two_services(bpffs)
    yield made_set
    made_set.close()


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command `kubesock` of this interpreter and this package."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "kubesock"
    script.write_text(f"#!{sys.executable}\n{kubesock()[2]}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))


@pytest.mark.parametrize("shell", STARTS)
def test_tab_completes_at_a_prompt(
    shell: str, bpffs: Path, maps: MapSet, on_path: None, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: `make shells-check`")
    command, source = STARTS[shell]
    terminal = Terminal(tmp_path, command.split(), size=(200, 40))
    try:
        terminal.keys("PS1='ready> '; " + source, "Enter")
        terminal.shows("\nready>")
        for typed, shown in TYPED:
            terminal.keys("C-u", "C-l")
            terminal.keys("-l", "kubesock " + typed.format(bpffs=bpffs))
            terminal.keys("Tab")
            terminal.shows(shown.format(bpffs=bpffs))
    finally:
        terminal.close()


def test_fish_offers_names_and_verbs(bpffs: Path, maps: MapSet, on_path: None) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed: `make shells-check`")
    asked = [f"kubesock {typed.format(bpffs=bpffs)}" for typed, _ in TYPED]
    script = "kubesock completion fish | source; " + "; ".join(
        f"complete --do-complete '{line}'; echo =====" for line in asked
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    offered = [part.split() for part in done.stdout.split("=====\n")]
    for (typed, shown), words in zip(TYPED, offered, strict=False):
        wanted = shown.format(bpffs=bpffs).split()[-1]
        assert wanted in words, f"{typed}: {words}"
