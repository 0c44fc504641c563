"""Copies what one set of maps holds into a larger one, at the same places."""

from __future__ import annotations

import errno

from pyagent.datapath.layout import CHOSEN_SHARDS, MapFlag, MapType
from pyagent.datapath.writes import Put
from pyagent.kernel.map_set import BATCH, MapSet

COPIED_TYPES = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE})


def copy_contents(old: MapSet, new: MapSet) -> None:
    """Copy every map that the two sets do not share.

    Nothing but the agent may write to the old ones meanwhile, except counters and affinity, of which a few
    updates may be lost.
    """
    for name, spec in new.specs.items():
        if old.specs[name] == spec:
            continue  # the same map
        if spec.flags & MapFlag.MMAPABLE:
            _copy_array(name, old, new)
        elif spec.type in COPIED_TYPES:
            cursor: bytes | None = None
            while True:
                portion = old.portion(name, cursor, BATCH)
                new.apply(Put(name, key, value) for key, value in portion.items())
                cursor = portion.following
                if cursor is None:
                    break
        else:
            raise ValueError(f"map {name} cannot grow", errno.EINVAL)


def copy_late(name: str, old: MapSet, new: MapSet) -> None:
    """Copy what programs put into the old map since `copy_contents`; what the new one has is newer."""
    if old.specs[name] == new.specs[name]:
        return
    known = {key for key, _ in new.items(name)}
    new.apply(Put(name, key, value) for key, value in old.items(name) if key not in known)


def _copy_array(name: str, old: MapSet, new: MapSet) -> None:
    shards = CHOSEN_SHARDS if name == "chosen" else 1
    before = old.specs[name].max_entries // shards * old.specs[name].value_size
    after = new.specs[name].max_entries // shards * new.specs[name].value_size
    with old.borrowed(name) as source, new.borrowed(name) as target:
        for shard in range(shards):
            target[shard * after : shard * after + before] = source[shard * before : (shard + 1) * before]
