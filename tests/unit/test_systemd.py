"""The unit and its configuration against systemd and against the command line."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from pyagent.agent.config import parse_run_options
from pyagent.agent.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "kubesock.service"
DEFAULTS = {option.flag: option.default for option in OPTIONS}


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)  # a key twice would raise
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "kubesock"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = tmp_path / "kubesock.service"
    made.write_text(UNIT.read_text(encoding="utf-8").replace("@PREFIX@", str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(made)], capture_output=True, text=True, check=False
    )
    about_it = [line for line in done.stderr.splitlines() if "kubesock" in line]
    assert done.returncode == 0, done.stderr
    assert about_it == []


def test_the_unit_starts_what_the_command_line_knows() -> None:
    words = unit()["Service"]["ExecStart"].split()
    assert words[:2] == ["@PREFIX@/bin/kubesock", "run"]
    assert {word for word in words if word.startswith("--")} <= DEFAULTS.keys()


def test_its_paths_are_the_agents_own() -> None:
    service = unit()["Service"]
    state = DEFAULTS["--state-dir"]
    assert f"/var/lib/{service['StateDirectory']}" == state
    assert f"--config {state}/config.yaml" in service["ExecStart"]
    bpffs = unit()["Unit"]["AssertPathIsMountPoint"]
    assert DEFAULTS["--bpffs"].startswith(bpffs + "/")
    assert bpffs in service["ReadWritePaths"].split()


def test_it_asks_for_the_protocol_that_the_agent_speaks() -> None:
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert int(service["WatchdogSec"]) >= 30  # a first plan at 10,000 Services takes seconds


def test_the_configuration_that_is_installed_is_one(tmp_path: Path) -> None:
    config = parse_run_options({"--config": str(FOLDER / "config.yaml")}, environ={}, hostname="n")
    assert config.kubeconfig == "/var/lib/kubesock/kubeconfig"
    assert not [note for note in config.notes if "ignored" in note]
