"""The order of backends inside a set, kept as stable as a change allows."""

from __future__ import annotations


def rearranged(held: list[int], wanted: list[int]) -> list[int]:
    """The ids of `wanted` in the order that keeps most of them where `held` has them.

    An affinity entry remembers the slot of its backend and finds it there at once as long as it did not
    move. So the slots of backends that left are filled with new ones first, then with the last ones; what is
    left of the new ones is appended. No id may occur twice in either list, nor be 0.
    """
    staying = set(wanted)
    known = set(held)
    added = [backend for backend in wanted if backend not in known]
    if len(staying) - len(added) == len(held):
        return held + added
    slots = [backend if backend in staying else 0 for backend in held]
    newcomers = iter(added)
    for slot, backend in enumerate(slots):
        if not backend:
            slots[slot] = next(newcomers, 0)
    slots.extend(newcomers)
    _drop_trailing_holes(slots)
    slot = 0
    while slot < len(slots):
        if not slots[slot]:
            slots[slot] = slots.pop()
            _drop_trailing_holes(slots)
        slot += 1
    return slots


def _drop_trailing_holes(slots: list[int]) -> None:
    while slots and not slots[-1]:
        slots.pop()
