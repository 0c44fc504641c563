"""Every input that was kept, and a few mutilations of each: no promise of a target is broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import SEEDS
from tests.fuzz.targets import TARGETS

QUICK = sorted(TARGETS.keys() - {"kubeconfig"})
FILES = sorted(path for path in SEEDS.glob("*/*"))


def test_every_target_has_seeds_and_every_seed_a_target() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_is_found_no_more(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@given(
    st.sampled_from([path for path in FILES if path.parent.name in QUICK]),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(max_size=6), st.booleans()), max_size=5),
)
def test_a_seed_that_was_tampered_with_breaks_no_promise(
    path: Path, changes: list[tuple[int, bytes, bool]]
) -> None:
    data = path.read_bytes()
    for at, piece, instead in changes:
        start = at % (len(data) + 1)
        data = data[:start] + piece + data[start + (len(piece) if instead else 0) :]
    TARGETS[path.parent.name](data)
