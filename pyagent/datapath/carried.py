"""Keys and values of one layout as those of another: fields go by their names."""

from __future__ import annotations

from collections.abc import Callable

from pyagent.datapath.cstruct import CStruct
from pyagent.datapath.description import Content, Description, own_description

Convert = Callable[[bytes], bytes]

LEFT = frozenset({"origin", "origin_udp", "events", "meta", "layout"})
"""Sockets keep their records themselves; the others say nothing that another layout's programs want."""


def same(data: bytes) -> bytes:
    return data


def conversion(old: Content, new: Content) -> Convert | None:
    """How a key or value of one layout becomes another's; None: it cannot, its meaning is another.

    A field that only the new layout has is zero.
    """
    if isinstance(old, str) or isinstance(new, str):
        return same if old == new else None
    if old.fields == new.fields:
        return same
    return _struct_conversion(old, new)


def _struct_conversion(old: CStruct, new: CStruct) -> Convert | None:
    places = {field.name: at for at, field in enumerate(old.fields)}
    steps: list[Callable[[tuple[int | bytes, ...]], int | bytes]] = []
    for field in new.fields:
        is_number = not field.code.endswith("s")
        at = places.get(field.name)
        if at is None:
            steps.append(_always(0 if is_number else b""))
        elif is_number != (not old.fields[at].code.endswith("s")) or field.of:
            return None  # arrays of structs are in sockets' records only
        elif is_number:
            steps.append(_number(at, (1 << 8 * new.width(field)) - 1))
        else:
            steps.append(_text(at, new.width(field)))

    def convert(data: bytes) -> bytes:
        values = old.unpack(data)
        return new.pack(*(step(values) for step in steps))

    return convert


def _always(value: int | bytes) -> Callable[[tuple[int | bytes, ...]], int | bytes]:
    return lambda _values: value


def _number(at: int, most: int) -> Callable[[tuple[int | bytes, ...]], int | bytes]:
    return lambda values: int(values[at]) & most


def _text(at: int, size: int) -> Callable[[tuple[int | bytes, ...]], int | bytes]:
    return lambda values: bytes(values[at])[:size]


def conversions(old: Description) -> dict[str, tuple[Convert, Convert]] | None:
    """Of each map that both have: how keys and values are carried over. None: what the maps say cannot be.

    All or nothing, for ids in one map are places in another.
    """
    found: dict[str, tuple[Convert, Convert]] = {}
    for name, wanted in own_description().maps.items():
        had = old.maps.get(name)
        if name in LEFT or had is None:
            continue
        key = conversion(had.key, wanted.key)
        value = conversion(had.value, wanted.value)
        if had.type != wanted.type or key is None or value is None:
            return None
        found[name] = key, value
    return found
