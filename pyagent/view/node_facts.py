"""What a support bundle tells of the machine: from files that hold no secrets, and from no environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

LOG_LINES = 5000
UNIT = "kubesock"
_FILES = {
    "os-release.txt": "/etc/os-release",
    "kernel-command-line.txt": "/proc/cmdline",
    "memory.txt": "/proc/meminfo",
    "pressure-cpu.txt": "/proc/pressure/cpu",
    "security-modules.txt": "/sys/kernel/security/lsm",
    "lockdown.txt": "/sys/kernel/security/lockdown",
}
_SETTINGS = (
    "kernel/unprivileged_bpf_disabled", "kernel/bpf_stats_enabled", "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden", "kernel/perf_event_paranoid",
)  # fmt: skip
_KINDS_OF_MOUNTS = {"bpf", "cgroup", "cgroup2"}


def machine_facts(bpffs: Path, agent: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """Names of texts, and what makes each.

    Args:
        agent: process id of the agent; 0: none.
    """
    yield "machine/kernel.txt", lambda: " ".join(os.uname()) + "\n"
    for name, path in _FILES.items():
        if Path(path).exists():
            yield f"machine/{name}", Path(path).read_text
    yield "machine/settings.txt", _settings
    yield "machine/mounts.txt", _mounts
    yield "pins.txt", lambda: _tree(bpffs)
    if agent:
        for part in ("status", "limits", "cgroup", "cmdline"):
            yield f"agent/process-{part}.txt", lambda part=part: _process(agent, part)  # type: ignore[misc]
    if shutil.which("journalctl"):
        yield "agent/log.txt", _log


def _settings() -> str:
    lines = []
    for name in _SETTINGS:
        path = Path("/proc/sys", name)
        if path.exists():
            lines.append(f"{name.replace('/', '.')} = {path.read_text().strip()}\n")
    return "".join(lines)


def _mounts() -> str:
    lines = Path("/proc/self/mountinfo").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if line.partition(" - ")[2].split(" ")[0] in _KINDS_OF_MOUNTS)


def _tree(folder: Path) -> str:
    lines = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            facts = path.lstat()
            target = f" -> {path.readlink()}" if path.is_symlink() else ""
            lines.append(f"{facts.st_mode:o} {facts.st_uid} {path}{target}\n")
    return "".join(lines) or f"{folder}: nothing there\n"


def _process(pid: int, part: str) -> str:
    return Path(f"/proc/{pid}/{part}").read_text().replace("\0", " ").rstrip() + "\n"


def _log() -> str:
    """What the unit wrote to the journal of systemd; in a pod `kubectl logs` has it instead."""
    command = ["journalctl", "--unit", UNIT, "--lines", str(LOG_LINES), "--no-pager", "--output", "cat"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, errors="replace")
    return done.stdout or done.stderr or "nothing\n"
