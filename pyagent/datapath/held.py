"""What the kernel's maps hold, as the planner knows it.

The arrays are kept as the bytes that the kernel has, only as long as they are used; what a service port
owns is read from them when it changes. That is a tenth of the memory that objects per backend would take.

The planner updates this state while it plans: it is what the maps hold once the plan is carried out. If
that fails anywhere, the state is worthless: wait one grace period, dump the maps, `restore`, plan in full.
"""

from __future__ import annotations

import struct
from array import array
from typing import NamedTuple

import msgspec

from pyagent.datapath.blocks import BlockAllocator, block_words
from pyagent.datapath.bounds import Bounds, decode_bounds
from pyagent.datapath.identifiers import Identifiers
from pyagent.datapath.layout import (
    BACKEND,
    BLOCK_HEADER_WORDS,
    CONFIG,
    Capacities,
    split_pair_word,
    split_set_word,
)
from pyagent.datapath.member_index import MemberIndexes
from pyagent.datapath.served_prefixes import ServedPrefixes
from pyagent.model.address import Family, Network, Protocol
from pyagent.model.service import AddressRule, ServicePort, ServicePortKey, SetKey

BAD_TAG = -1
"""Stands for the set id of a frontend whose word has another key's tag."""

IDENTITY_BYTES = 18
"""Address and port at the start of a backend: what makes it the same backend."""

INCARNATION = struct.Struct("=I")

FrontendTarget = tuple[ServicePortKey, SetKey]

Dialled = tuple[Family, Protocol, int, bytes, str]
"""`Frontend.dialled`: family, protocol, port, address (empty for nodePorts), node."""


class HeldServicePort(msgspec.Struct, gc=False):
    """What a service port owns. `set_ids` and `set_keys` belong together."""

    key: ServicePortKey
    identifier: int
    incarnation: int
    set_keys: tuple[SetKey, ...] = ()
    set_ids: tuple[int, ...] = ()
    frontends: tuple[bytes, ...] = ()
    wanted: ServicePort | None = None  # what its sets were last made to be; None if they were found so

    def set_id(self, key: SetKey) -> int | None:
        return self.set_ids[self.set_keys.index(key)] if key in self.set_keys else None


