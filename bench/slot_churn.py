"""`python -m bench.slot_churn`: whether `slots` fragments over weeks of changes, as a table.

Needs no root. Sets grow, shrink, roll, come and go; each change writes a new block and frees the old one some
changes later, as after a grace period. The map has the four words per backend that the default sizes have.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from bench.tables import Table, rendered
from pyagent.datapath.blocks import BlockAllocator, block_words

WORDS_PER_BACKEND = 4
GRACE = 16
"""Changes that are carried out while a block waits to be used again."""

BACKENDS = 100_000
WEEK = 604_800  # changes: one a second
WEEKS = 4
SIZES = ((1, 3), (0.60, 10), (0.25, 40), (0.10, 300), (0.05, 5000))
"""(share of Services, most backends of those); the first row stands for the rest."""


class Look(NamedTuple):
    """The map at one moment, in words."""

    changes: int
    used: int
    free: int
    largest: int  # that can be had as one block
    highest: int  # the end of the last block in use
    unserved: int  # changes for which there was no room, so far


def churn(backends: int, changes: int, every: int, seed: int = 1) -> Iterator[Look]:
    """Looks at a map while its sets change.

    Args:
        backends: for which the map is made; the sets have up to that many.
        every: changes between two looks.
    """
    dice = random.Random(seed)
    capacity = backends * WORDS_PER_BACKEND
    allocator = BlockAllocator(capacity, [(0, block_words(0))])
    sets: list[tuple[int, int]] = []  # first word, backends
    freed: deque[tuple[int, int]] = deque()
    total = unserved = 0
    for number in range(1, changes + 1):
        at = dice.randrange(len(sets)) if sets and dice.random() < 0.97 else -1
        old = sets[at] if at >= 0 else None
        count = _changed(dice, old[1]) if old is not None else _new(dice)
        gone = old is not None and dice.random() < 0.02
        if not gone and total + count - (old[1] if old else 0) > backends:
            count = min(count, old[1]) if old is not None else 0
        if old is None and not count:
            continue
        first = None if gone else allocator.allocate(block_words(count))
        if first is None and not gone:
            unserved += 1
        else:
            if old is not None:
                freed.append((old[0], block_words(old[1])))
                total -= old[1]
                sets[at] = sets[-1]
                sets.pop()
            if first is not None:
                sets.append((first, count))
                total += count
        while len(freed) > GRACE:
            allocator.release(*freed.popleft())
        if number % every == 0:
            highest = max(first + block_words(count) for first, count in sets)
            used = capacity - allocator.free_words
            yield Look(number, used, allocator.free_words, allocator.largest, highest, unserved)


def _new(dice: random.Random) -> int:
    draw = dice.random()
    for share, most in SIZES[:0:-1]:
        draw -= share
        if draw < 0:
            return dice.randint(1, most)
    return dice.randint(0, SIZES[0][1])


def _changed(dice: random.Random, count: int) -> int:
    """Mostly a pod more or less; now and then scaled to another size, or to none."""
    draw = dice.random()
    if draw < 0.90:
        return max(0, count + dice.choice((-1, 0, 1)))
    if draw < 0.99:
        return min(SIZES[-1][1], max(1, int(count * dice.uniform(0.5, 2.0))))
    return dice.choice((0, _new(dice)))


def main() -> None:
    rows = [
        (
            f"{look.changes / WEEK:.1f} weeks", f"{look.used:,}", f"{look.free:,}", f"{look.largest:,}",
            f"{look.highest:,}", f"{look.unserved:,}",
        )
        for look in churn(BACKENDS, WEEK * WEEKS, WEEK // 2)
    ]  # fmt: skip
    columns = (
        "after",
        "words in use",
        "free",
        "largest free block",
        "end of the last block",
        "found no room",
    )
    notes = (
        f"Sets of up to {BACKENDS:,} backends together, one change a second, {GRACE} of them unreclaimed.",
    )
    print(rendered(Table("`slots` over weeks of changes", columns, rows, notes)))


if __name__ == "__main__":
    main()
