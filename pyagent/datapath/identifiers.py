"""Ids of service ports, sets, backends and nodes: handed out, set aside, used again after a grace period."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

LAST_INCARNATION = 0xFFFFFFFF


def next_incarnation(incarnation: int) -> int:
    """The incarnation after this one: 32 bits, never 0, which no owner has."""
    return incarnation + 1 if incarnation < LAST_INCARNATION else 1


class Identifiers:
    """Ids from 1 to `capacity - 1`; 0 is reserved everywhere.

    Ids that were given back are used again oldest first, so that as much time as possible passes before
    an id gets another owner, and new ids are opened only when none waits: the arrays stay short.
    """

    def __init__(self, capacity: int, used: Collection[int] = (), opened: int = 1) -> None:
        """`used` are the ids with an owner; below `opened` every other id counts as given back."""
        self.capacity = capacity
        self._opened = max(opened, max(used, default=0) + 1, 1)
        taken = used if isinstance(used, set | frozenset | dict) else set(used)
        self._free = deque(i for i in range(1, self._opened) if i not in taken)

    @property
    def available(self) -> int:
        return len(self._free) + max(0, self.capacity - self._opened)

    def take(self, count: int) -> list[int] | None:
        """`count` ids, or None (and nothing taken) if there are fewer."""
        free = self._free
        if not free:
            first = self._opened
            if first + count > self.capacity:
                return [] if not count else None
            self._opened += count
            return list(range(first, first + count))
        if count > self.available:
            return None
        taken = [free.popleft() for _ in range(min(count, len(free)))]
        opened = count - len(taken)
        if opened:
            taken.extend(range(self._opened, self._opened + opened))
            self._opened += opened
        return taken

    def put_back(self, identifiers: list[int]) -> None:
        """Undo of `take`: these were never used, they come first again."""
        self._free.extendleft(reversed(identifiers))

    def release(self, identifiers: Iterable[int]) -> None:
        """The owners are gone and so is every program that could still know them."""
        self._free.extend(identifiers)
