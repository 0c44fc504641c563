"""The live connection table: every socket with an origin, of all network namespaces, by one iterator."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from pyagent.datapath.layout import CONNECTION, ORIGIN
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.btf import socket_facts
from pyagent.kernel.features import has_iterator_cookie
from pyagent.kernel.loader import Unit
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.program_cache import ProgramCache

PROGRAM_TRACING = 26
ATTACH_ITER = 28
PROGRAM = "bpf_iter__bpf_sk_storage_map"
CHUNK = 1 << 18


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


def connections(link_fd: int) -> Iterator[Connection]:
    """Sockets whose peer still is the backend of their origin; about 1 µs each in the kernel."""
    fd = bpf.iter_create(link_fd)
    rest = b""
    try:
        while chunk := os.read(fd, CHUNK):
            rest += chunk
            whole = len(rest) - len(rest) % CONNECTION.size
            for offset in range(0, whole, CONNECTION.size):
                found = _connection(rest, offset)
                if found is not None:
                    yield found
            rest = rest[whole:]
    finally:
        os.close(fd)


def _connection(data: bytes, offset: int) -> Connection | None:
    socket: tuple[Any, ...] = CONNECTION.unpack(data, offset)
    cookie, netns, family, state, protocol, source, peer, source_port, peer_port, _pad, record = socket
    origin: tuple[Any, ...] = ORIGIN.unpack(record)
    frontend, backend, frontend_port, backend_port = origin[:4]
    service_port, incarnation, backend_id, backend_incarnation = origin[4:8]
    if (peer, peer_port) != (backend, backend_port):
        return None  # it went elsewhere since: connect(AF_UNSPEC) runs no hook
    return Connection(
        cookie,
        netns,
        family,
        state,
        protocol,
        source,
        source_port,
        peer,
        peer_port,
        frontend,
        frontend_port,
        service_port,
        incarnation,
        backend_id,
        backend_incarnation,
        origin[-1],
    )
