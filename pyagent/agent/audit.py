"""Holds the kernel's maps against what was written: somebody else's write is found and made good."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections.abc import Callable, Collection

from pyagent.agent.facts import Facts
from pyagent.datapath.bounds import decode_bounds
from pyagent.datapath.encoded import NODE, RULE, padded_name
from pyagent.datapath.held import BAD_TAG, HeldState
from pyagent.datapath.layout import CONFIG, WORD, frontend_word
from pyagent.datapath.source_range_plan import ADMITTED
from pyagent.kernel.map_set import MapSet

log = logging.getLogger(__name__)

WINDOW = 2 << 20
"""Bytes of an array that are compared at a time."""

PORTION = 1024
"""Entries of a hash map or trie that are read at a time."""

LOOKED_UP = 128
"""Entries of a larger map that are looked up at a time."""


class Audit:
    """Looks at a portion of each map at a time, and at all of a map that is no larger than that.

    So a look takes no longer on a node of a large cluster; going once round takes longer there. What was
    read of a hash map is remembered by its digest: while no plan is carried out, the same bytes are right.
    """

    def __init__(self, maps: MapSet) -> None:
        self._arrays = {name: _Array(maps, name) for name in ("sets", "slots", "backends")}
        self._tables = {name: _Table(maps, name) for name in _VALUES}
        self._maps = maps

    def altered(self, held: HeldState, ranges: Collection[bytes], turn: int) -> list[str]:
        """The maps that were seen not to be as `held` says.

        Args:
            ranges: keys that `source_ranges` should have.
            turn: counts the plans that were carried out.
        """
        arrays: dict[str, array[int] | bytearray] = {
            "sets": held.sets,
            "slots": held.slots,
            "backends": held.backends,
        }
        tables: dict[str, Collection[bytes]] = {
            "frontends": held.frontends,
            "service_addresses": held.service_addresses,
            "node_addresses": held.node_addresses,
            "source_ranges": ranges,
            "names": held.names,
        }
        found = [name for name, content in arrays.items() if self._arrays[name].differs(content)]
        if decode_bounds(self._maps.window("config", CONFIG.size)[: CONFIG.size]) != held.bounds:
            found.append("config")
        return found + [name for name, keys in tables.items() if self._tables[name].differs(keys, held, turn)]


class _Array:
    """One mmapped array, a window after the other."""

    def __init__(self, maps: MapSet, name: str) -> None:
        self._maps = maps
        self._name = name
        self._at = 0

    def differs(self, content: array[int] | bytearray) -> bool:
        wanted = memoryview(content).cast("B")
        start = self._at if self._at < len(wanted) else 0
        end = min(start + WINDOW, len(wanted))
        self._at = end
        # As bytes: two memoryviews are compared item by item.
        return self._maps.window(self._name, end)[start:end] != bytes(wanted[start:end])


class _Table:
    """One hash map or trie, a portion after the other.

    A walk finds what is there and should not be. What should be there and is not, it only finds by their
    number, if no plan was carried out meanwhile; else by looking up one after the other.
    """

    def __init__(self, maps: MapSet, name: str) -> None:
        self._maps = maps
        self._name = name
        self._wanted = _VALUES[name]
        self._cursor: bytes | None = None
        self._right: dict[bytes | None, tuple[int, bytes]] = {}
        self._seen, self._began = 0, 0
        self._unseen: list[bytes] = []

    def differs(self, keys: Collection[bytes], held: HeldState, turn: int) -> bool:
        start = self._cursor
        portion = self._maps.portion(self._name, start, PORTION)
        self._cursor = portion.following
        if start is None:
            self._seen, self._began = 0, turn
        self._seen += len(portion.keys) // portion.key_size
        digest = hashlib.blake2b(portion.keys + portion.values).digest()
        if self._right.get(start) != (turn, digest):
            entries = portion.items()
            if any(key not in keys or self._wanted(held, key) != value for key, value in entries):
                return True
            self._right[start] = turn, digest
        if portion.following is not None:
            return self._misses(keys, held)
        self._right = {at: seen for at, seen in self._right.items() if seen[0] == turn}
        return self._began == turn and self._seen != len(keys)

    def _misses(self, keys: Collection[bytes], held: HeldState) -> bool:
        if not self._unseen:
            self._unseen = list(keys)
        looked_up = self._unseen[-LOOKED_UP:]
        del self._unseen[-LOOKED_UP:]
        return any(
            key in keys and self._maps.get(self._name, key) != self._wanted(held, key) for key in looked_up
        )


def _frontend(held: HeldState, key: bytes) -> bytes | None:
    set_id = held.frontends.get(key, BAD_TAG)
    return None if set_id == BAD_TAG else WORD.pack(frontend_word(set_id, key))


def _service_address(held: HeldState, key: bytes) -> bytes | None:
    rule = held.service_addresses.get(key)
    return None if rule is None else RULE.pack(rule)


def _node_address(held: HeldState, key: bytes) -> bytes | None:
    node = held.node_addresses.get(key)
    return None if node is None else NODE.pack(node)


def _source_range(_held: HeldState, _key: bytes) -> bytes:
    return ADMITTED


def _name(held: HeldState, key: bytes) -> bytes | None:
    value = held.names.get(key)
    return None if value is None else padded_name(value)


_VALUES: dict[str, Callable[[HeldState, bytes], bytes | None]] = {
    "frontends": _frontend,
    "service_addresses": _service_address,
    "node_addresses": _node_address,
    "source_ranges": _source_range,
    "names": _name,
}


def told_repaired(facts: Facts, *maps: str) -> None:
    """Tell that entries of these were found changed and are made good."""
    what = f"map {', '.join(maps)}: entries were changed from outside"
    log.warning("repairing %s", what)
    facts.repaired(what)
