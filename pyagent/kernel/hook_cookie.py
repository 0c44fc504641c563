"""A network namespace's cookie where SO_NETNS_COOKIE is missing (before Linux 5.14): asked of a connect hook.

bpf_get_netns_cookie() works in connect hooks since 5.7. A program of a dozen instructions is attached for a
moment to the caller's own cgroup; it knows one socket by its cookie, notes that socket's namespace, refuses
its connect(), and lets everything else pass.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.cgroup_paths import own_cgroup
from pyagent.kernel.features import ATTACH_CONNECT4, PROGRAM_SOCK_ADDR, instruction
from pyagent.kernel.mounts import cgroup2_root
from pyagent.model.failures import KernelRefused

SO_COOKIE = 57
_MAP_ARRAY = 2
_HELPER_SOCKET_COOKIE, _HELPER_NETNS_COOKIE = 46, 122
_LOAD_IMMEDIATE, _PSEUDO_MAP_VALUE = 0x18, 2
_JUMP_NOT_EQUAL, _CALL, _EXIT = 0x5D, 0x85, 0x95
_MOVE, _MOVE_REGISTER, _STORE_8 = 0xB7, 0xBF, 0x7B


def asked_netns_cookie() -> int:
    """The cookie of the caller's network namespace; 0 where the kernel does not tell."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as dialling:
        for cgroup in _cgroups():
            with suppress(OSError):  # no rights, or another program denies to be joined there
                if cookie := _ask(dialling, cgroup):
                    return cookie
    return 0


def _cgroups() -> list[Path]:
    """Our own; the root is for those whose own is not in sight."""
    with suppress(KernelRefused):
        return [own for own in (own_cgroup(), cgroup2_root()) if own is not None]
    return []


def _ask(dialling: socket.socket, cgroup: Path) -> int:
    with ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        answer = keep(bpf.map_create("netns_cookie", _MAP_ARRAY, 4, 8, 1))
        (wanted,) = struct.unpack("=Q", dialling.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
        kind = bpf.ProgramKind(PROGRAM_SOCK_ADDR, ATTACH_CONNECT4)
        program = keep(bpf.program_load(kind, _program(wanted, answer), "netns_cookie"))
        folder = keep(os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        keep(bpf.link_create(program, folder, ATTACH_CONNECT4))
        with suppress(PermissionError):  # the program's refusal
            dialling.connect(("127.0.0.1", 1))  # UDP: nothing is sent
        return int(struct.unpack("=Q", bpf.map_lookup(answer, bytes(4), 8) or bytes(8))[0])


def _program(socket_cookie: int, map_fd: int) -> bytes:
    """`if (socket_cookie(ctx) != wanted) return 1; answer = netns_cookie(ctx); return 0;`"""
    return b"".join(
        (
            instruction(_MOVE_REGISTER, 6, 1),
            instruction(_CALL, value=_HELPER_SOCKET_COOKIE),
            *_load_64(1, socket_cookie),
            instruction(_JUMP_NOT_EQUAL, 0, 1, offset=7),
            instruction(_MOVE_REGISTER, 1, 6),
            instruction(_CALL, value=_HELPER_NETNS_COOKIE),
            instruction(_LOAD_IMMEDIATE, 1, _PSEUDO_MAP_VALUE, value=map_fd),
            instruction(0),
            instruction(_STORE_8, 1, 0),
            instruction(_MOVE, 0, value=0),
            instruction(_EXIT),
            instruction(_MOVE, 0, value=1),
            instruction(_EXIT),
        )
    )


def _load_64(register: int, value: int) -> tuple[bytes, bytes]:
    low, high = struct.unpack("=ii", struct.pack("=Q", value))
    return instruction(_LOAD_IMMEDIATE, register, value=low), instruction(0, value=high)
