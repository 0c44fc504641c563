"""A Service's count is that of its choices, whatever happens to its backends and whenever somebody looks."""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyagent.agent.traffic import OpenSockets, Traffic
from pyagent.datapath.counter_resets import counter_resets
from pyagent.datapath.encoded import name_key, padded_name
from pyagent.datapath.held import Freed
from pyagent.datapath.layout import BACKEND, CHOSEN_SHARDS, Capacities, NameKind, map_specs
from pyagent.datapath.writes import Store
from pyagent.kernel.map_set import MapSet
from pyagent.model.address import Family, Protocol

CAPACITIES = Capacities(backends=16, service_ports=8)
PORTS = st.integers(1, 3)


class MapsInMemory:
    """The part of a `MapSet` that counters live in."""

    def __init__(self) -> None:
        self.specs = {spec.name: spec for spec in map_specs(CAPACITIES)}
        self.arrays = {
            name: bytearray((self.specs[name].value_size + 7 & ~7) * self.specs[name].max_entries)
            for name in ("chosen", "backends", "refused")
        }
        self.names: dict[bytes, bytes] = {}

    def window(self, name: str, _end: int) -> bytearray:
        return self.arrays[name]

    @contextlib.contextmanager
    def borrowed(self, name: str) -> Iterator[bytearray]:
        yield self.arrays[name]

    def get(self, name: str, key: bytes) -> bytes | None:
        if name not in self.arrays:
            return self.names.get(key)
        at = int.from_bytes(key, sys.byteorder) * 8
        return bytes(self.arrays[name][at : at + 8])

    def apply(self, stores: Any) -> None:
        for store in stores:
            assert isinstance(store, Store)
            self.arrays[store.map][store.offset : store.offset + len(store.data)] = store.data


class Counting(RuleBasedStateMachine):
    """Hooks choose, backends come and go, agents restart, somebody scrapes."""

    @initialize()
    def begin(self) -> None:
        self.maps = MapsInMemory()
        self.traffic = Traffic()
        self.owner: dict[int, int] = {}  # backend -> service port
        self.expected = dict.fromkeys((1, 2, 3), 0)
        self.before = dict(self.expected)
        self.incarnation = 0
        for port in self.expected:
            head = struct.pack("=I4B", 100 + port, Family.IPV4, Protocol.TCP, 0, 0)
            self.maps.names[name_key(NameKind.SERVICE_PORT, port)] = padded_name(
                head + f"shop/web-{port}:http".encode()
            )

    @property
    def as_set(self) -> MapSet:
        return cast("MapSet", self.maps)

    @rule(port=PORTS, backend=st.integers(1, 15))
    def a_backend_comes(self, port: int, backend: int) -> None:
        if backend not in self.owner:
            self.incarnation += 1
            self.owner[backend] = port
            record = BACKEND.pack(bytes(16), 80, 0, self.incarnation, port, 0)
            at = backend * BACKEND.size
            self.maps.arrays["backends"][at : at + BACKEND.size] = record

    @rule(data=st.data())
    def a_backend_goes(self, data: st.DataObject) -> None:
        if self.owner:
            backend = data.draw(st.sampled_from(sorted(self.owner)))
            freed = [Freed(None, backends=(backend,))]
            self.traffic.give_up(self.as_set, freed)
            self.maps.apply(counter_resets(freed, CAPACITIES))
            del self.owner[backend]

    @rule(data=st.data(), shard=st.integers(0, CHOSEN_SHARDS - 1), times=st.integers(1, 5))
    def hooks_choose(self, data: st.DataObject, shard: int, times: int) -> None:
        if self.owner:
            backend = data.draw(st.sampled_from(sorted(self.owner)))
            at = (shard * CAPACITIES.backends + backend) * 8
            (count,) = struct.unpack_from("=Q", self.maps.arrays["chosen"], at)
            struct.pack_into("=Q", self.maps.arrays["chosen"], at, count + times)
            self.expected[self.owner[backend]] += times

    @rule()
    def an_agent_takes_over(self) -> None:
        self.traffic = Traffic()
        self.traffic.start(self.as_set)
        self.expected = dict.fromkeys(self.expected, 0)
        self.before = dict(self.expected)

    @rule()
    def somebody_scrapes(self) -> None:
        read = self.traffic.read(self.as_set, OpenSockets({}, {}), by_backend=True)
        found = {one.port.identifier: one.chosen for one in read.services}
        assert found == {port: count for port, count in self.expected.items() if count}
        assert all(found.get(port, 0) >= count for port, count in self.before.items()), "a counter fell"
        self.before = found
        kernel = sum(struct.unpack(f"={CHOSEN_SHARDS * 16}Q", self.maps.arrays["chosen"]))
        assert sum(one.chosen for one in read.backends) <= kernel


class Watched(Counting):
    """The same, scraped after every step."""

    @invariant()
    def counts_are_right(self) -> None:
        if hasattr(self, "maps"):
            self.somebody_scrapes()


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestWatched = Watched.TestCase
TestWatched.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
