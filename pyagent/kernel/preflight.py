"""What this machine has of what kubesock needs, each answer found by trying, without a trace left behind."""

from __future__ import annotations

import errno
import importlib.util
import os
import platform
import re
import resource
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from pyagent.kernel import capabilities
from pyagent.kernel.bpf_syscall import lift_locked_memory
from pyagent.kernel.features import Feature, explain_errno, kernel_version
from pyagent.model.failures import KubesockError

MINIMUM_KERNEL = (5, 10)
PROVEN_ARCHITECTURES = frozenset({"x86_64"})


class State(Enum):
    """What became of a check."""

    FOUND = "found"
    MISSING = "missing"
    WARNING = "warning"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """One row of `kubesock check`.

    Attributes:
        needed: without it nothing works; else the remedy says what is less.
        detail: what was seen.
        remedy: what to do, empty where nothing is wrong.
    """

    check: str
    state: State
    needed: bool
    detail: str
    remedy: str = ""


def findings(bpffs: Path, cgroup: Path | None) -> Iterator[Finding]:
    """Every check, the cheap and decisive ones first. A check that fails in itself becomes a row."""
    from pyagent.kernel import preflight_bpf, preflight_cgroup, preflight_outside

    yield from _guarded("kernel version", _kernel)
    yield from _guarded("architecture", _architecture)
    yield from _guarded("capabilities", _capabilities)
    yield from _guarded("locked memory", _locked_memory)
    yield from _guarded("BCC", _bcc)
    yield from _guarded("UAPI headers", _uapi_headers)
    for name, probe in preflight_bpf.PROBES.items():
        yield from _guarded(name, probe)
    yield from _guarded("BPF file system", lambda: preflight_cgroup.bpf_file_system(bpffs))
    yield from _guarded("cgroup v2", lambda: preflight_cgroup.cgroup(cgroup))
    yield from _guarded("cgroup v1", preflight_cgroup.version_1)
    yield from _guarded("other programs", lambda: preflight_cgroup.other_programs(bpffs, cgroup))
    yield from _guarded("pins", lambda: preflight_cgroup.pins(bpffs))
    yield from _guarded("traffic from outside", lambda: preflight_outside.outside(bpffs))


def _guarded(name: str, probe: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from probe()
    except PermissionError as error:
        yield Finding(name, State.UNKNOWN, False, str(error), "run as root to learn it")
    except (OSError, KubesockError) as error:
        yield Finding(name, State.UNKNOWN, False, str(error))


def _kernel() -> Iterator[Finding]:
    found, wanted = kernel_version(), ".".join(map(str, MINIMUM_KERNEL))
    if found >= MINIMUM_KERNEL:
        yield Finding("kernel version", State.FOUND, True, f"{platform.release()}, {wanted} or later needed")
    else:
        yield Finding(
            "kernel version", State.MISSING, True, platform.release(), f"boot Linux {wanted} or later"
        )


def _architecture() -> Iterator[Finding]:
    machine = platform.machine()
    if machine in PROVEN_ARCHITECTURES:
        yield Finding("architecture", State.FOUND, True, machine)
    else:
        yield Finding(
            "architecture",
            State.MISSING,
            True,
            machine,
            "not supported until the order of stores is proven there; use x86_64",
        )


def _capabilities() -> Iterator[Finding]:
    lacking = capabilities.lacking()
    detail = ", ".join(sorted(capabilities.held())) or f"none (uid {os.geteuid()})"
    if lacking:
        remedy = f"run as root, or grant {', '.join(lacking)}; the answers below are partial without"
        yield Finding("capabilities", State.MISSING, True, detail, remedy)
    else:
        yield Finding("capabilities", State.FOUND, True, detail)


def _locked_memory() -> Iterator[Finding]:
    if kernel_version() >= (5, 11):
        yield Finding("locked memory", State.FOUND, True, "accounted to the cgroup, not limited by rlimit")
        return
    lift_locked_memory()  # as the agent does, for this process alone
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        yield Finding("locked memory", State.FOUND, True, "unlimited, or the agent makes it so")
    else:
        yield Finding(
            "locked memory",
            State.MISSING,
            True,
            f"limited to {hard} bytes",
            "grant CAP_SYS_RESOURCE, or raise it: `ulimit -l unlimited`, in systemd LimitMEMLOCK=infinity",
        )


def bcc_version() -> str:
    """Version of BCC's Python binding, without importing it; empty where it is not installed."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or not _is_real_bcc(spec.origin):
        return ""
    text = Path(str(spec.origin)).with_name("version.py")
    found = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", text.read_text()) if text.exists() else None
    return found.group(1) if found else "installed"


def _is_real_bcc(origin: str | None) -> bool:
    # An unrelated package of the same name is on the Python index; only the real one brings libbcc.py.
    return origin is not None and Path(origin).with_name("libbcc.py").exists()


def _bcc() -> Iterator[Finding]:
    package = (
        "install python3-bpfcc (Debian, Ubuntu) or python3-bcc (Fedora), and use the distribution's own"
        " python3, in a venv made with --system-site-packages"
    )
    if version := bcc_version():
        yield Finding("BCC", State.FOUND, True, version)
    elif importlib.util.find_spec("bcc") is not None:
        remedy = f"`pip uninstall bcc`: that is an unrelated lattice library; {package}"
        yield Finding("BCC", State.MISSING, True, "the Python index's package of that name", remedy)
    else:
        yield Finding("BCC", State.MISSING, True, "not installed; needed by `run` alone", package)


def _uapi_headers() -> Iterator[Finding]:
    header = Path("/usr/include/linux/types.h")
    if header.exists():
        yield Finding("UAPI headers", State.FOUND, True, str(header.parent))
    else:
        remedy = "install linux-libc-dev (Debian, Ubuntu) or kernel-headers (Fedora)"
        yield Finding("UAPI headers", State.MISSING, True, f"{header} is not there", remedy)


def feature_finding(feature: Feature) -> Finding:
    """A kernel feature as a row."""
    detail = f"since Linux {feature.since}" + (f"; {feature.error}" if feature.error else "")
    if feature.present:
        return Finding(feature.name, State.FOUND, feature.needed, detail)
    return Finding(feature.name, State.MISSING, feature.needed, detail, feature.without)


def refusal_finding(name: str, needed: bool, error: OSError, remedy: str = "") -> Finding:
    """A row for a probe that the kernel refused: unknown where that is for lack of rights."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return Finding(name, State.UNKNOWN, needed, os.strerror(error.errno), explain_errno(error))
    return Finding(name, State.MISSING, needed, error.strerror or str(error), remedy or explain_errno(error))
