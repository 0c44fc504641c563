"""What the figures were taken on, without anything that names the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path


def facts(command: str) -> list[tuple[str, str]]:
    """(name, value) of everything that a reader needs to compare figures."""
    return [
        ("command", f"`{command}`"),
        ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
        ("processor", f"{len(os.sched_getaffinity(0))} × {_processor()}"),
        ("memory", f"{_memory() / 1e9:.0f} GB"),
        ("kernel", platform.release().split("-")[0]),
        ("distribution", platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")),
        ("Python", platform.python_version()),
        ("kubesock", metadata.version("kubesock")),
        ("BCC", _version_of("bcc")),
        ("C compiler", _first_line("cc", "--version")),
        ("nftables", _first_line("nft", "--version")),
        ("iptables", _first_line("iptables", "--version")),
        ("load before", " ".join(f"{value:.1f}" for value in os.getloadavg())),
    ]


def warning() -> tuple[str, ...]:
    """What to make of the figures if others use the machine."""
    if os.getloadavg()[0] < len(os.sched_getaffinity(0)) / 2:
        return ()
    return (
        "**The machine was busy with other work.** Ratios of calls made side by side hold, with colder",
        "caches than at rest. Times by the clock (`planning`, `memory`, `agent`, `cluster`, loading of the",
        "peers' rules) do not: they are several times longer than on a quiet machine; CPU times are nearer.",
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _version_of(module: str) -> str:
    # In a process of its own: importing BCC takes 70 MB and loads LLVM.
    import sys

    done = subprocess.run(
        [sys.executable, "-c", f"import {module}; print({module}.__version__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "absent"


def _first_line(command: str, flag: str) -> str:
    if shutil.which(command) is None:
        return "absent"
    done = subprocess.run([command, flag], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or ["unknown"])[0]
