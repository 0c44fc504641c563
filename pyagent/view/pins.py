"""Reads the pins into a `LiveMaps`. Needs neither the agent, nor a cluster, nor BCC."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from pyagent.datapath.decoded import RawMaps
from pyagent.datapath.layout import BACKEND, CONFIG, META, MapType, split_set_word
from pyagent.kernel.lock_owner import lock_owner
from pyagent.kernel.map_memory import map_memory
from pyagent.kernel.map_readings import chosen_shards, outcome_counts, used
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.model.failures import NoPermission
from pyagent.view.fill import entries_in_use
from pyagent.view.live import AgentFacts, Entries, LiveMaps, MapFacts, words

ATTEMPTS = 3

ALL = frozenset(
    {
        "frontends", "sets", "slots", "backends", "names", "service_addresses", "node_addresses",
        "chosen", "refused", "outcomes", "affinity", "origin_overflow", "source_ranges",
        "client_addresses", "opted_out", "config", "flows", "outside_devices", "outside_outcomes",
    }
)  # fmt: skip
"""What `read_live` can read."""


def read_live(bpffs: Path, wanted: Collection[str] = ALL, facts: bool = False) -> LiveMaps:
    """A snapshot of the maps in use.

    Maps that refer to others are read before those: what they refer to existed by then, and incarnations
    tell what has been replaced since.

    Args:
        bpffs: the agent's `--bpffs`.
        wanted: names of the maps to read; the others stay empty. `slots` wants `sets`, `chosen` wants
            `backends`.
        facts: also size, fill and memory of every map; wants ALL.

    Raises:
        PinsMissing, LayoutMismatch, NoPermission, KernelRefused: with the remedy.
    """
    maps = MapSet.open(current_folder(bpffs))
    try:
        live = _read(maps, frozenset(wanted))
        live = live._replace(agent=_agent(bpffs, live), now=time.monotonic())
        if facts:
            live = live._replace(maps=tuple(_facts(maps, live)))
        return live
    finally:
        maps.close()


def _read(maps: MapSet, wanted: frozenset[str]) -> LiveMaps:
    def entries(name: str) -> Entries:
        return tuple(maps.items(name)) if name in wanted else ()

    def hash_map(name: str) -> dict[bytes, bytes]:
        return dict(entries(name))

    def array(name: str) -> bytes:
        return used(maps, name) if name in wanted else b""

    frontends = hash_map("frontends")
    sets, slots = _sets_and_slots(maps, wanted)
    backends = array("backends")
    raw = RawMaps(
        frontends=frontends,
        sets=sets,
        slots=slots,
        backends=backends,
        names=hash_map("names"),
        service_addresses=hash_map("service_addresses"),
        node_addresses=hash_map("node_addresses"),
        config=maps.memory("config")[: CONFIG.size] if "config" in wanted else b"",
    )
    return LiveMaps(
        raw=raw,
        chosen=chosen_shards(maps, len(backends) // BACKEND.size) if "chosen" in wanted else (),
        refused=array("refused"),
        outcomes=outcome_counts(maps) if "outcomes" in wanted else {},
        affinity=entries("affinity"),
        overflow=entries("origin_overflow"),
        source_ranges=entries("source_ranges"),
        client_addresses=entries("client_addresses"),
        opted_out=entries("opted_out"),
        flows=entries("flows"),
        devices=entries("outside_devices"),
        outside_outcomes=outcome_counts(maps, "outside_outcomes") if "outside_outcomes" in wanted else {},
        meta=_meta(maps),
    )


def _sets_and_slots(maps: MapSet, wanted: frozenset[str]) -> tuple[bytes, bytes]:
    if "sets" not in wanted:
        return b"", b""
    sets = used(maps, "sets")
    slots = b""
    for _ in range(ATTEMPTS if "slots" in wanted else 0):
        slots = _slots(maps, sets)
        again = used(maps, "sets")
        if again == sets:  # else a block may have been replaced between the two copies
            break
        sets = again
    return sets, slots


def _slots(maps: MapSet, sets: bytes) -> bytes:
    """The array up to the end of the last block that a set points to, within the array."""
    capacity = maps.specs["slots"].max_entries
    end = 0
    for word in words(sets):
        first, count, _ = split_set_word(word)
        end = max(end, min(first + count + 3, capacity))
    return maps.memory("slots")[: end * 8]


def _meta(maps: MapSet) -> dict[str, int]:
    fields = META.as_dict(maps.memory("meta")[: META.size])
    return {name: value for name, value in fields.items() if isinstance(value, int)}


def _agent(bpffs: Path, live: LiveMaps) -> AgentFacts:
    try:
        owner = lock_owner(bpffs)
    except PermissionError as error:
        raise NoPermission(f"{bpffs}: {error.strerror}; run as root") from error
    started = live.meta.get("agent_started", 0)
    age = time.monotonic() - started / 1e9 if started else None
    return AgentFacts(owner.alive, owner.pid, age if age is None or age >= 0 else None)


def _facts(maps: MapSet, live: LiveMaps) -> list[MapFacts]:
    entries = entries_in_use(live)
    return [
        MapFacts(
            name=spec.name,
            type=MapType(spec.type).name.lower(),
            key_size=spec.key_size,
            value_size=spec.value_size,
            entries=entries.get(spec.name),
            capacity=spec.max_entries,
            memory=map_memory(maps.fd(spec.name)),
        )
        for spec in maps.specs.values()
    ]
