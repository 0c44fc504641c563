"""The writes a plan consists of. `kernel/` carries them out in order, one at a time, nothing between."""

from __future__ import annotations

from typing import NamedTuple


class Store(NamedTuple):
    """Bytes into an mmapped array. 4 or 8 aligned bytes arrive as one store; longer ones word by word."""

    map: str
    offset: int
    data: bytes


class Put(NamedTuple):
    """One entry of a hash map or trie: added or replaced."""

    map: str
    key: bytes
    value: bytes


class Remove(NamedTuple):
    """One entry of a hash map or trie: gone. Absent already is fine."""

    map: str
    key: bytes


Write = Store | Put | Remove
