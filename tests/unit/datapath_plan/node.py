"""A node's maps under test: every single change is held against what clients may see.

Programs in flight are modelled too: whatever one could have read since the last grace period must stay what
it was, and a set id read from a frontend's word must lead to the service port that it led to then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyagent.datapath.decoded import RawMaps, decode_set
from pyagent.datapath.draft import Plan
from pyagent.datapath.evaluate import Answer, evaluate, evaluate_frontend, evaluate_set
from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.layout import BACKEND, SOURCE_RANGE_KEY, Capacities
from pyagent.datapath.plan import plan
from pyagent.datapath.restored import restore
from pyagent.datapath.writes import Write
from pyagent.model.service import DesiredChange, ServicePortKey, View
from tests.unit.datapath_plan.desires import Desired, Dial
from tests.unit.datapath_plan.fake_maps import SMALL, FakeMaps

Decision = tuple[object, tuple[tuple[bytes, int, int, int], ...]]
Identity = tuple[ServicePortKey, bytes, int]
Words = dict[Identity, tuple[int, int]]


class WriteFailed(Exception):
    """The injected fault."""


class Node:
    def __init__(
        self, dials: Iterable[Dial], capacities: Capacities = SMALL, clients: Iterable[bytes] = ()
    ) -> None:
        """
        Args:
            dials: what clients dial.
            clients: addresses of clients, for source ranges.
        """
        self.dials = list(dials)
        self.clients = list(clients)
        self.maps = FakeMaps(capacities)
        self.held = HeldState(capacities)
        self.freed: list[Freed] = []
        self.last: Plan | None = None
        self.begin_reading()

    def change(self, change: DesiredChange, *, complete: bool = False, fail_at: int | None = None) -> Plan:
        """Plan and carry out; `fail_at` counts the changes of memory until the fault."""
        made = plan(self.held, change, complete=complete)
        self.last = made
        self.carry_out(made.writes, fail_at)
        if made.freed:
            self.freed.append(made.freed)
        return made

    def carry_out(self, writes: Sequence[Write], fail_at: int | None = None) -> None:
        """Write, and look at every dial after each change of memory."""
        before = {dial: self.decision(dial) for dial in self.dials}
        after_maps = self._copy(self.maps)
        for write in writes:
            after_maps.apply(write)
        after = {dial: _decision(evaluate(after_maps.raw, *dial)) for dial in self.dials}
        allowed = {dial: {before[dial], after[dial]} for dial in self.dials}
        self._allow_moving_nodes(allowed, after_maps)
        admitted = {
            dial: (self._admitted(self.maps, dial), self._admitted(after_maps, dial)) for dial in allowed
        }
        left = fail_at

        def look(name: str, offset: int) -> None:
            nonlocal left
            self._look(name, offset, allowed)
            for dial, (old, new) in admitted.items() if self.clients else ():
                now = self._admitted(self.maps, dial)
                assert old & new <= now <= old | new, (dial, "a client is let in, or kept out, in between")
            if left is not None:
                left -= 1
                if left < 0:
                    raise WriteFailed

        for write in writes:
            self.maps.apply(write, look)

    def exchange(self, maps: FakeMaps) -> None:
        """Programs use other maps from now on."""
        self.maps = maps
        self.begin_reading()

    def admitted(self, dial: Dial) -> frozenset[bytes]:
        """The clients that source ranges do not keep out."""
        return self._admitted(self.maps, dial)

    def _admitted(self, maps: FakeMaps, dial: Dial) -> frozenset[bytes]:
        answer = evaluate(maps.raw, *dial)
        if answer.header is None or answer.header.view != View.RESTRICTED:
            return frozenset(self.clients)
        ranges = [SOURCE_RANGE_KEY.unpack(key) for key in maps.hashes["source_ranges"]]
        return frozenset(
            client
            for client in self.clients
            for prefix, owner, address in ranges
            if owner == answer.service_port and _covers(bytes(address), int(prefix) - 32, client)
        )

    def end_grace_period(self) -> None:
        for freed in self.freed:
            self.held.reclaim(freed)
        self.freed.clear()
        self.begin_reading()

    def restart(self) -> None:
        """All that is known comes from the maps again."""
        self.freed.clear()
        self.begin_reading()
        self.held = restore(self.maps.raw, self.maps.capacities)

    def decision(self, dial: Dial) -> Decision:
        return _decision(evaluate(self.maps.raw, *dial))

    def words(self) -> Words:
        """(id, incarnation) of every backend that the agent holds."""
        return {
            (key, address, port): word
            for key in self.held.service_ports
            for (address, port), word in self.held.backend_words(key).items()
        }

    def assert_answers(self, desired: Desired) -> None:
        for dial in self.dials:
            outcome, candidates = self.decision(dial)
            found = outcome, frozenset((address, port) for address, port, _, _ in candidates)
            assert found == desired.answer(dial), (dial, found)

    def begin_reading(self) -> None:
        """A grace period has passed: no program runs that read anything before."""
        self._pinned_slots: dict[int, bytes] = {}
        self._pinned_backends: dict[int, bytes] = {}
        self._seen_sets: dict[int, tuple[int, int]] = {}  # set id -> service port's id, incarnation
        self._read()

    def _read(self) -> None:
        """What programs that start now get hold of."""
        raw = self.maps.raw
        for key in raw.frontends:
            answer = evaluate_frontend(raw, key)
            if answer.set_id is None:
                continue
            self._seen_sets.setdefault(answer.set_id, (answer.service_port, answer.incarnation))
            decoded = decode_set(raw.sets, raw.slots, answer.set_id)
            if decoded is None:
                continue
            for slot in range(decoded.first_slot, decoded.first_slot + 3 + len(decoded.backend_words)):
                self._pinned_slots[slot] = bytes(raw.slots[slot * 8 : slot * 8 + 8])
            for word in decoded.backend_words:
                self._pinned_backends[word >> 32] = _fixed_part(raw, word >> 32)

    def _look(self, name: str, offset: int, allowed: dict[Dial, set[Decision]]) -> None:
        raw = self.maps.raw
        if name == "slots":
            pinned = self._pinned_slots.get(offset // 8)
            assert pinned is None or pinned == raw.slots[offset : offset + 8], (
                "a block changed under a reader"
            )
            return
        if name == "backends":
            fixed = self._pinned_backends.get(offset // BACKEND.size)
            assert fixed is None or fixed == _fixed_part(raw, offset // BACKEND.size), "a backend changed"
            return
        if name in ("names", "chosen", "refused"):
            return
        for dial in self.dials:
            assert self.decision(dial) in allowed[dial], (dial, self.decision(dial), allowed[dial])
        self._read()
        if name == "sets":
            late = evaluate_set(raw, offset // 8)
            owner = late.service_port, late.incarnation
            assert self._seen_sets.get(offset // 8, owner) == owner, "a given-up set has another owner"

    def _allow_moving_nodes(self, allowed: dict[Dial, set[Decision]], after: FakeMaps) -> None:
        """An address that changes its node sees that apart from changed nodePorts; in either order."""
        old, new = self.maps.raw, after.raw
        for dial in self.dials:
            address = dial[0]
            if old.node_addresses.get(address) == new.node_addresses.get(address):
                continue
            for frontends, nodes in ((old, new), (new, old)):
                mixed = frontends._replace(node_addresses=nodes.node_addresses)
                allowed[dial].add(_decision(evaluate(mixed, *dial)))

    def _copy(self, maps: FakeMaps) -> FakeMaps:
        copy = FakeMaps(maps.capacities)
        copy.arrays = {name: bytearray(data) for name, data in maps.arrays.items()}
        copy.hashes = {name: dict(entries) for name, entries in maps.hashes.items()}
        return copy


def _decision(answer: Answer) -> Decision:
    assert all(candidate.matches for candidate in answer.candidates), "a slot names a backend that is gone"
    return answer.decision


def _covers(network: bytes, bits: int, address: bytes) -> bool:
    shift = 128 - bits
    return int.from_bytes(network, "big") >> shift == int.from_bytes(address, "big") >> shift


def _fixed_part(raw: RawMaps, backend_id: int) -> bytes:
    data = bytes(raw.backends[backend_id * BACKEND.size : (backend_id + 1) * BACKEND.size])
    return data[:18] + data[20:28]  # without state and node, which change in place
