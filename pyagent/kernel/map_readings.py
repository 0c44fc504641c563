"""Counters and contents of open maps."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pyagent.datapath.layout import CHOSEN_SHARDS
from pyagent.kernel.map_set import MapSet
from pyagent.model.outcome import Outcome

_CHUNK = 1 << 16
_ZEROS = bytes(_CHUNK)


def outcome_counts(
    maps: MapSet, name: str = "outcomes", wanted: Iterable[Outcome] = Outcome
) -> dict[Outcome, int]:
    """Hook runs by outcome, of `outside_outcomes` new flows and refused packets; summed over the CPUs."""
    counts = {}
    for outcome in wanted:
        value = maps.get(name, struct.pack("=I", outcome)) or b""
        counts[outcome] = sum(struct.unpack(f"={len(value) // 8}Q", value))
    return counts


def used(maps: MapSet, name: str) -> bytes:
    """A copy of an mmapable array without the zeros at its end."""
    spec = maps.specs[name]
    stride = spec.value_size + 7 & ~7
    with maps.borrowed(name) as memory:
        end = spec.max_entries * stride
        while end >= _CHUNK and memory[end - _CHUNK : end] == _ZEROS:
            end -= _CHUNK
        length = len(memory[:end].rstrip(b"\0"))
        return memory[: -(-length // stride) * stride]


def chosen_shards(maps: MapSet, backends: int) -> tuple[bytes, ...]:
    """For each shard of `chosen` the 64-bit counts of the first `backends` ids."""
    shard = maps.specs["chosen"].max_entries // CHOSEN_SHARDS * 8
    with maps.borrowed("chosen") as memory:
        return tuple(memory[i * shard : i * shard + min(backends * 8, shard)] for i in range(CHOSEN_SHARDS))
