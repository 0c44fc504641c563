"""A backend or service port that gets a used id starts counting at zero."""

from __future__ import annotations

from pyagent.datapath.counter_resets import counter_resets
from pyagent.datapath.held import Freed
from pyagent.datapath.layout import CHOSEN_SHARDS, Capacities

SIZES = Capacities(backends=100)


def test_every_shard_of_a_freed_backend_is_cleared() -> None:
    stores = list(counter_resets([Freed(object(), 1, backends=(7,))], SIZES))
    assert [(s.map, s.offset, s.data) for s in stores] == [
        ("chosen", (shard * 100 + 7) * 8, bytes(8)) for shard in range(CHOSEN_SHARDS)
    ]


def test_refusals_of_a_freed_service_port_are_cleared() -> None:
    (store,) = counter_resets([Freed(object(), 1, service_ports=(3,))], SIZES)
    assert (store.map, store.offset, store.data) == ("refused", 24, bytes(8))


def test_sets_and_blocks_have_no_counters() -> None:
    assert list(counter_resets([Freed(object(), 1, sets=(1, 2), blocks=((0, 4),))], SIZES)) == []
