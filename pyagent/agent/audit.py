"""Holds the kernel's maps against what was written: somebody else's write is found and made good."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Literal

from pyagent.agent.facts import Facts
from pyagent.datapath.bounds import decode_bounds
from pyagent.datapath.held import BAD_TAG, HeldState
from pyagent.datapath.layout import CONFIG, NAME, WORD, frontend_word
from pyagent.kernel.map_set import MapSet

log = logging.getLogger(__name__)
NUMBER = 4
_ORDER: Literal["little"] = "little"


class Audit:
    """Compares often and cheaply.

    Arrays are compared as memory, some GB a second. Of hash maps a digest is kept while no plan is carried
    out: as long as it stays, so do the entries, and reading them costs a fraction of a microsecond each.
    """

    def __init__(self, maps: MapSet) -> None:
        self._maps = maps
        self._right: dict[str, tuple[int, bytes]] = {}

    def altered(self, held: HeldState, ranges: frozenset[bytes], turn: int, names: bool = False) -> list[str]:
        """The maps that are not as `held` says.

        Args:
            ranges: keys that `source_ranges` should have.
            turn: counts the plans that were carried out.
            names: look at `names` too, which is large and decides nothing.
        """
        arrays = {
            "sets": memoryview(held.sets).cast("B"),
            "slots": memoryview(held.slots).cast("B"),
            "backends": memoryview(held.backends),
        }
        found = [n for n, wanted in arrays.items() if self._maps.memory(n)[: len(wanted)] != wanted]
        if decode_bounds(self._maps.memory("config")[: CONFIG.size]) != held.bounds:
            found.append("config")
        if frozenset(key for key, _ in self._maps.items("source_ranges")) != ranges:
            found.append("source_ranges")
        looked_at = [n for n in _WANTED if n != "names" or names]
        return found + [n for n in looked_at if self._hash_map_differs(n, held, turn)]

    def _hash_map_differs(self, name: str, held: HeldState, turn: int) -> bool:
        items = self._maps.items(name)
        digest = hashlib.blake2b(b"".join(part for item in items for part in item)).digest()
        if self._right.get(name) == (turn, digest):
            return False
        if dict(items) != _WANTED[name](held):
            self._right.pop(name, None)
            return True
        self._right[name] = turn, digest
        return False


def told_repaired(facts: Facts, *maps: str) -> None:
    """Tell that entries of these were found changed and are made good."""
    what = f"map {', '.join(maps)}: entries were changed from outside"
    log.warning("repairing %s", what)
    facts.repaired(what)


def _frontends(held: HeldState) -> dict[bytes, bytes]:
    return {
        key: WORD.pack(frontend_word(set_id, key))
        for key, set_id in held.frontends.items()
        if set_id != BAD_TAG
    }


def _service_addresses(held: HeldState) -> dict[bytes, bytes]:
    return {key: rule.to_bytes(NUMBER, _ORDER) for key, rule in held.service_addresses.items()}


def _node_addresses(held: HeldState) -> dict[bytes, bytes]:
    return {key: node.to_bytes(NUMBER, _ORDER) for key, node in held.node_addresses.items()}


def _names(held: HeldState) -> dict[bytes, bytes]:
    return {key: value.ljust(NAME.size, b"\0") for key, value in held.names.items()}


_WANTED: dict[str, Callable[[HeldState], dict[bytes, bytes]]] = {
    "frontends": _frontends,
    "service_addresses": _service_addresses,
    "node_addresses": _node_addresses,
    "names": _names,
}
