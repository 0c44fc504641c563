"""What somebody else writes into the maps is found, in small maps at once and in large ones in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.agent import audit
from pyagent.agent.audit import STEPS, Audit
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import SOURCE_RANGE_KEY, WORD, Capacities, frontend_word
from pyagent.datapath.plan import plan
from pyagent.datapath.source_range_plan import ADMITTED
from pyagent.datapath.writes import Store
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.map_set import MapSet
from pyagent.model.address import Network, parse_address
from pyagent.model.service import CLUSTER_SET, AddressRule
from tests.unit.datapath_plan.desires import Desired, backend, dialled, port_key, service_port

pytestmark = pytest.mark.kernel

SIZES = Capacities(
    frontends=512, sets=512, slots=8192, backends=2048, service_ports=512, service_addresses=512,
    node_addresses=64, affinity=64, overflow=64, source_ranges=64, clients=64, event_bytes=4096,
)  # fmt: skip
SERVICES = 60
LOOKS = 200
"""More than it takes to look at everything, however small the portions."""


def address_of(number: int) -> str:
    return f"10.96.{number // 200}.{number % 200 + 1}"


def network_of(number: int) -> Network:
    return Network(parse_address(address_of(number)), 128)


class Node:
    """Maps as a first plan left them, and what the planner holds of them."""

    def __init__(self, folder: Path, sizes: Capacities = SIZES, services: int = SERVICES) -> None:
        folder.parent.mkdir(exist_ok=True)
        self.maps = MapSet.create(folder, sizes)
        self.held = HeldState(sizes)
        self.desired = Desired()
        for number in range(services):
            self.add(number)
        self.maps.apply(plan(self.held, self.desired.full(), complete=True).writes)
        self.audit = Audit(self.maps)
        self.turn = 1

    def add(self, number: int) -> None:
        wanted = service_port(port_key(f"s{number}"), {CLUSTER_SET: [backend(f"10.0.0.{number % 200 + 1}")]})
        self.desired.add(wanted, dialled(address_of(number)))
        self.desired.service_addresses[network_of(number)] = AddressRule.REFUSE_UNDEFINED_PORT

    def change(self, number: int) -> None:
        """One more Service, by a plan of its own."""
        before = self.desired.copy()
        self.add(number)
        self._carry_out(before)

    def remove(self, number: int) -> None:
        """One Service less, by a plan of its own."""
        before = self.desired.copy()
        self.desired.remove(port_key(f"s{number}"))
        del self.desired.service_addresses[network_of(number)]
        self._carry_out(before)

    def _carry_out(self, before: Desired) -> None:
        writes = plan(self.held, self.desired.since(before)).writes
        self.maps.apply(writes)
        self.audit.wrote(writes)
        self.turn += 1

    def look(self) -> list[str]:
        return self.audit.look(self.held, frozenset(), self.turn)

    def looks(self, count: int = LOOKS) -> list[str]:
        """The first finding."""
        return next((found for _ in range(count) if (found := self.look())), [])

    def some(self, name: str) -> tuple[bytes, bytes]:
        return sorted(self.maps.items(name))[SERVICES // 2]


@pytest.fixture(params=[2048, 8], ids=["in one round", "in portions"])
def node(bpffs: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(audit, "PORTION", request.param)
    monkeypatch.setattr(audit, "LOOKED_UP", request.param)
    monkeypatch.setattr(audit, "WINDOW", request.param * 32)
    monkeypatch.setattr(audit, "LOOK_SECONDS", 0.0 if request.param == 8 else 60.0)
    made = Node(bpffs / "v1-1")
    yield made
    made.maps.close()


def test_what_was_written_is_right(node: Node) -> None:
    assert node.looks() == []


@pytest.mark.parametrize("name", ["frontends", "service_addresses", "names"])
def test_an_entry_that_was_removed(node: Node, name: str) -> None:
    assert node.looks() == []
    bpf.map_delete(node.maps.fd(name), node.some(name)[0])
    assert node.looks() == [name]


@pytest.mark.parametrize("name", ["frontends", "service_addresses", "names"])
def test_an_entry_that_was_changed(node: Node, name: str) -> None:
    assert node.looks() == []
    key, value = node.some(name)
    bpf.map_update(node.maps.fd(name), key, bytes([value[0] ^ 3]) + value[1:])
    assert node.looks() == [name]


def test_an_entry_that_was_added(node: Node) -> None:
    key = node.some("frontends")[0]
    added = key[:16] + b"\x07\x07" + key[18:]
    bpf.map_update(node.maps.fd("frontends"), added, WORD.pack(frontend_word(1, added)))
    assert node.looks() == ["frontends"]


def test_a_source_range_that_was_added(node: Node) -> None:
    bpf.map_update(node.maps.fd("source_ranges"), SOURCE_RANGE_KEY.pack(64, 1, bytes(16)), ADMITTED)
    assert node.looks() == ["source_ranges"]


@pytest.mark.parametrize("name", ["sets", "slots", "backends"])
def test_a_word_that_was_changed(node: Node, name: str) -> None:
    offset = 8 * SERVICES
    word = node.maps.memory(name)[offset : offset + 8]
    node.maps.apply([Store(name, offset, bytes(b ^ 0xFF for b in word))])
    assert node.looks() == [name]


def test_all_that_was_changed_is_told_at_once(node: Node) -> None:
    for name in ("sets", "slots"):
        node.maps.apply([Store(name, 0, b"\xff" * 8)])
    assert node.looks() == ["sets", "slots"]


def test_a_plan_in_the_middle_of_a_walk_alters_nothing(node: Node) -> None:
    """What the agent itself writes meanwhile is right, in what was looked at already and in the rest."""
    for number in range(40):
        assert node.look() == []
        node.change(SERVICES + number)
        node.remove(number)
    assert node.looks() == []


@pytest.mark.parametrize("name", ["frontends", "service_addresses", "names"])
def test_an_entry_that_a_plan_had_just_changed_is_put_back_to_what_it_was(node: Node, name: str) -> None:
    """Those bytes were right a moment ago, and are not any more."""
    assert node.looks() == []
    before = dict(node.maps.items(name))
    node.remove(7)
    gone = before.keys() - dict(node.maps.items(name)).keys()
    for key in gone:
        bpf.map_update(node.maps.fd(name), key, before[key])
    assert gone
    assert node.looks() == [name]


def test_an_entry_that_a_plan_wrote_and_somebody_removed(node: Node) -> None:
    assert node.looks() == []
    before = {key for key, _ in node.maps.items("frontends")}
    node.change(SERVICES)
    (added,) = {key for key, _ in node.maps.items("frontends")} - before
    bpf.map_delete(node.maps.fd("frontends"), added)
    assert node.looks() == ["frontends"]


def test_an_entry_that_is_missing_is_found_though_a_plan_comes_between_any_two_looks(node: Node) -> None:
    """So that what is there is never counted as a whole."""
    assert node.looks() == []
    bpf.map_delete(node.maps.fd("frontends"), node.some("frontends")[0])
    found: list[str] = []
    for number in range(40 * len(STEPS)):
        (node.remove if number % 2 else node.change)(SERVICES)
        found = found or node.look()
    assert found == ["frontends"]


@pytest.mark.parametrize("name", ["frontends", "service_addresses"])
def test_one_round_looks_at_the_whole_of_a_large_map(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(audit, "LOOK_SECONDS", 60.0)
    sizes = SIZES._replace(
        frontends=8192, sets=8192, slots=65536, backends=8192, service_ports=8192, service_addresses=8192
    )
    node = Node(bpffs / "v1-1", sizes, services=3 * audit.PORTION)
    assert node.looks(len(STEPS)) == []
    for key, value in (min(node.maps.items(name)), max(node.maps.items(name))):
        bpf.map_update(node.maps.fd(name), key, bytes([value[0] ^ 3]) + value[1:])
        assert node.looks(len(STEPS)) == [name]
        bpf.map_update(node.maps.fd(name), key, value)
    node.maps.close()


def test_what_was_found_right_before_is_compared_again_when_it_is_distrusted(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.looks() == []
    monkeypatch.setitem(audit._VALUES, "frontends", lambda _held, _key: b"something else")
    for table in node.audit._tables.values():
        monkeypatch.setattr(table, "_wanted", audit._VALUES[table._name])
    node.audit.distrust()
    assert node.looks() == ["frontends"]


def test_maps_without_entries_are_right(bpffs: Path) -> None:
    bpffs.mkdir()
    maps, held = MapSet.create(bpffs / "v1-1", SIZES), HeldState(SIZES)
    maps.apply(plan(held, Desired().full(), complete=True).writes)
    nothing = Audit(maps)
    assert [nothing.look(held, frozenset(), 1) for _ in STEPS] == [[]] * len(STEPS)
    maps.close()
