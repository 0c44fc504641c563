"""Arrays are mapped as far as they are used; what was written there, readers of the whole array see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.datapath.layout import Capacities
from pyagent.datapath.writes import Store
from pyagent.kernel.map_readings import used
from pyagent.kernel.map_set import WINDOW_STEP, MapSet

pytestmark = pytest.mark.kernel


@pytest.fixture
def maps(bpffs: Path) -> Iterator[MapSet]:
    bpffs.mkdir()
    made = MapSet.create(bpffs / "v1-1", Capacities())
    yield made
    made.close()


def mapped(maps: MapSet) -> int:
    """Bytes of maps in this process's address space."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ends = [line.split()[0].split("-") for line in lines if "bpf-map" in line]
    return sum(int(end, 16) - int(start, 16) for start, end in ends)


def test_a_write_maps_what_it_needs(maps: MapSet) -> None:
    before = mapped(maps)
    maps.apply([Store("slots", 0, bytes(range(8)))])
    assert mapped(maps) - before == WINDOW_STEP
    far = 3 * WINDOW_STEP + 16
    maps.apply([Store("slots", far, b"abcdefgh"), Store("slots", far - WINDOW_STEP, b"12345678")])
    assert mapped(maps) - before == 4 * WINDOW_STEP
    whole = used(maps, "slots")
    assert mapped(maps) - before == 4 * WINDOW_STEP
    assert len(whole) == far + 8
    assert (whole[:8], whole[far - WINDOW_STEP :][:8], whole[far:]) == (
        bytes(range(8)),
        b"12345678",
        b"abcdefgh",
    )


def test_the_last_element(maps: MapSet) -> None:
    end = Capacities().sets * 8
    maps.apply([Store("sets", end - 8, b"abcdefgh")])
    assert used(maps, "sets")[-8:] == b"abcdefgh"


def test_counters_are_written_without_a_mapping(maps: MapSet) -> None:
    before = mapped(maps)
    maps.apply([Store("chosen", 8 * 77, b"abcdefgh"), Store("refused", 8 * 5, b"12345678")])
    assert mapped(maps) == before
    assert maps.get("chosen", (77).to_bytes(4, "little")) == b"abcdefgh"
    assert maps.get("refused", (5).to_bytes(4, "little")) == b"12345678"
