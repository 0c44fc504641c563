"""Which columns a screen has room for, and how wide each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyagent.view.tables import Row

GAP = 2
LEAST = 6
"""A column that is cut keeps this many characters at least."""


class Placed(NamedTuple):
    """A column on the screen: which of the table's it is, and its width in characters."""

    position: int
    width: int


def placed(widths: Sequence[int], importance: Sequence[int], room: int, cut: Sequence[bool]) -> list[Placed]:
    """The columns that fit, in their order.

    The least important ones are left out until the rest fits; before that, columns that may be cut give
    way, the widest first, as long as they keep half of what they want.

    Args:
        widths: what each column wants.
        importance: 0 is never left out.
        room: characters in a line.
        cut: whether the column's text may be cut short.
    """
    shown = list(range(len(widths)))
    while True:
        given = {index: widths[index] for index in shown}
        excess = sum(given.values()) + GAP * (len(shown) - 1) - room
        last = len(shown) == 1 or all(importance[index] == 0 for index in shown)
        _shrink(given, [index for index in shown if cut[index]], excess, 1.0 if last else 0.5)
        if last or sum(given.values()) + GAP * (len(shown) - 1) <= room:
            return [Placed(index, given[index]) for index in shown]
        shown.remove(max(reversed(shown), key=lambda index: importance[index]))


def _shrink(given: dict[int, int], may: list[int], excess: int, part: float) -> None:
    """Take `excess` characters from the columns that may be cut, at most `part` of each."""
    floors = {index: min(given[index], max(LEAST, int(given[index] * (1 - part)))) for index in may}
    while excess > 0:
        widest = max((i for i in may if given[i] > floors[i]), key=lambda i: given[i], default=None)
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
