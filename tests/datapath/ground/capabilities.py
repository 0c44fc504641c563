"""Agents and verbs that are denied capabilities."""

from __future__ import annotations

from pathlib import Path

NEEDED = ("bpf", "net_admin", "perfmon")
NUMBERS = {"net_bind_service": 10, "net_admin": 12, "sys_ptrace": 19, "sys_admin": 21, "sys_resource": 24}


def with_only(*capabilities: str) -> tuple[str, ...]:
    """Run what follows as root with these and no others, for good."""
    kept = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    return ("setpriv", f"--bounding-set={kept}", f"--inh-caps={kept}", "--no-new-privs")


def can_be_had(name: str) -> bool:
    """Whether this process may pass it on: a container or virtual machine may have none to give."""
    lines = Path("/proc/self/status").read_text().splitlines()
    bounding = int(next(line.split()[1] for line in lines if line.startswith("CapBnd")), 16)
    return bool(bounding >> NUMBERS[name] & 1)
