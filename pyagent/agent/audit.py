"""Holds the kernel's maps against what was written: somebody else's write is found and made good."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Iterable

from pyagent.datapath.bounds import decode_bounds
from pyagent.datapath.encoded import NODE, RULE, padded_name
from pyagent.datapath.held import BAD_TAG, HeldState
from pyagent.datapath.layout import CONFIG, WORD, frontend_word
from pyagent.datapath.source_range_plan import ADMITTED
from pyagent.datapath.writes import Put, Remove, Write
from pyagent.kernel.map_set import MapSet

WINDOW = 1 << 16
"""Bytes of an array that are compared at a time: small enough for the processor's cache."""

PORTION = 2048
"""Entries of a hash map or trie that are read at a time."""

LOOKED_UP = 128
"""Entries that are looked up one by one in a look that does not reach the map's end."""

LOOK_SECONDS = 0.02
"""After which a look at one map goes on in the next round: a change must not wait longer for its turn."""

NAMES_SECONDS = 0.0
"""The same for `names`, one portion in a round: they are shown, and decide nothing."""

TRIES = frozenset({"service_addresses", "source_ranges"})
"""Where looking up a key that is not there may find a shorter prefix."""

STEPS = (
    ("config", "sets"),
    ("slots",),
    ("backends",),
    ("frontends", "node_addresses"),
    ("service_addresses", "source_ranges"),
    ("names",),
)
"""What one look is about; all of them are a round."""


class Audit:
    """A round over all maps, spread over looks so that no change waits long for its turn.

    A look goes on to a map's end if that takes no longer than `LOOK_SECONDS`; else the next round goes on
    where it stopped. Of hash maps the digest of what was found right is remembered: the same bytes are right
    again, but for the keys that plans have written meanwhile, which are looked up.
    """

    def __init__(self, maps: MapSet) -> None:
        self._maps = maps
        self._arrays = {name: _Array(maps, name) for name in ("sets", "slots", "backends")}
        self._tables = {name: _Table(maps, name) for name in _VALUES}
        self._step = 0

    def wrote(self, writes: Iterable[Write]) -> None:
        """A plan has been carried out."""
        for write in writes:
            if isinstance(write, (Put, Remove)) and write.map in self._tables:
                self._tables[write.map].wrote(write)

    def distrust(self) -> None:
        """Compare everything entry by entry again: all was written anew, or half an hour has passed."""
        for table in self._tables.values():
            table.distrust()

    def look(self, held: HeldState, ranges: Collection[bytes], turn: int) -> list[str]:
        """Those of the next maps that were seen not to be as `held` says; of all maps if there are any.

        Args:
            ranges: keys that `source_ranges` should have.
            turn: counts the plans that were carried out.
        """
        found = self._take_step(held, ranges, turn)
        if found:
            for _ in range(len(STEPS) - 1):
                found += self._take_step(held, ranges, turn)
        return found

    def _take_step(self, held: HeldState, ranges: Collection[bytes], turn: int) -> list[str]:
        names = STEPS[self._step]
        self._step = (self._step + 1) % len(STEPS)
        return [name for name in names if self._differs(name, held, ranges, turn)]

    def _differs(self, name: str, held: HeldState, ranges: Collection[bytes], turn: int) -> bool:
        if name == "config":
            return decode_bounds(self._maps.window(name, CONFIG.size)[: CONFIG.size]) != held.bounds
        if name in self._arrays:
            content: array[int] | bytearray = getattr(held, name)
            return self._arrays[name].differs(content)
        keys: Collection[bytes] = ranges if name == "source_ranges" else getattr(held, name)
        return self._tables[name].differs(keys, held, turn)


