"""What a set gained and lost, found in much less time than it takes to look at each backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyagent.model.service import Backend


class Difference(NamedTuple):
    """Backends that only one of two sequences has; one that was altered is in both."""

    gone: list[Backend]
    came: list[Backend]


def difference(old: Sequence[Backend], new: Sequence[Backend]) -> Difference:
    """Right for any two sequences; fast where both are in the order of addresses and share most objects.

    Rows that are equal are compared as slices, which for the same objects is one comparison of pointers each.
    """
    found = Difference([], [])
    i = j = 0
    while i < len(old) and j < len(new):
        equal = _equal_row(old, i, new, j)
        i, j = i + equal, j + equal
        if i == len(old) or j == len(new):
            break
        before, after = old[i], new[j]
        identities = (before.address, before.port), (after.address, after.port)
        if identities[0] <= identities[1]:
            found.gone.append(before)
            i += 1
        if identities[0] >= identities[1]:
            found.came.append(after)
            j += 1
    found.gone.extend(old[i:])
    found.came.extend(new[j:])
    return found


def _equal_row(old: Sequence[Backend], i: int, new: Sequence[Backend], j: int) -> int:
    """How many are equal from these places on: in steps that double, then halve."""
    most = min(len(old) - i, len(new) - j)
    found, step, growing = 0, 1, True
    while step and found < most:
        end = min(found + step, most)
        equal = old[i + found : i + end] == new[j + found : j + end]
        if equal:
            found = end
        growing = growing and equal
        step = step * 2 if growing else step // 2
    return found
