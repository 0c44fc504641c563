"""What this machine must have before a demo or a kernel test can run, each lack with its remedy."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path
from typing import NamedTuple

from pyagent.kernel.features import explain_errno, sock_addr_error

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


class Missing(NamedTuple):
    """Something that is not there, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def missing_requirements() -> list[Missing]:
    """Everything this process lacks to build namespaces and to load BPF programs; empty if nothing."""
    return [*_privilege(), *_kernel(), *_bcc()]


def cgroup2_root() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted; None: nowhere. Hybrid layouts put it below /sys/fs/cgroup."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split(" ")
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(target.encode().decode("unicode_escape"))
    return None


def effective_capabilities() -> int:
    """The capability bits of this process (proc_pid_status(5), CapEff)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _privilege() -> list[Missing]:
    held = effective_capabilities()
    if os.geteuid() == 0 and all(held >> bit & 1 for bit in (CAP_NET_ADMIN, CAP_SYS_ADMIN)):
        return []
    if os.geteuid() == 0:
        return [
            Missing(
                "capabilities", "CAP_SYS_ADMIN and CAP_NET_ADMIN are dropped; run it outside this container"
            )
        ]
    return [Missing("root", "namespaces, cgroups and BPF programs need it; run it again with sudo")]


def _kernel() -> list[Missing]:
    if platform.system() != "Linux":
        return [Missing("Linux", "the programs run in a Linux kernel, 5.10 or newer; use a virtual machine")]
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())
    known = Path("/proc/filesystems").read_text().split()
    found = []
    if release < (5, 10):
        found.append(Missing("Linux 5.10", f"this is {platform.release()}; boot a newer kernel"))
    if "bpf" not in known:
        found.append(Missing("BPF", "this kernel has no bpf file system; boot one with CONFIG_BPF_SYSCALL=y"))
    if "cgroup2" not in known:
        found.append(Missing("cgroup v2", "boot a kernel with CONFIG_CGROUPS=y and CONFIG_CGROUP_BPF=y"))
    if os.geteuid() == 0 and "bpf" in known and (error := sock_addr_error()):
        found.append(Missing("BPF programs for sockets of a cgroup", explain_errno(error)))
    if not Path("/proc/self/ns/net").exists():
        found.append(Missing("network namespaces", "boot a kernel with CONFIG_NET_NS=y"))
    if not Path("/proc/net/if_inet6").exists():
        found.append(Missing("IPv6", "boot without ipv6.disable=1; half of what is shown is IPv6"))
    return found


def _bcc() -> list[Missing]:
    spec = importlib.util.find_spec("bcc")
    # An unrelated package of the same name is on the Python index; only the real one brings libbcc.py.
    if spec and spec.origin and Path(spec.origin).with_name("libbcc.py").exists():
        return []
    return [
        Missing(
            "BCC's Python binding",
            "install the distribution's package (Debian, Ubuntu: python3-bpfcc; Fedora: python3-bcc) and use "
            "a virtual environment of that Python with --system-site-packages",
        )
    ]
