"""Maps grow when they are nearly full, and only then."""

from __future__ import annotations

from pyagent.agent.growth import MOST, larger_capacities
from pyagent.datapath.layout import Capacities

SMALL = Capacities(frontends=100, sets=100, slots=1000, backends=100, service_ports=100)


def test_maps_with_room_stay_as_they_are() -> None:
    assert larger_capacities(SMALL, {"frontends": (80, 100)}, {}) is None


def test_a_map_that_is_more_than_four_fifths_full_doubles_alone() -> None:
    assert larger_capacities(SMALL, {"frontends": (81, 100)}, {}) == SMALL._replace(frontends=200)


def test_a_map_where_something_found_no_room_doubles_however_full_it_is() -> None:
    assert larger_capacities(SMALL, {}, {"slots": 1}) == SMALL._replace(slots=2000)


def test_a_map_grows_by_what_is_missing_at_once() -> None:
    grown = larger_capacities(SMALL, {"frontends": (100, 100)}, {"frontends": 900, "names": 3})
    assert grown == SMALL._replace(frontends=1600, service_ports=200)


def test_names_and_refusals_grow_with_the_service_ports() -> None:
    assert larger_capacities(SMALL, {}, {"names": 1}) == SMALL._replace(service_ports=200)


def test_the_map_of_flows_grows_with_the_connections_from_outside() -> None:
    """Earlier than others: it fills by itself, and then quiet connections are given up."""
    assert larger_capacities(SMALL, {"flows": (16_384, 32_768)}, {}) is None
    assert larger_capacities(SMALL, {"flows": (16_385, 32_768)}, {}) == SMALL._replace(flows=65_536)


def test_there_is_an_end() -> None:
    huge = SMALL._replace(backends=MOST)
    assert larger_capacities(huge, {"backends": (MOST, MOST)}, {}) is None


def test_maps_that_cannot_grow_are_left_alone() -> None:
    assert larger_capacities(SMALL, {"affinity": (100, 100)}, {"affinity": 1}) is None


def test_maps_that_were_made_larger_than_we_would_make_them_never_shrink() -> None:
    """Else what they hold would not fit: connections would be lost, or the agent end."""
    huge = SMALL._replace(flows=8_000_000, backends=2 * MOST)
    usage = {"flows": (5_000_000, 8_000_000), "backends": (2 * MOST, 2 * MOST)}
    assert larger_capacities(huge, usage, {"backends": 7}) is None
