"""What the pins held at one moment, as one immutable value; every table is a function of it."""

from __future__ import annotations

from collections.abc import Mapping
from operator import add
from typing import NamedTuple

from pyagent.datapath.decoded import Buffer, RawMaps
from pyagent.datapath.layout import BACKEND, BLOCK_HEADER_WORDS
from pyagent.model.outcome import Outcome

Entries = tuple[tuple[bytes, bytes], ...]
EMPTY = RawMaps({}, b"", b"", b"", {}, {}, {}, b"")


GENERATION_MASK = 0xFFFF


class MapFacts(NamedTuple):
    """One map. `entries` is None where a map has no notion of fill; `memory` in bytes."""

    name: str
    type: str
    key_size: int
    value_size: int
    entries: int | None
    capacity: int
    memory: int

    @property
    def fill_percent(self) -> float | None:
        if self.entries is None or not self.capacity:
            return None
        return round(100 * self.entries / self.capacity, 1)


class AgentFacts(NamedTuple):
    """The agent of these pins. `age` is the seconds since the last one started, None if none ever did."""

    alive: bool = False
    pid: int = 0
    age: float | None = None


class LiveMaps(NamedTuple):
    """A snapshot. Maps that were not asked for are empty.

    Attributes:
        raw: the maps that the agent writes; arrays are cut behind the last element in use.
        chosen: one buffer of 64-bit counts by backend id for each shard.
        refused: 64-bit counts by service-port id.
        outcomes: hook runs, summed over CPUs.
        affinity, overflow, source_ranges, client_addresses, opted_out, flows, devices: entries of the maps
            `affinity`, `origin_overflow`, `outside_devices` and so on.
        outside_outcomes: new flows and refused packets from outside, summed over CPUs.
        meta: fields of the element, by name.
        now: seconds since boot when it was read (CLOCK_MONOTONIC, as the kernel's programs count).
    """

    raw: RawMaps = EMPTY
    chosen: tuple[Buffer, ...] = ()
    refused: Buffer = b""
    outcomes: Mapping[Outcome, int] = {}
    affinity: Entries = ()
    overflow: Entries = ()
    source_ranges: Entries = ()
    client_addresses: Entries = ()
    opted_out: Entries = ()
    flows: Entries = ()
    devices: Entries = ()
    outside_outcomes: Mapping[Outcome, int] = {}
    meta: Mapping[str, int] = {}
    maps: tuple[MapFacts, ...] = ()
    agent: AgentFacts = AgentFacts()
    now: float = 0.0


class LiveSet(NamedTuple):
    """A set that belongs to a service port. `members` are words: backend id << 32 | incarnation."""

    set_id: int
    service_port: int
    header: int  # word 1 of the block
    members: memoryview[int]  # a list for each of 10,000 sets would take megabytes

    @property
    def view(self) -> int:
        return self.header >> 24 & 0xFF

    @property
    def node_id(self) -> int:
        return self.header >> 32

    @property
    def affinity_seconds(self) -> int:
        return self.header & 0x1FFFF


def words(data: Buffer) -> memoryview[int]:
    """An array of 64-bit words; what is left over at the end is cut off."""
    view = memoryview(data)
    return view[: len(view) // 8 * 8].cast("Q")


def live_sets(raw: RawMaps, incarnations: Mapping[int, int]) -> list[LiveSet]:
    """The sets of service ports that have a name; `incarnations` are these, by service-port id.

    As `decode_set` for all sets at once, which is what a list of 10,000 Services has the time for.
    """
    slots = words(raw.slots)
    length = len(slots)
    found = []
    for set_id, word in enumerate(words(raw.sets).tolist()):
        if not word & GENERATION_MASK or not set_id:  # without a generation it belongs to nobody
            continue
        first = word >> 32
        start = first + BLOCK_HEADER_WORDS
        end = start + (word >> 16 & 0xFFFF)
        if end > length:
            continue
        owner = slots[first]
        if incarnations.get(owner >> 32) == owner & 0xFFFFFFFF:
            found.append(LiveSet(set_id, owner >> 32, slots[first + 1], slots[start:end]))
    return found


class BackendColumns(NamedTuple):
    """Single fields of all backends, by id."""

    states: list[int]
    incarnations: list[int]
    chosen: list[int]

    def is_alive(self, word: int) -> bool:
        """Whether the backend of a slot's word is still the one that the slot means."""
        backend_id = word >> 32
        return backend_id < len(self.incarnations) and self.incarnations[backend_id] == word & 0xFFFFFFFF


def backend_columns(live: LiveMaps) -> BackendColumns:
    return BackendColumns(*backend_states(live), chosen_counts(live))


def backend_states(live: LiveMaps) -> tuple[list[int], list[int]]:
    """(states, incarnations) by backend id; `BACKEND` one by one would take the time of ten."""
    whole = memoryview(live.raw.backends)
    whole = whole[: len(whole) // BACKEND.size * BACKEND.size]
    states = whole.cast("H")[BACKEND.offsets["state"] // 2 :: BACKEND.size // 2].tolist()
    incarnations = whole.cast("I")[BACKEND.offsets["incarnation"] // 4 :: BACKEND.size // 4].tolist()
    return states, incarnations


def chosen_counts(live: LiveMaps) -> list[int]:
    """How often each backend was chosen, by id."""
    chosen = [0] * (len(live.raw.backends) // BACKEND.size)
    for shard in live.chosen:
        counts = words(shard).tolist()
        chosen = [*map(add, chosen, counts), *chosen[len(counts) :]]
    return chosen
