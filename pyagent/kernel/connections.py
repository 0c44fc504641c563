"""The live connection table: every socket with an origin, of all network namespaces, by one iterator.

The agent loads the iterator and pins it beside the maps that it walks; readers open the pin, so they need
neither the agent nor BCC.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from socket import ntohs
from typing import NamedTuple

from pyagent.datapath.layout import CONNECTION, ORIGIN
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.btf import socket_facts
from pyagent.kernel.features import has_iterator_cookie
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_pins import clear, is_folder
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache
from pyagent.model.failures import KernelRefused, NoPermission, PinsMissing

PIN = "connections"
"""The iterator's name in the folder of its maps."""
PROGRAM_TRACING = 26
ATTACH_ITER = 28
PROGRAM = "bpf_iter__bpf_sk_storage_map"
CHUNK = 1 << 18
_RECORD = struct.Struct(CONNECTION.packer.format.removesuffix(f"{ORIGIN.size}s") + ORIGIN.packer.format[1:])


class Connection(NamedTuple):
    """One translated socket. Addresses are 16 bytes; `since` is nanoseconds since boot."""

    cookie: int
    netns: int  # inode number
    family: int  # AF_INET or AF_INET6
    state: int
    protocol: int
    source: bytes
    source_port: int
    peer: bytes
    peer_port: int
    frontend: bytes
    frontend_port: int
    service_port: int
    service_port_incarnation: int
    backend_id: int
    backend_incarnation: int
    since: int


def load(maps: MapSet, cache: ProgramCache | None = None) -> int:
    """Compile the iterator and bind it to `origin`; the link's fd.

    Raises:
        KernelRefused, CompilerMissing: the kernel has no BTF, or there is no compiler.
    """
    facts = socket_facts()
    cookie = {"HAVE_SOCKET_COOKIE": str(int(has_iterator_cookie()))}
    unit = Unit("connections.c", maps, cache, {**facts.definitions, **cookie})
    kind = bpf.ProgramKind(PROGRAM_TRACING, ATTACH_ITER, facts.iterator)
    program = unit.load({PROGRAM: kind})[PROGRAM]
    try:
        return bpf.iter_link_create(program, ATTACH_ITER, maps.fd("origin"))
    finally:
        os.close(program)


def pin(link_fd: int, folder: Path) -> None:
    """Pin the iterator beside its maps; whoever reads meanwhile sees the earlier one or this one."""
    following = folder / f"{PIN}-next"
    clear(following)
    bpf.obj_pin(link_fd, str(following))
    following.chmod(0o600)
    if is_folder(folder / PIN):
        clear(folder / PIN)
    following.replace(folder / PIN)


def open_pinned(folder: Path) -> int:
    """The link's fd, of the iterator that the agent pinned beside the maps in `folder`.

    Raises:
        PinsMissing: there is none: the agent never ran, or its kernel cannot list sockets.
        NoPermission: not root. KernelRefused: the pin cannot be opened.
    """
    path = folder / PIN
    try:
        return bpf.obj_get(str(path))
    except FileNotFoundError:
        raise PinsMissing(
            f"{path}: no connection table is pinned; the agent pins it where the kernel has BTF"
            " (`kubesock check`) and BCC is installed: see its log"
        ) from None
    except PermissionError:
        raise NoPermission(f"{path}: permission denied; run as root") from None
    except OSError as error:
        raise KernelRefused(f"{path}: {error.strerror}; remove it, the agent pins it again") from error


def connections(link_fd: int) -> Iterator[Connection]:
    """Sockets whose peer still is the backend of their origin; about 1 µs each in the kernel.

    Raises:
        KernelRefused: the link is no iterator.
    """
    try:
        fd = bpf.iter_create(link_fd)
    except OSError as error:
        raise KernelRefused(
            f"connection table: {error.strerror}; remove its pin, the agent pins again"
        ) from error
    rest = b""
    try:
        while chunk := os.read(fd, CHUNK):
            rest += chunk
            whole = len(rest) - len(rest) % CONNECTION.size
            yield from _decoded(rest[:whole])
            rest = rest[whole:]
    finally:
        os.close(fd)


def _decoded(data: bytes) -> Iterator[Connection]:
    for (
        cookie, netns, family, state, protocol, source, peer, source_port, peer_port, _,
        frontend, backend, frontend_port, backend_port,
        port, incarnation, backend_id, its, _protocol, _family, _pad, since,
    ) in _RECORD.iter_unpack(data):  # fmt: skip
        # Elsewhere since: connect(AF_UNSPEC) runs no hook.
        if peer == backend and peer_port == backend_port:
            yield Connection(
                cookie,
                netns,
                family,
                state,
                protocol,
                source,
                source_port,
                peer,
                ntohs(peer_port),
                frontend,
                ntohs(frontend_port),
                port,
                incarnation,
                backend_id,
                its,
                since,
            )
