"""Where the backends of large sets are, kept for those that changed last."""

from __future__ import annotations

from collections import OrderedDict


class MemberIndexes:
    """Slot words by identity, by set: to make one takes a look at each backend."""

    def __init__(self, most: int = 40_000) -> None:
        """Args: most: entries of all together, some 200 bytes each."""
        self._most = most
        self._entries = 0
        self._kept: OrderedDict[int, dict[bytes, int]] = OrderedDict()

    def take(self, set_id: int) -> dict[bytes, int] | None:
        found = self._kept.pop(set_id, None)
        self._entries -= len(found) if found is not None else 0
        return found

    def keep(self, set_id: int, index: dict[bytes, int]) -> None:
        self.take(set_id)
        self._kept[set_id] = index
        self._entries += len(index)
        while self._entries > self._most and len(self._kept) > 1:
            self.take(next(iter(self._kept)))
