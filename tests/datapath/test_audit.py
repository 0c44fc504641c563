"""What somebody else writes into the maps is found, in small maps at once and in large ones in time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.agent import audit
from pyagent.agent.audit import Audit
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


class Node:
    """Maps as a first plan left them, and what the planner holds of them."""

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(exist_ok=True)
        self.maps = MapSet.create(folder, SIZES)
        self.held = HeldState(SIZES)
        self.desired = Desired()
        for number in range(SERVICES):
            self.add(number)
        self.maps.apply(plan(self.held, self.desired.full(), complete=True).writes)
        self.audit = Audit(self.maps)

    def add(self, number: int) -> None:
        address = f"10.96.0.{number + 1}"
        wanted = service_port(port_key(f"s{number}"), {CLUSTER_SET: [backend(f"10.0.0.{number + 1}")]})
        self.desired.add(wanted, dialled(address))
        network = Network(parse_address(address), 128)
        self.desired.service_addresses[network] = AddressRule.REFUSE_UNDEFINED_PORT

    def change(self, number: int) -> None:
        """One more Service, by a plan of its own."""
        before = self.desired.copy()
        self.add(number)
        self.maps.apply(plan(self.held, self.desired.since(before)).writes)

    def look(self, turn: int) -> list[str]:
        return self.audit.altered(self.held, frozenset(), turn)

    def looks(self) -> list[str]:
        return next((found for _ in range(LOOKS) if (found := self.look(1))), [])

    def some(self, name: str) -> tuple[bytes, bytes]:
        return sorted(self.maps.items(name))[SERVICES // 2]


@pytest.fixture(params=[2048, 8], ids=["in one look", "in portions"])
def node(bpffs: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(audit, "PORTION", request.param)
    monkeypatch.setattr(audit, "LOOKED_UP", request.param)
    monkeypatch.setattr(audit, "WINDOW", request.param * 32)
    made = Node(bpffs / "v1-1")
    yield made
    made.maps.close()


def test_what_was_written_is_right(node: Node) -> None:
    assert [node.look(turn) for turn in range(LOOKS)] == [[]] * LOOKS


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


def test_a_plan_in_the_middle_of_a_walk_alters_nothing(node: Node) -> None:
    """What the agent itself writes meanwhile is right, in what was looked at already and in the rest."""
    for turn in range(20):
        assert node.look(turn) == []
        node.change(SERVICES + turn)
    assert [node.look(20) for _ in range(LOOKS)] == [[]] * LOOKS


def test_maps_without_entries_are_right(bpffs: Path) -> None:
    bpffs.mkdir()
    maps, held = MapSet.create(bpffs / "v1-1", SIZES), HeldState(SIZES)
    maps.apply(plan(held, Desired().full(), complete=True).writes)
    assert Audit(maps).altered(held, frozenset(), 1) == []
    maps.close()