class _Array:
    """One mmapped array, a window after the other."""

    def __init__(self, maps: MapSet, name: str) -> None:
        self._maps = maps
        self._name = name
        self._at = 0

    def differs(self, content: array[int] | bytearray) -> bool:
        until = time.perf_counter() + LOOK_SECONDS
        # As bytes: two memoryviews are compared item by item.
        with memoryview(content) as view, view.cast("B") as wanted:
            self._at = self._at if self._at < len(wanted) else 0
            memory = self._maps.window(self._name, len(wanted))
            while self._at < len(wanted):
                start, end = self._at, min(self._at + WINDOW, len(wanted))
                self._at = end
                if memory[start:end] != bytes(wanted[start:end]):
                    return True
                if time.perf_counter() >= until:
                    return False
        return False


class _Table:
    """One hash map or trie.

    A walk finds what is there and should not be. What should be there and is not, it finds by their number,
    if no plan was carried out meanwhile; else, and where a walk takes several rounds, by looking up.
    """

    def __init__(self, maps: MapSet, name: str) -> None:
        self._maps = maps
        self._name = name
        self._wanted = _VALUES[name]
        self._seconds = NAMES_SECONDS if name == "names" else LOOK_SECONDS
        self._cursor: bytes | None = None
        self._seen, self._began = 0, 0
        self._unseen: list[bytes] = []
        self.distrust()

    def distrust(self) -> None:
        self._right: dict[bytes | None, int] = {}  # where a portion begins -> digest of what it had
        self._found: dict[bytes | None, int] = {}  # the same, of the walk under way
        self._written: set[bytes] = set()  # since the walk began: digests know older values of these
        self._written_before: set[bytes] = set()  # the same, between the walk before and this one

    def wrote(self, write: Put | Remove) -> None:
        self._written.add(write.key)
        if len(self._written) > PORTION or (isinstance(write, Remove) and self._name in TRIES):
            self.distrust()  # a walk costs less than so many lookups, and tells what a lookup would not

    def differs(self, keys: Collection[bytes], held: HeldState, turn: int) -> bool:
        if self._cursor is None:
            self._begin(turn)
        found = self._walk(keys, held, turn)
        if found:
            self._cursor = None  # all of it is written anew
        return found

    def _walk(self, keys: Collection[bytes], held: HeldState, turn: int) -> bool:
        written = self._written | self._written_before
        if self._is_wrong([k for k in written if k in keys or self._name not in TRIES], keys, held):
            return True
        until = time.perf_counter() + self._seconds
        while not self._portion_differs(keys, held):
            if self._cursor is None:
                self._right, self._found = self._found, {}
                return self._began == turn and self._seen != len(keys)
            if time.perf_counter() >= until:
                return self._misses(keys, held)
        return True

    def _begin(self, turn: int) -> None:
        self._seen, self._began = 0, turn
        self._written, self._written_before = set(), self._written

    def _portion_differs(self, keys: Collection[bytes], held: HeldState) -> bool:
        start = self._cursor
        portion = self._maps.portion(self._name, start, PORTION)
        self._cursor = portion.following
        self._seen += len(portion.keys) // portion.key_size
        digest = hash((portion.keys, portion.values))
        if self._right.get(start) != digest:
            entries = portion.items()
            if any(key not in keys or self._wanted(held, key) != value for key, value in entries):
                return True
        self._found[start] = digest
        return False

    def _misses(self, keys: Collection[bytes], held: HeldState) -> bool:
        if not self._unseen:
            self._unseen = list(keys)
        looked_up = self._unseen[-LOOKED_UP:]
        del self._unseen[-LOOKED_UP:]
        return self._is_wrong([key for key in looked_up if key in keys], keys, held)

    def _is_wrong(self, some: Iterable[bytes], keys: Collection[bytes], held: HeldState) -> bool:
        return any(
            self._maps.get(self._name, key) != (self._wanted(held, key) if key in keys else None)
            for key in some
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


def entries_changed(maps: Iterable[str]) -> str:
    """The line that tells it, as `tell_repaired` takes it."""
    return f"map {', '.join(maps)}: entries were changed from outside"
