"""Room in the `slots` array: who gets which words.

A buddy allocator with three properties that make fragmentation a non-issue here, and that best-fit or
a bump allocator with compaction would not give together:

* Sizes are powers of two and blocks are aligned to their size, so a freed block is exactly what the next
  change of a set of about that size needs. A set that grows and shrinks by a few stays in its class.
* Blocks are short-lived by design: each change of a set writes a new block and frees the old one. With
  the lowest suitable address always taken first, churn itself moves blocks downward, as a compactor
  would; the top of the array stays one large free piece. A block that pins a high place is moved by the
  next change of its set.
* Free neighbours merge at once, in O(log capacity), with no bookkeeping inside the array.

The price is inner waste: below half of a block, a quarter on average. `slots` has four words per backend
of the `backends` map for that, for sets that share backends, and for the old and the new block of a
set existing side by side until the grace period is over.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from pyagent.datapath.layout import BLOCK_HEADER_WORDS


def block_words(backends: int) -> int:
    """Words that a block of so many backends occupies: header and slots, rounded up to a power of two."""
    return 1 << (BLOCK_HEADER_WORDS + backends - 1).bit_length()


class BlockAllocator:
    """Free pieces of an array of `capacity` words. `used` are (first word, words), without overlap."""

    def __init__(self, capacity: int, used: Iterable[tuple[int, int]] = ()) -> None:
        self.capacity = capacity
        self.free_words = 0
        orders = max(1, capacity.bit_length())
        self._free: list[set[int]] = [set() for _ in range(orders)]
        self._lowest: list[list[int]] = [[] for _ in range(orders)]  # heaps; may hold pieces long gone
        end = 0
        for first, words in sorted(used):
            self.release(end, first - end)
            end = first + words
        self.release(end, capacity - end)

    def allocate(self, words: int) -> int | None:
        """First word of a free piece of `words` words, a power of two; None if there is none."""
        order = words.bit_length() - 1
        for found in range(order, len(self._free)):
            if self._free[found]:
                break
        else:
            return None
        first = self._take_lowest(found)
        while found > order:
            found -= 1
            self._add(first + (1 << found), found)
        self.free_words -= words
        return first

    def release(self, first: int, words: int) -> None:
        """Give back any range of words that is not free, whether or not it was allocated as one."""
        self.free_words += words
        end = first + words
        while first < end:
            order = (first & -first).bit_length() - 1 if first else (end - first).bit_length() - 1
            while first + (1 << order) > end:
                order -= 1
            self._merge(first, order)
            first += 1 << order

    @property
    def largest(self) -> int:
        """Words of the largest piece that can be allocated now."""
        return next((1 << order for order in reversed(range(len(self._free))) if self._free[order]), 0)

    def _merge(self, first: int, order: int) -> None:
        while order + 1 < len(self._free):
            buddy = first ^ 1 << order
            if buddy not in self._free[order]:
                break
            self._free[order].remove(buddy)
            first &= ~(1 << order)
            order += 1
        self._add(first, order)

    def _add(self, first: int, order: int) -> None:
        free, heap = self._free[order], self._lowest[order]
        free.add(first)
        heapq.heappush(heap, first)
        if len(heap) > 2 * len(free) + 64:
            self._lowest[order] = sorted(free)

    def _take_lowest(self, order: int) -> int:
        free, heap = self._free[order], self._lowest[order]
        while True:
            first = heapq.heappop(heap)
            if first in free:
                free.remove(first)
                return first
