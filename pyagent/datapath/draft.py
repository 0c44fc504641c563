"""A plan in the making: writes by phase, so that at any time a dial gets its old or its new answer."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyagent.datapath.encoded import is_node_port, node_port_node, padded_name
from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.layout import BACKEND, WORD, NodeId, frontend_word
from pyagent.datapath.writes import Put, Remove, Store, Write
from pyagent.model.address import Network
from pyagent.model.service import ServicePortKey


class Unfit(NamedTuple):
    """Something desired that found no room; the kernel keeps what it held of it.

    `subject` is a service port, or the range of a service address, or a node's address (16 bytes).
    """

    subject: ServicePortKey | Network | bytes
    map: str


class Plan(NamedTuple):
    """Writes in the order in which they must be carried out, one at a time.

    `freed` goes to `HeldState.reclaim` after all writes and then one grace period.
    """

    writes: tuple[Write, ...]
    freed: Freed
    unfit: tuple[Unfit, ...]


class Draft:
    """Collects what a plan does. The held state is changed by those who add to it, not here."""

    def __init__(self) -> None:
        self.names: dict[bytes, bytes] = {}
        self.new_backends: list[tuple[int, int]] = []  # first id, how many
        self.new_blocks: list[tuple[int, int]] = []  # first word, words
        self.new_sets: list[int] = []
        self.widening: list[Write] = []
        self.node_addresses_removed: list[bytes] = []
        self.states: list[Write] = []
        self.switched_first: list[int] = []  # sets
        self.frontends: dict[bytes, int] = {}  # key -> set id
        self.rules: dict[bytes, bytes] = {}
        self.rules_removed: list[bytes] = []
        self.frontends_removed: list[bytes] = []
        self.switched_last: list[int] = []  # sets
        self.given_up_sets: list[int] = []
        self.node_addresses: dict[bytes, bytes] = {}
        self.narrowing: list[Write] = []
        self.names_removed: list[bytes] = []
        self.freed_service_ports: list[int] = []
        self.freed_sets: list[int] = []
        self.freed_backends: list[int] = []
        self.freed_nodes: list[int] = []
        self.freed_blocks: list[tuple[int, int]] = []
        self.unfit: list[Unfit] = []

    def finished(self, held: HeldState) -> Plan:
        freed = held.freed(
            service_ports=tuple(self.freed_service_ports),
            sets=tuple(self.freed_sets),
            backends=tuple(self.freed_backends),
            nodes=tuple(self.freed_nodes),
            blocks=tuple(self.freed_blocks),
        )
        return Plan(tuple(self._ordered(held)), freed, tuple(self.unfit))

    def _ordered(self, held: HeldState) -> Iterator[Write]:
        """All writes. Four rules make the order:

        1. What is referred to comes before what refers to it, and goes after it.
        2. A dial is answered by the first of: its address, the nodePort of that very node, the nodePort of
           any other node, the longest range of service addresses. What comes, comes in this order; what
           goes, goes in the opposite one; so nothing behind shows through for a moment.
        3. A set that frontends join switches before they join, one that frontends leave after they left.
        4. A node's address goes before, and comes after, everything that it makes visible.
        """
        yield from (Put("names", key, padded_name(value)) for key, value in self.names.items())
        yield from _stores("backends", held.backends, BACKEND.size, self.new_backends)
        yield from _stores("slots", held.slots, WORD.size, self.new_blocks)
        yield from _stores("sets", held.sets, WORD.size, ((i, 1) for i in self.new_sets))
        yield from self.widening
        yield from (Remove("node_addresses", key) for key in self.node_addresses_removed)
        yield from self.states
        yield from _switches(held, self.switched_first)
        for key in sorted(self.frontends, key=_depth):
            yield Put("frontends", key, WORD.pack(frontend_word(self.frontends[key], key)))
        for key in sorted(self.rules, key=_prefix, reverse=True):
            yield Put("service_addresses", key, self.rules[key])
        yield from (Remove("service_addresses", key) for key in sorted(self.rules_removed, key=_prefix))
        for key in sorted(self.frontends_removed, key=_depth, reverse=True):
            yield Remove("frontends", key)
        yield from _switches(held, self.switched_last)
        yield from _switches(held, self.given_up_sets)
        yield from (Put("node_addresses", key, value) for key, value in self.node_addresses.items())
        yield from self.narrowing
        yield from (Remove("names", key) for key in self.names_removed)


def _depth(key: bytes) -> int:
    """How late a frontend is looked at."""
    if not is_node_port(key):
        return 0
    return 2 if node_port_node(key) == NodeId.ANY_OTHER else 1


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:4], sys.byteorder)


def _switches(held: HeldState, sets: Iterable[int]) -> Iterator[Write]:
    return (Store("sets", i * WORD.size, WORD.pack(held.sets[i])) for i in sets)


def _stores(
    name: str, content: bytearray | array[int], size: int, places: Iterable[tuple[int, int]]
) -> Iterator[Write]:
    """One store for each row of adjacent places (first element, elements), nothing of them visible yet."""
    start = end = 0
    data = memoryview(content).cast("B")
    for first, count in sorted(places):
        if first != end and end > start:
            yield Store(name, start * size, bytes(data[start * size : end * size]))
        if first != end:
            start = first
        end = first + count
    if end > start:
        yield Store(name, start * size, bytes(data[start * size : end * size]))
