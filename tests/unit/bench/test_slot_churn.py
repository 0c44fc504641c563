"""The rule for the size of `slots` holds: no change of a set lacks room, and a large block can be had."""

from __future__ import annotations

import pytest

from bench.slot_churn import churn
from pyagent.datapath.blocks import block_words


@pytest.mark.parametrize("seed", range(3))
def test_slots_do_not_fragment(seed: int) -> None:
    looks = list(churn(backends=60_000, changes=40_000, every=2000, seed=seed))
    assert len(looks) == 20
    assert all(look.unserved == 0 for look in looks)
    assert all(look.largest >= block_words(5000) for look in looks)
