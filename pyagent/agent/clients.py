"""Client addresses for source ranges: from namespaces to map writes, found in time for a second try."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

import msgspec

from pyagent.datapath.layout import CLIENT_ADDRESSES
from pyagent.datapath.writes import Put, Remove, Write
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.client_watch import ClientAddresses, ClientWatch
from pyagent.kernel.map_set import MapSet
from pyagent.model.service import DesiredChange

_COOKIE = struct.Struct("=Q")


class ClientsChanged(msgspec.Struct, frozen=True):
    """Every network namespace that is known: cookie -> addresses."""

    clients: Mapping[int, ClientAddresses]


class ClientWrites:
    """From what is known to what must be written; used by the loop's thread only."""

    def __init__(self, maps: MapSet) -> None:
        self._maps = maps
        self._clients: Mapping[int, ClientAddresses] | None = None
        self._held = self._read()

    def _read(self) -> dict[int, ClientAddresses]:
        return {
            _COOKIE.unpack(key)[0]: ClientAddresses(value[:16], value[16:])
            for key, value in self._maps.items("client_addresses")
        }

    def altered(self) -> list[str]:
        """The map's name if somebody else wrote into it."""
        return ["client_addresses"] if self._clients is not None and self._read() != self._held else []

    def undo_others(self) -> list[str]:
        """Make good what is altered; the map's name if it was.

        Raises:
            KernelRefused: the map cannot be read or written.
        """
        found = self.altered()
        if found and self._clients is not None:
            self._held = self._read()
            self._maps.apply(self.follow(self._clients))
        return found

    def follow(self, clients: Mapping[int, ClientAddresses]) -> Iterator[Write]:
        """The writes that make the map equal to `clients`."""
        self._clients = clients
        for cookie in self._held.keys() - clients.keys():  # first: it makes room
            del self._held[cookie]
            yield Remove("client_addresses", _COOKIE.pack(cookie))
        for cookie, addresses in clients.items():
            if self._held.get(cookie) != addresses:
                self._held[cookie] = addresses
                yield Put("client_addresses", _COOKIE.pack(cookie), CLIENT_ADDRESSES.pack(*addresses))


class ClientAddressing:
    """The watch, started when the first Service has source ranges, since most nodes have none."""

    def __init__(self) -> None:
        self._tell: Callable[[ClientsChanged], None] | None = None
        self._watch: ClientWatch | None = None
        self._own_addresses: frozenset[bytes] = frozenset()

    def tell(self, put: Callable[[ClientsChanged], None]) -> None:
        """Where changes go. Before `start`."""
        self._tell = put

    def follow(self, _change: DesiredChange, desired: DesiredState, _snapshot: Snapshot) -> None:
        """After each plan, see `inbox.Applied`: host processes are known by the Node's addresses."""
        addresses = desired.node.own_addresses
        if addresses != self._own_addresses:
            self._own_addresses = addresses
            if self._watch is not None:
                self._watch.prefer(addresses)

    def find(self, netns: int, pid: int) -> None:
        """A client was refused for want of its address: look for it now. Thread-safe."""
        if self._watch is not None:
            self._watch.find(netns, pid)

    def start(self) -> None:
        if self._watch is not None or self._tell is None:
            return
        put = self._tell
        watch = ClientWatch(lambda known: put(ClientsChanged(known)))
        watch.prefer(self._own_addresses)
        watch.start()
        self._watch = watch

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()
