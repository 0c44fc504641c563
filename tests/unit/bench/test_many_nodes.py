"""The model of many nodes: everybody comes back, spread out, and never before the servers do."""

from __future__ import annotations

import pytest

from bench.many_nodes import LINK, bytes_of_slice, come_back


@pytest.mark.parametrize("down", [1.0, 30.0])
def test_resumed_watches_come_back_spread_out(down: float) -> None:
    with_jitter, in_step = (come_back(2000, down, 0, 3, jitter) for jitter in (True, False))
    assert 0 <= with_jitter.half <= with_jitter.last <= 30.0
    assert with_jitter.peak_up < in_step.peak_up == 2000


def test_lists_take_as_long_as_the_links_need() -> None:
    wanted = 50_000_000
    found = come_back(500, 10.0, wanted, 1)
    assert found.last >= 500 * wanted / LINK
    assert found.last <= 500 * wanted / LINK + 60


def test_a_wait_that_is_too_long_is_refused_and_tried_again() -> None:
    assert come_back(500, 10.0, 1_000_000, 1).refused == 0
    assert come_back(500, 10.0, 200_000_000, 1).refused > 0


def test_a_slice_grows_with_its_endpoints() -> None:
    sizes = [bytes_of_slice(count) for count in (1, 10, 100)]
    assert sizes[2] - sizes[1] == pytest.approx(10 * (sizes[1] - sizes[0]), rel=0.05)
