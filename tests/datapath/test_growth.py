"""Maps that get full are exchanged for larger ones while clients go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyagent.datapath.layout import Capacities, map_specs
from pyagent.datapath.writes import Put, Store
from pyagent.kernel.map_copy import copy_contents
from pyagent.kernel.map_set import MapSet

pytestmark = pytest.mark.kernel

SMALL = Capacities(frontends=64, sets=64, slots=512, backends=64, service_ports=64, event_bytes=4096)
LARGE = SMALL._replace(frontends=128, sets=128, slots=1024, backends=128)


def test_a_larger_set_holds_the_same_at_the_same_places(bpffs: Path) -> None:
    bpffs.mkdir(exist_ok=True)
    old = MapSet.create(bpffs / "v1-1", SMALL)
    word = (7 << 32).to_bytes(8, "little")
    old.apply(
        [
            Put("frontends", bytes(20), word),
            Store("sets", 8, word),
            Store("slots", 8 * 511, word),
            Store("backends", 32 * 63, bytes(range(32))),
            Store("chosen", 8 * 63, word),  # first shard, last backend
            Store("chosen", 8 * 64, word),  # second shard, first backend
        ]
    )
    new = MapSet.create(bpffs / "v1-2", LARGE, like=old)
    copy_contents(old, new)
    assert new.items("frontends") == [(bytes(20), word)]
    assert new.memory("sets")[8:16] == word
    assert new.memory("slots")[8 * 511 : 8 * 512] == word
    assert new.memory("backends")[32 * 63 : 32 * 64] == bytes(range(32))
    assert new.memory("chosen")[8 * 63 : 8 * 64] == word
    assert new.memory("chosen")[8 * 128 : 8 * 129] == word
    old.close()
    new.close()


def test_maps_that_keep_their_size_are_shared(bpffs: Path) -> None:
    bpffs.mkdir(exist_ok=True)
    old = MapSet.create(bpffs / "v1-1", SMALL)
    new = MapSet.create(bpffs / "v1-2", LARGE, like=old)
    grown = {a.name for a, b in zip(map_specs(SMALL), map_specs(LARGE), strict=True) if a != b}
    old.apply([Store("refused", 0, (5).to_bytes(8, "little"))])
    assert "refused" not in grown
    assert new.memory("refused")[:8] == (5).to_bytes(8, "little")
    old.close()
    new.close()
