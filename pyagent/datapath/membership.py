"""The order of backends inside a set, kept as stable as a change allows."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from pyagent.datapath.layout import split_set_word

LAST_GENERATION = 0xFFFF
"""Generations run from 1 to this; 0 marks a set that has no owner."""


def next_generation(word: int) -> int:
    """What comes after the generation in a set's word."""
    return split_set_word(word)[2] % LAST_GENERATION + 1


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


def exchanged(words: array[int], gone: Iterable[int], came: list[int]) -> array[int]:
    """As `rearranged`, for a few words that go and come; all of `gone` must be there."""
    data = words.tobytes()
    holes = sorted(_place(data, word) for word in gone)
    result = words[:]
    filled = min(len(holes), len(came))
    for hole, word in zip(holes[:filled], came, strict=False):
        result[hole] = word
    result.extend(came[filled:])
    open_holes = set(holes[filled:])
    for hole in holes[filled:]:
        while open_holes and len(result) - 1 in open_holes:
            open_holes.discard(len(result) - 1)
            result.pop()
        if hole < len(result) and hole in open_holes:
            open_holes.discard(hole)
            result[hole] = result.pop()
    return result


def _place(data: bytes, word: int) -> int:
    wanted = array("Q", [word]).tobytes()
    at = data.find(wanted)
    while at % 8 and at > 0:  # half of one word and half of the next
        at = data.find(wanted, at + 1)
    if at < 0:
        raise ValueError(f"no slot has the word {word:#x}")
    return at // 8
