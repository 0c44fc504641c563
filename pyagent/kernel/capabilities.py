"""The capabilities of this process, and which it lacks of those that serving takes."""

from __future__ import annotations

from pathlib import Path

NUMBERS = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}  # linux/capability.h
SERVING = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON")


def held() -> frozenset[str]:
    """Those of NUMBERS that this process has in effect (proc_pid_status(5), CapEff)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for name, bit in NUMBERS.items() if bits >> bit & 1)
    return frozenset()


def lacking() -> tuple[str, ...]:
    """Those of SERVING that it has not. The kernel takes CAP_SYS_ADMIN for BPF and for PERFMON."""
    has = held()
    if "CAP_SYS_ADMIN" in has:
        has |= {"CAP_BPF", "CAP_PERFMON"}
    return tuple(name for name in SERVING if name not in has)


def remedy() -> str:
    """What to do where the kernel refused for lack of rights."""
    missing = lacking()
    return (f"it lacks {', '.join(missing)}: " if missing else "") + (
        "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON and a seccomp profile that allows bpf(2)"
    )
