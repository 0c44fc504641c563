"""Connections from outside: swept in time, counted in between, never so many that open ones are given up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.agent import flows
from pyagent.agent.flows import ENTRIES, SWEEP_SECONDS, FlowKeeper
from pyagent.datapath.flow_layout import FLOW, FLOW_KEY, FlowSeconds, FlowSeen
from pyagent.datapath.flow_records import over, seconds_left
from pyagent.datapath.writes import Remove
from pyagent.kernel.map_set import Portion
from pyagent.kernel.outside import Outside
from pyagent.model.address import Protocol
from pyagent.model.outcome import Outcome

CAPACITY = 400
SECOND = 1_000_000_000
CLOSED = FlowSeen.REPLY | FlowSeen.FIN_OF_CLIENT | FlowSeen.FIN_OF_BACKEND
Entry = tuple[bytes, bytes]


def entry(number: int, seen: int, quiet: float, now: int, protocol: int = Protocol.TCP) -> Entry:
    """Of which nothing came for `quiet` seconds."""
    key, value = bytearray(FLOW_KEY.size), bytearray(FLOW.size)
    key[:4] = number.to_bytes(4, "little")
    key[FLOW_KEY.offsets["protocol"]] = protocol
    value[FLOW.offsets["seen"]] = seen
    at = FLOW.offsets["last_seen"]
    value[at : at + 8] = (now - round(quiet * SECOND)).to_bytes(8, "little")
    return bytes(key), bytes(value)


class Maps:
    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.begun = 0
        self.specs = {"flows": SimpleNamespace(max_entries=CAPACITY)}
        self.walks = 0

    def portion(self, _name: str, _cursor: bytes | None, _count: int) -> Portion:
        self.walks += 1
        keys, values = b"".join(self.entries.keys()), b"".join(self.entries.values())
        return Portion(keys, values, FLOW_KEY.size, FLOW.size, None)

    def apply(self, writes: Iterable[Remove]) -> None:
        for write in writes:
            del self.entries[write.key]

    def connect(self, count: int, seen: int = FlowSeen.REPLY, quiet: float = 0.0) -> None:
        """With as many entries as a connection may have."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for _ in range(count * ENTRIES):
            key, value = entry(len(self.entries) + self.begun * 1000, seen, quiet, now)
            self.entries[key] = value
        self.begun += count


class Driven:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.maps = Maps()
        self.asked = 0
        monkeypatch.setattr(
            flows,
            "outcome_counts",
            lambda maps, _name, wanted: dict.fromkeys(wanted, 0) | {Outcome.TRANSLATED: maps.begun},
        )
        outside = SimpleNamespace(maps_in_use=self._in_use)
        self.keeper = FlowKeeper(cast("Outside", outside), self._ask, lambda: self.now)
        self.keeper.look()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[Maps]:
        yield self.maps

    def _ask(self) -> None:
        self.asked += 1

    def look(self, seconds: float = 1.0) -> int:
        """Walks over the map that this look took."""
        before = self.maps.walks
        self.now += seconds
        self.keeper.look()
        return self.maps.walks - before


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Driven:
    return Driven(monkeypatch)


def test_where_little_happens_it_is_swept_now_and_then(driven: Driven) -> None:
    driven.maps.connect(5, CLOSED, quiet=FlowSeconds.CLOSED + 1)
    assert [driven.look() for _ in range(int(SWEEP_SECONDS) - 1)] == [0] * (int(SWEEP_SECONDS) - 1)
    assert driven.look() == 1
    assert (driven.keeper.entries, driven.asked) == (0, 0)


def test_when_half_of_it_may_be_in_use_a_larger_one_is_asked_for_at_once(driven: Driven) -> None:
    driven.maps.connect(CAPACITY // ENTRIES // 2)
    assert driven.look() == 0
    driven.maps.connect(1)
    assert driven.look() == 1
    assert driven.keeper.entries == len(driven.maps.entries) > CAPACITY // 2
    assert driven.asked == 1


def test_a_crowd_of_closed_connections_makes_room_early(driven: Driven) -> None:
    driven.maps.connect(CAPACITY // ENTRIES // 2, CLOSED, quiet=FlowSeconds.RESET + 1)
    driven.maps.connect(20)
    assert driven.look() == 1
    assert driven.keeper.entries == 20 * ENTRIES
    assert driven.asked == 0, "there is room enough now"


def test_connections_that_share_entries_are_counted_too_high_and_then_as_they_are(driven: Driven) -> None:
    driven.maps.begun += CAPACITY
    assert driven.look() == 1
    assert (driven.keeper.entries, driven.asked) == (0, 0)
    assert driven.look() == 0


def test_a_long_sweep_is_followed_by_rest(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    portion = driven.maps.portion

    def slow(name: str, cursor: bytes | None, count: int) -> Portion:
        driven.now += 2.0
        return portion(name, cursor, count)

    monkeypatch.setattr(driven.maps, "portion", slow)
    driven.maps.connect(CAPACITY)
    assert driven.look() == 1
    assert [driven.look() for _ in range(17)] == [0] * 17
    assert driven.look() == 1


ENTRY = st.tuples(
    st.integers(0, 31), st.floats(0.0, 2 * FlowSeconds.CLOSED), st.sampled_from([Protocol.TCP, Protocol.UDP])
)


@given(st.lists(ENTRY, max_size=30))
def test_a_crowd_costs_nobody_who_is_open(drawn: list[tuple[int, float, Protocol]]) -> None:
    now = 10**15
    entries = dict(
        entry(number, seen, quiet, now, protocol) for number, (seen, quiet, protocol) in enumerate(drawn)
    )
    gone, early = set(over(entries.items(), now)), set(over(entries.items(), now, crowded=True))
    assert gone <= early
    at, seen_at = FLOW.offsets["last_seen"], FLOW.offsets["seen"]
    for key in early - gone:
        seen, last = entries[key][seen_at], int.from_bytes(entries[key][at : at + 8], "little")
        assert seen & CLOSED & ~FlowSeen.REPLY == CLOSED & ~FlowSeen.REPLY
        assert now - last > FlowSeconds.RESET * SECOND
    for key in gone:
        seen, last = entries[key][seen_at], int.from_bytes(entries[key][at : at + 8], "little")
        assert seconds_left(key[FLOW_KEY.offsets["protocol"]], seen, last, now) < 0
