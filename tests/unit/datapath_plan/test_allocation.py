"""Ids, blocks, the order inside a set."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.blocks import BlockAllocator, block_words
from pyagent.datapath.identifiers import LAST_INCARNATION, Identifiers, next_incarnation
from pyagent.datapath.membership import rearranged


def test_ids_start_at_one_and_end_below_the_capacity() -> None:
    ids = Identifiers(4)
    assert ids.take(3) == [1, 2, 3]
    assert ids.take(1) is None


def test_nothing_is_taken_when_there_is_not_enough() -> None:
    ids = Identifiers(4)
    assert ids.take(4) is None
    assert ids.available == 3


def test_released_ids_are_used_again_oldest_first() -> None:
    ids = Identifiers(10)
    ids.take(5)
    ids.release([4, 2])
    ids.release([1])
    assert ids.take(4) == [4, 2, 1, 6]


def test_ids_put_back_come_first_again() -> None:
    ids = Identifiers(10, used=[2], opened=5)
    taken = ids.take(2)
    assert taken == [1, 3]
    ids.put_back(taken)
    assert ids.take(3) == [1, 3, 4]


def test_incarnations_skip_zero_when_they_wrap() -> None:
    assert next_incarnation(LAST_INCARNATION) == 1
    assert next_incarnation(0) == 1


@pytest.mark.parametrize(("backends", "words"), [(0, 4), (1, 4), (2, 8), (5, 8), (6, 16), (13, 16), (14, 32)])
def test_a_block_is_a_power_of_two_with_its_header(backends: int, words: int) -> None:
    assert block_words(backends) == words


@given(
    st.integers(8, 600),
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=80),
)
def test_blocks_never_overlap_and_all_room_comes_back(capacity: int, steps: list[tuple[bool, int]]) -> None:
    blocks = BlockAllocator(capacity, [(0, 4)])
    taken: list[tuple[int, int]] = []
    for take, number in steps:
        if take:
            words = block_words(number)
            first = blocks.allocate(words)
            if first is not None:
                assert first % words == 0
                assert first >= 4
                assert first + words <= capacity
                assert all(first + words <= f or f + w <= first for f, w in taken)
                taken.append((first, words))
        elif taken:
            blocks.release(*taken.pop(number % len(taken)))
        assert blocks.free_words == capacity - 4 - sum(w for _, w in taken)
    for block in taken:
        blocks.release(*block)
    fresh = BlockAllocator(capacity, [(0, 4)])
    assert (blocks.free_words, blocks.largest) == (fresh.free_words, fresh.largest)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), max_size=10))
def test_any_ranges_can_be_in_use_at_the_start(ranges: list[tuple[int, int]]) -> None:
    used: list[tuple[int, int]] = []
    for first, words in sorted(ranges):
        if not used or first >= sum(used[-1]):
            used.append((first, words))
    blocks = BlockAllocator(256, used)
    free = {i for i in range(256) if not any(f <= i < f + w for f, w in used)}
    assert blocks.free_words == len(free)
    while (word := blocks.allocate(1)) is not None:
        free.remove(word)
    assert not free


def test_weeks_of_churn_do_not_fragment_the_array() -> None:
    """60,000 changes of 3,000 sets, old blocks freed late: the top of the array stays in one piece."""
    draw = random.Random(7)
    capacity = 1 << 18
    blocks = BlockAllocator(capacity, [(0, 4)])

    def size() -> int:
        return min(int(draw.paretovariate(1.1)), 3000)

    live: list[tuple[int, int]] = []
    for _ in range(3000):
        words = block_words(size())
        first = blocks.allocate(words)
        assert first is not None
        live.append((first, words))
    late: list[tuple[int, int, int]] = []
    highest = []
    for step in range(60_000):
        while late and late[0][0] <= step:
            blocks.release(*heapq.heappop(late)[1:])
        chosen = draw.randrange(len(live))
        words = live[chosen][1] if draw.random() < 0.8 else block_words(size())
        first = blocks.allocate(words)
        assert first is not None, "room for any set as long as the array is not nearly full"
        heapq.heappush(late, (step + draw.randrange(1, 50), *live[chosen]))
        live[chosen] = (first, words)
        if step % 1000 == 0:
            in_use = sum(w for _, w in live) + sum(w for *_, w in late)
            highest.append(max(f + w for f, w in live) / in_use)
    assert blocks.largest >= capacity // 4
    assert sum(highest[-10:]) / 10 < 2.5, "what is used lies together at the bottom"


ids = st.lists(st.integers(1, 30), unique=True, max_size=20)


@given(ids, ids)
def test_a_rearranged_set_has_its_members_and_moves_as_few_as_possible(
    held: list[int], wanted: list[int]
) -> None:
    result = rearranged(held, wanted)
    assert sorted(result) == sorted(wanted)
    staying = set(held) & set(wanted)
    moved = [i for slot, i in enumerate(held) if i in staying and (slot >= len(result) or result[slot] != i)]
    assert len(moved) <= max(0, len(set(held) - staying) - len(set(wanted) - staying))


@pytest.mark.parametrize(
    ("held", "wanted", "result"),
    [
        ([1, 2, 3], [3, 2, 1], [1, 2, 3]),
        ([1, 2, 3], [1, 3], [1, 3]),
        ([1, 2, 3, 4], [4, 3, 2], [4, 2, 3]),
        ([1, 2, 3], [9, 1, 3], [1, 9, 3]),
        ([1, 2], [1, 2, 7, 8], [1, 2, 7, 8]),
        ([1, 2, 3], [], []),
        ([], [5, 4], [5, 4]),
    ],
)
def test_holes_are_filled_by_new_backends_first_and_then_from_the_end(
    held: list[int], wanted: list[int], result: list[int]
) -> None:
    assert rearranged(held, wanted) == result
