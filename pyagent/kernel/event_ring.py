"""Reads the `events` ring buffer (kernel/bpf/ringbuf.c), which has one consumer position: one reader.

Whoever reads it holds the ring's lock: the agent, or without one the first who listens.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
from pathlib import Path
from socket import ntohs
from typing import NamedTuple

from pyagent.datapath.flow_layout import OUTSIDE_HOOK
from pyagent.datapath.layout import EVENT, FRONTEND_KEY
from pyagent.kernel.map_set import MapSet
from pyagent.model.address import format_address
from pyagent.model.outcome import Outcome

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")
_RECORD = struct.Struct(
    EVENT.packer.format.replace(f"{FRONTEND_KEY.size}s", FRONTEND_KEY.packer.format[1:], 1)
)
_UNKNOWN_SOURCE = int(Outcome.REFUSED_UNKNOWN_SOURCE)


class Event(NamedTuple):
    """One record; addresses are 16 bytes, ports in host order, `time` nanoseconds since boot.

    Attributes:
        previous: id << 32 | incarnation of the backend that the client was on, maybe the same; 0: none.
    """

    time: int
    cgroup: int
    netns: int
    socket: int
    dialled: bytes
    dialled_port: int
    protocol: int
    backend: bytes
    backend_port: int
    outcome: int
    hook: int
    service_port: int
    backend_id: int
    pid: int
    comm: str
    previous: int


def decode_event(record: bytes) -> Event:
    """A record of the ring; what newer programs add behind it is left out.

    Raises:
        struct.error: it is too short.
    """
    (
        time, cgroup, netns, socket, dialled, dialled_port, protocol, _scope,
        backend, backend_port, outcome, hook, service_port, backend_id, pid, _pad, comm, previous,
    ) = _RECORD.unpack_from(record)  # fmt: skip
    return Event(
        time,
        cgroup,
        netns,
        socket,
        dialled,
        ntohs(dialled_port),
        protocol,
        backend,
        ntohs(backend_port),
        outcome,
        hook,
        service_port,
        backend_id,
        pid,
        # Of a packet there is no process: its place has the address that it comes from.
        format_address(comm) if hook == OUTSIDE_HOOK else comm.split(b"\0")[0].decode(errors="replace"),
        previous,
    )


def unknown_source(record: bytes) -> tuple[int, int] | None:
    """(network namespace cookie, process) of a refusal for want of the client's address; else None."""
    if record[EVENT.offsets["outcome"]] != _UNKNOWN_SOURCE:
        return None
    event = decode_event(record)
    return event.netns, event.pid


class RingLock:
    """The right to read a ring: an exclusive flock on the folder of its maps, which dies with its holder."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, folder: Path) -> RingLock | None:
        """None: somebody else has it."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd)

    def close(self) -> None:
        os.close(self._fd)


class EventRing:
    """The consumer's side, for the holder of the lock. Not thread-safe."""

    def __init__(self, maps: MapSet) -> None:
        self._fd = os.dup(maps.fd("events"))
        self._size = maps.specs["events"].max_entries
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self._fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The data is mapped twice in a row, so that no record is ever cut at the end.
        self._producer = mmap.mmap(
            self._fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )
        self._poll = select.epoll()
        self._poll.register(self._fd, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when events wait."""
        return self._poll.fileno()

    def wait(self, seconds: float) -> bool:
        return bool(self._poll.poll(seconds))

    def read(self) -> list[bytes]:
        """All records that wait; what this returns is gone from the ring."""
        found: list[bytes] = []
        (position,) = _POSITION.unpack_from(self._consumer)
        while True:
            (end,) = _POSITION.unpack_from(self._producer)
            if position >= end:
                break
            at = mmap.PAGESIZE + (position & self._size - 1)
            (length,) = _LENGTH.unpack_from(self._producer, at)
            if length & _BUSY:
                break
            size = length & ~(_BUSY | _DISCARDED)
            if not length & _DISCARDED and size >= EVENT.size:
                found.append(self._producer[at + _HEADER : at + _HEADER + size])
            position += (size + _HEADER + 7) & ~7
            _POSITION.pack_into(self._consumer, 0, position)
        return found

    def close(self) -> None:
        self._poll.close()
        self._consumer.close()
        self._producer.close()
        os.close(self._fd)
