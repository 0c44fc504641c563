"""How often each Service and backend was chosen, as counts that never jump.

The kernel counts by backend id, and an id that is used again starts at zero. A Service's count is the sum of
what its backends gained, so it neither falls when one goes nor rises when an agent takes over filled maps:
it starts with the agent. Counts of a backend that goes are taken just before its id is cleared.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pyagent.datapath.decoded import decode_backend
from pyagent.datapath.held import Freed
from pyagent.datapath.layout import BACKEND, CHOSEN_SHARDS, NAME_KEY, NameKind
from pyagent.kernel.map_readings import chosen_shards, used
from pyagent.kernel.map_set import MapSet
from pyagent.model.address import format_endpoint
from pyagent.view.names import PortName, service_port_names

_OWNER = BACKEND.offsets["service_port"]
_U32 = struct.Struct("=I")


class ServiceTraffic(NamedTuple):
    """One service port. `sockets` is None where nobody could list them."""

    port: PortName
    chosen: int
    refused: int
    sockets: int | None


class BackendTraffic(NamedTuple):
    """One backend of a service port; `chosen` counts from when it got its id."""

    port: PortName
    backend: str
    chosen: int
    sockets: int | None


class TrafficCounts(NamedTuple):
    """Service ports that were ever dialled or have open sockets, and their backends."""

    services: tuple[ServiceTraffic, ...] = ()
    backends: tuple[BackendTraffic, ...] = ()


class OpenSockets(NamedTuple):
    """Translated sockets by (service-port id, incarnation), and by word: backend id << 32 | incarnation."""

    ports: Mapping[tuple[int, int], int]
    backends: Mapping[int, int]


class Traffic:
    """Adds up what backends gained. Thread-safe: the loop gives up ids while a scrape reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = array("Q")  # by backend id
        self._chosen: dict[int, int] = {}  # by service-port id

    def start(self, maps: MapSet) -> None:
        """Leave out what the maps of an earlier agent have counted."""
        with self._lock:
            self._advance(used(maps, "backends"), maps)
            self._chosen.clear()

    def give_up(self, maps: MapSet, freed: Iterable[Freed]) -> None:
        """Take the last counts of ids that are about to be cleared."""
        capacity = maps.specs["backends"].max_entries
        with self._lock:
            for one in freed:
                for backend in one.backends:
                    places = (shard * capacity + backend for shard in range(CHOSEN_SHARDS))
                    counts = (
                        int.from_bytes(maps.get("chosen", _U32.pack(i)) or b"", "little") for i in places
                    )
                    at = backend * BACKEND.size + _OWNER
                    (owner,) = _U32.unpack_from(maps.window("backends", at + _U32.size), at)
                    self._gain(backend, sum(counts), owner)
                    if backend < len(self._last):
                        self._last[backend] = 0
                for service_port in one.service_ports:
                    self._chosen.pop(service_port, None)

    def read(self, maps: MapSet, sockets: OpenSockets | None, by_backend: bool = False) -> TrafficCounts:
        """The counts now.

        Args:
            maps: open for reading.
            sockets: None: not known.
            by_backend: tell of backends too.
        """
        records = used(maps, "backends")
        with self._lock:
            self._advance(records, maps)
            chosen = self._chosen.copy()
            counts = self._last[: len(records) // BACKEND.size] if by_backend else array("Q")
        refused = memoryview(used(maps, "refused")).cast("Q").tolist()
        active = {identifier for identifier, _ in sockets.ports} if sockets is not None else set()
        active |= chosen.keys() | {identifier for identifier, count in enumerate(refused) if count}
        ports = {port.identifier: port for port in _names(maps, active)}
        services = [
            ServiceTraffic(
                port,
                chosen.get(port.identifier, 0),
                refused[port.identifier] if port.identifier < len(refused) else 0,
                None if sockets is None else sockets.ports.get((port.identifier, port.incarnation), 0),
            )
            for port in ports.values()
        ]
        backends = _backends(records, counts, ports, sockets) if by_backend else []
        return TrafficCounts(
            tuple(sorted(services, key=lambda one: one.port[2:7])),
            tuple(sorted(backends, key=lambda one: (one.port[2:7], one.backend))),
        )

    def _advance(self, records: bytes, maps: MapSet) -> None:
        """Add what each backend gained since the last look."""
        size = len(records) // BACKEND.size
        owners = memoryview(records).cast("I")[_OWNER // 4 :: BACKEND.size // 4]
        shards = [memoryview(shard).cast("Q").tolist() for shard in chosen_shards(maps, size)]
        if len(self._last) < size:
            self._last.extend(bytes(size - len(self._last)))
        last = self._last
        for backend, counts in enumerate(zip(*shards, strict=True)):
            count = sum(counts)
            if count != last[backend]:
                self._gain(backend, count, owners[backend])

    def _gain(self, backend: int, count: int, owner: int) -> None:
        before = self._last[backend] if backend < len(self._last) else 0
        gained = count - before if count >= before else count  # else it was cleared and counts anew
        if gained:
            self._chosen[owner] = self._chosen.get(owner, 0) + gained
        if backend < len(self._last):
            self._last[backend] = count


def _names(maps: MapSet, identifiers: Iterable[int]) -> list[PortName]:
    found = {}
    for identifier in identifiers:
        key = NAME_KEY.packer.pack(NameKind.SERVICE_PORT, identifier)
        value = maps.get("names", key)
        if value is not None:
            found[key] = value
    return service_port_names(found)


def _backends(
    records: bytes, counts: array[int], ports: Mapping[int, PortName], sockets: OpenSockets | None
) -> list[BackendTraffic]:
    open_now = {word >> 32: (word & 0xFFFFFFFF, n) for word, n in sockets.backends.items()} if sockets else {}
    found = []
    for identifier in sorted({i for i, count in enumerate(counts) if count} | open_now.keys()):
        backend = decode_backend(records, identifier)
        port = ports.get(backend.service_port) if backend is not None else None
        if backend is None or port is None:
            continue
        incarnation, number = open_now.get(identifier, (0, 0))
        found.append(
            BackendTraffic(
                port,
                format_endpoint(backend.address, backend.port),
                counts[identifier] if identifier < len(counts) else 0,
                None if sockets is None else number if incarnation == backend.incarnation else 0,
            )
        )
    return found