class Freed(NamedTuple):
    """What nothing refers to any more, but programs still running may have seen. False if nothing."""

    origin: object  # the state it belongs to; another one ignores it
    serial: int = 0
    service_ports: tuple[int, ...] = ()
    sets: tuple[int, ...] = ()
    backends: tuple[int, ...] = ()
    nodes: tuple[int, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()  # first word, words

    def __bool__(self) -> bool:
        return any(self[2:])


class Waiting(msgspec.Struct):
    """What is desired but found no room; taken up again by each later plan."""

    service_ports: dict[ServicePortKey, ServicePort]
    frontends: dict[bytes, FrontendTarget | None]
    unnamed: dict[Dialled, FrontendTarget | None]  # nodePorts of nodes that have no id
    service_addresses: dict[Network, AddressRule]
    node_addresses: dict[bytes, str]

    def __bool__(self) -> bool:
        return any(
            (
                self.service_ports,
                self.frontends,
                self.unnamed,
                self.service_addresses,
                self.node_addresses,
            )
        )


class HeldState:
    """The maps' contents, the free places in them, and what waits for room."""

    def __init__(self, capacities: Capacities) -> None:
        """The state of freshly created maps: all zeros."""
        self.capacities = capacities
        self.sets = array("Q")
        self.slots = array("Q")
        self.backends = bytearray()
        self.config = bytearray(CONFIG.size)
        self.frontends: dict[bytes, int] = {}  # key -> set id or BAD_TAG
        self.names: dict[bytes, bytes] = {}  # values without trailing zeros
        self.service_addresses: dict[bytes, int] = {}
        self.node_addresses: dict[bytes, int] = {}
        self.service_ports: dict[ServicePortKey, HeldServicePort] = {}
        self.service_port_keys: dict[int, ServicePortKey] = {}  # by id
        self.nodes: dict[str, int] = {}
        self.zones: dict[str, str] = {}  # of those nodes whose name was written by this state
        self.bounds_known = False  # whether those in `config` are as narrow as they can be
        self.node_ports: dict[int, int] = {}  # nodePort -> frontends that have it
        self.prefixes = ServedPrefixes()
        self.incarnation = 0  # the last that a service port or node got
        self.service_port_ids = Identifiers(capacities.service_ports)
        self.node_ids = Identifiers(capacities.service_ports)
        self.set_ids = Identifiers(capacities.sets)
        self.backend_ids = Identifiers(capacities.backends)
        self.blocks = BlockAllocator(capacities.slots, [(0, min(block_words(0), capacities.slots))])
        self.strays = Freed(self)  # dangling entries point to these; free once a full plan removed them
        self.indexes = MemberIndexes()
        self.abandoned_sets: list[int] = []  # look owned but are not; a full plan marks them
        self.waiting = Waiting({}, {}, {}, {}, {})
        self._serial = 0
        self._outstanding: set[int] = set()

    @property
    def bounds(self) -> Bounds:
        return decode_bounds(self.config)

    def freed(self, **things: tuple[int, ...] | tuple[tuple[int, int], ...]) -> Freed:
        """A ticket for things to be reclaimed later; fields as of `Freed`."""
        self._serial += 1
        ticket = Freed(self, self._serial, **things)  # type: ignore[arg-type]
        if ticket:
            self._outstanding.add(ticket.serial)
        return ticket

    def reclaim(self, freed: Freed) -> None:
        """A grace period has passed since the plan that freed these was carried out: use them again.

        A ticket of another state, from before a restore, and one that came already change nothing.
        """
        if freed.origin is not self or freed.serial not in self._outstanding:
            return
        self._outstanding.remove(freed.serial)
        self.service_port_ids.release(freed.service_ports)
        self.set_ids.release(freed.sets)
        self.backend_ids.release(freed.backends)
        self.node_ids.release(freed.nodes)
        for first, words in freed.blocks:
            self.blocks.release(first, words)

    @property
    def awaits_reclaim(self) -> bool:
        """Some freed places have not come back yet: what found no room may find it afterwards."""
        return bool(self._outstanding)

    def usage(self) -> dict[str, tuple[int, int]]:
        """Map name -> (entries or words in use, capacity); freed places count as used until reclaimed."""
        c = self.capacities
        return {
            "frontends": (len(self.frontends), c.frontends),
            "sets": (c.sets - self.set_ids.available, c.sets),
            "slots": (c.slots - self.blocks.free_words, c.slots),
            "backends": (c.backends - self.backend_ids.available, c.backends),
            "names": (len(self.names), c.service_ports * 2),
            "service_ports": (c.service_ports - self.service_port_ids.available, c.service_ports),
            "service_addresses": (len(self.service_addresses), c.service_addresses),
            "node_addresses": (len(self.node_addresses), c.node_addresses),
        }

    def block(self, set_id: int) -> tuple[int, int]:
        """(first slot, count) of a held set."""
        first, count, _ = split_set_word(self.sets[set_id])
        return first, count

    def slot_words(self, set_id: int) -> list[int]:
        """The words of a held set's backends (id << 32 | incarnation), in slot order."""
        first, count = self.block(set_id)
        start = first + BLOCK_HEADER_WORDS
        return self.slots[start : start + count].tolist()

    def identities(self, port: HeldServicePort) -> dict[bytes, int]:
        """Address and port (IDENTITY_BYTES bytes) of each backend of a service port -> its slot word."""
        backends, size = self.backends, BACKEND.size
        found: dict[bytes, int] = {}
        for set_id in port.set_ids:
            for word in self.slot_words(set_id):
                at = (word >> 32) * size
                found[bytes(backends[at : at + IDENTITY_BYTES])] = word
        return found

    def backend_words(self, key: ServicePortKey) -> dict[tuple[bytes, int], tuple[int, int]]:
        """(address, port) of each backend of a service port -> (id, incarnation)."""
        port = self.service_ports.get(key)
        if port is None:
            return {}
        return {
            (identity[:16], int.from_bytes(identity[16:], "big")): split_pair_word(word)
            for identity, word in self.identities(port).items()
        }

    def backend_incarnation(self, backend_id: int) -> int:
        """The incarnation that the array holds for an id, in use or not; 0 if it never was."""
        offset = backend_id * BACKEND.size + BACKEND.offsets["incarnation"]
        if offset >= len(self.backends):
            return 0
        incarnation: int = INCARNATION.unpack_from(self.backends, offset)[0]
        return incarnation

    def owner(self, set_id: int) -> HeldServicePort | None:
        """The service port that a set belongs to."""
        if not 0 < set_id < len(self.sets):
            return None
        first = self.sets[set_id] >> 32
        if first >= len(self.slots):
            return None
        identifier, incarnation = split_pair_word(self.slots[first])
        key = self.service_port_keys.get(identifier)
        port = self.service_ports[key] if key is not None else None
        return port if port is not None and port.incarnation == incarnation else None

    def reach_backends(self, backend_id: int) -> None:
        """Make the copy of the array long enough for this id."""
        missing = (backend_id + 1) * BACKEND.size - len(self.backends)
        if missing > 0:
            self.backends.extend(bytes(missing))


def reach(words: array[int], length: int) -> None:
    """Make the copy of an array of words long enough."""
    if length > len(words):
        words.frombytes(bytes(8 * (length - len(words))))
