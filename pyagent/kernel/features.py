"""What this kernel can do, each answer found by trying."""

from __future__ import annotations

import errno
import os
import struct
from functools import cache
from typing import NamedTuple

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import capabilities

PROGRAM_SOCK_ADDR = 18
ATTACH_CONNECT4 = 10
_KIND = bpf.ProgramKind(PROGRAM_SOCK_ADDR, ATTACH_CONNECT4)
HELPER_SET_RETVAL = 187
HELPER_COARSE_CLOCK = 160


class Feature(NamedTuple):
    """One thing a kernel has or lacks.

    Attributes:
        needed: without it nothing works; else `without` says what is less.
        error: what the kernel said.
    """

    name: str
    present: bool
    needed: bool
    since: str
    without: str
    error: str = ""


def _loads(*instructions: bytes) -> OSError | None:
    try:
        fd = bpf.program_load(_KIND, b"".join(instructions), "probe")
    except OSError as error:
        return error
    os.close(fd)
    return None


def instruction(code: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One `struct bpf_insn`."""
    return struct.pack("=BBhi", code, source << 4 | destination, offset, value)


RETURN_1 = instruction(0xB7, 0, value=1) + instruction(0x95)


def _call(helper: int) -> bytes:
    return instruction(0xB7, 1, value=0) + instruction(0x85, value=helper)


@cache
def sock_addr_error() -> OSError | None:
    """Why programs of this kind cannot be loaded at all; None: they can."""
    return _loads(RETURN_1)


@cache
def has_set_retval() -> bool:
    """bpf_set_retval in connect hooks (Linux 5.18)."""
    return _loads(_call(HELPER_SET_RETVAL), RETURN_1) is None


@cache
def has_coarse_clock() -> bool:
    """bpf_ktime_get_coarse_ns (Linux 5.11)."""
    return _loads(_call(HELPER_COARSE_CLOCK), RETURN_1) is None


@cache
def has_iterator_cookie() -> bool:
    """bpf_get_socket_cookie in tracing programs (Linux 5.12), by the kernel's version.

    A probe program would have to name a BTF id; the version is what decides on every kernel we know.
    """
    return kernel_version() >= (5, 12)


def kernel_version() -> tuple[int, int]:
    """(major, minor) of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def explain_errno(error: OSError) -> str:
    """What a refusal of bpf(2) usually means, as an instruction."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return capabilities.remedy()
    if error.errno == errno.ENOSYS:
        return "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL=y"
    if error.errno == errno.EINVAL:
        return "this kernel lacks the program type: it needs CONFIG_CGROUP_BPF=y and Linux 5.10 or later"
    return os.strerror(error.errno or 0)
