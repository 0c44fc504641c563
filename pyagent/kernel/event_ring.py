"""Reads the `events` ring buffer (kernel/bpf/ringbuf.c), which has one consumer position: one reader."""

from __future__ import annotations

import mmap
import select
import struct
from typing import NamedTuple

from pyagent.datapath.layout import EVENT, FRONTEND_KEY
from pyagent.kernel.map_set import MapSet

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
_POSITION = struct.Struct("=Q")
_LENGTH = struct.Struct("=I")


class Event(NamedTuple):
    """One record; addresses are 16 bytes, ports in host order, `time` nanoseconds since boot."""

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


class EventRing:
    """The consumer's side. Not thread-safe."""

    def __init__(self, maps: MapSet) -> None:
        self._fd = maps.fd("events")
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

    def read(self) -> list[Event]:
        """All events that wait; what this returns is gone from the ring."""
        found: list[Event] = []
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
                found.append(_event(self._producer[at + _HEADER : at + _HEADER + EVENT.size]))
            position += (size + _HEADER + 7) & ~7
            _POSITION.pack_into(self._consumer, 0, position)
        return found

    def close(self) -> None:
        self._poll.close()
        self._consumer.close()
        self._producer.close()


def _event(data: bytes) -> Event:
    fields = EVENT.as_dict(data)
    dialled, comm = fields["dialled"], fields["comm"]
    key = FRONTEND_KEY.as_dict(dialled if isinstance(dialled, bytes) else b"")
    text = comm.split(b"\0")[0].decode(errors="replace") if isinstance(comm, bytes) else ""
    numbers = {name: value for name, value in fields.items() if isinstance(value, int)}
    address, backend = key["addr"], fields["backend"]
    return Event(
        numbers["time"],
        numbers["cgroup"],
        numbers["netns"],
        numbers["socket"],
        address if isinstance(address, bytes) else b"",
        int(key["port"]),
        int(key["protocol"]),
        backend if isinstance(backend, bytes) else b"",
        numbers["backend_port"],
        numbers["outcome"],
        numbers["hook"],
        numbers["service_port"],
        numbers["backend_id"],
        numbers["pid"],
        text,
    )
