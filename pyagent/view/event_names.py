"""What the ids in events stand for: looked up in the pins one by one, and kept for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pyagent.datapath.decoded import decode_backend
from pyagent.datapath.encoded import name_key
from pyagent.datapath.layout import BACKEND, CONFIG, NameKind
from pyagent.kernel.client_names import ClientNames
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.namespace_owners import NetnsOwner, owners
from pyagent.model.address import format_endpoint
from pyagent.view.explain_reasons import served_at
from pyagent.view.live import LiveMaps
from pyagent.view.names import PortName, service_port_names
from pyagent.view.pins import read_live

FRESH_SECONDS = 1.0
ADDRESS_SECONDS = 10.0
"""How long the Services' addresses are kept: to find one by its address is a look at all."""


class EventNames:
    """Names for `event_table`. Not thread-safe.

    Args:
        bpffs: the agent's `--bpffs`.
    """

    def __init__(self, bpffs: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._bpffs = bpffs
        self._clock = clock
        self._maps: MapSet | None = None
        self._opened = 0.0
        self._ports: dict[int, PortName | None] = {}
        self._addresses: dict[bytes, str] = {}
        self._addresses_at = float("-inf")
        self._live = LiveMaps()
        cookie = CONFIG.as_dict(self._fresh().memory("config")[: CONFIG.size])["node_netns"]
        self._clients = ClientNames(cookie if isinstance(cookie, int) else 0, clock)

    def pod(self, cgroup: int, netns: int, pid: int) -> str:
        """`namespace/name` of the caller's pod; empty where none is known."""
        return self._clients.pod(cgroup, netns, pid)

    def netns(self, cookie: int, pid: int) -> str:
        """A name of the caller's network namespace, or `cookie:NUMBER`."""
        return self._clients.netns(cookie, pid)

    def owner(self, inode: int) -> NetnsOwner:
        """Whose the network namespace with this inode number is."""
        return owners({inode}).get(inode, NetnsOwner("", str(inode), ()))

    def port(self, identifier: int) -> PortName | None:
        """The service port with this id; None where it is gone."""
        maps = self._fresh()
        if identifier not in self._ports:
            key = name_key(NameKind.SERVICE_PORT, identifier)
            value = maps.get("names", key)
            found = service_port_names({key: value}) if value is not None else []
            self._ports[identifier] = found[0] if found else None
        return self._ports[identifier]

    def backend(self, word: int) -> str:
        """ADDRESS:PORT of id << 32 | incarnation; empty if somebody else has the id by now."""
        memory = self._fresh().memory("backends")
        start = (word >> 32) * BACKEND.size
        found = decode_backend(bytes(BACKEND.size) + memory[start : start + BACKEND.size], 1)
        if found is None or found.incarnation != word & 0xFFFFFFFF:
            return ""
        return format_endpoint(found.address, found.port)

    def service_at(self, address: bytes) -> str:
        """`namespace/name` of the Service that has an address; empty if none has."""
        now = self._clock()
        if address not in self._addresses or now - self._addresses_at > ADDRESS_SECONDS:
            if now - self._addresses_at > FRESH_SECONDS:
                self._live = read_live(self._bpffs, {"frontends", "sets", "slots", "names"})
                self._addresses, self._addresses_at = {}, now
            served = served_at(self._live.raw, address)
            self._addresses[address] = served[0][0] if served else ""
        return self._addresses[address]

    def close(self) -> None:
        if self._maps is not None:
            self._maps.close()
            self._maps = None

    def _fresh(self) -> MapSet:
        """Maps that the agent outgrew are let go of, and names may have changed."""
        now = self._clock()
        if self._maps is None or now - self._opened > FRESH_SECONDS:
            self.close()
            self._maps = MapSet.open(current_folder(self._bpffs))
            self._opened = now
            self._ports.clear()
        return self._maps
