"""Which columns a screen has room for, and how wide each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pyagent.view.tables import Row

GAP = 2
LEAST = 6
"""A column that is cut keeps this many characters at least."""

EXTRA = 6
"""Columns of this importance and above are left out before an important one is cut."""


class Placed(NamedTuple):
    """A column on the screen: which of the table's it is, and its width in characters."""

    position: int
    width: int


def placed(
    widths: Sequence[int],
    importance: Sequence[int],
    room: int,
    cut: Sequence[bool],
    least: Sequence[int] = (),
) -> list[Placed]:
    """The columns that fit, in their order.

    The least important ones are left out until the rest fits; before that, columns that may be cut give
    way, the widest first, as long as they keep most of what they want.

    Args:
        widths: what each column wants.
        importance: 0 is never left out.
        room: characters in a line.
        cut: whether the column's text may be cut short.
        least: to how few characters a column may be cut before others are left out; 0: see above.
    """
    spared = {index: few for index, few in enumerate(least) if few}
    shown = list(range(len(widths)))
    while True:
        given = {index: widths[index] for index in shown}
        excess = sum(given.values()) + GAP * (len(shown) - 1) - room
        last = len(shown) == 1 or all(importance[index] == 0 for index in shown)
        extras = any(importance[index] >= EXTRA for index in shown)
        parts = {i: 1.0 if last else _part(importance[i], extras) for i in shown if cut[i]}
        floors = {i: max(LEAST, int(given[i] * (1 - part))) for i, part in parts.items()}
        floors |= {i: few for i, few in spared.items() if i in floors and not last}
        _shrink(given, floors, excess)
        if last or sum(given.values()) + GAP * (len(shown) - 1) <= room:
            return [Placed(index, given[index]) for index in shown]
        shown.remove(max(reversed(shown), key=lambda index: importance[index]))


def _part(importance: int, extras: bool) -> float:
    """The part of a column that may be cut before others are left out."""
    if importance > 2:
        return 0.4
    return 0.0 if extras else 0.2


def _shrink(given: dict[int, int], floors: Mapping[int, int], excess: int) -> None:
    """Take `excess` characters from the columns that may be cut, none below its floor."""
    while excess > 0:
        widest = max((i for i in floors if given[i] > floors[i]), key=lambda i: given[i], default=None)
        if widest is None:
            return
        given[widest] -= 1
        excess -= 1


def is_numeric(rows: Sequence[Row], field: str) -> bool:
    """Whether the column's values are numbers, which stand on the right."""
    for row in rows:
        value = row.get(field)
        if value is not None:
            return isinstance(value, int | float) and not isinstance(value, bool)
    return False
