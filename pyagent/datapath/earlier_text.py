"""C that reads the sockets' records of another layout; `bpf/lib/earlier.h` uses it."""

from __future__ import annotations

from collections.abc import Iterator

from pyagent.datapath.cstruct import CStruct
from pyagent.datapath.description import Content, Description, own_description

CROSSED = ("origin", "origin_udp", "origin_overflow", "affinity")
"""Maps that hooks write, and that hooks must find something in."""

_KEYS = {"origin_overflow": "overflow_key", "affinity": "affinity_key"}
_ELEMENT = "datagram_origin"
_NUMBERS = {"B": "__u8", "H": "__u16", "I": "__u32", "Q": "__u64"}


def earlier_text(old: Description) -> str | None:
    """Structs `earlier_X` of another layout, and functions from them to our `X` and, for keys, back.

    One line, for a definition. None: its records are not to be understood.
    """
    ours = own_description()
    pairs: list[tuple[CStruct, CStruct]] = []
    for name in CROSSED:
        had, wanted = old.maps.get(name), ours.maps[name]
        if had is None or had.type != wanted.type:
            return None
        contents: tuple[tuple[Content, Content], ...] = ((had.value, wanted.value),)
        if name in _KEYS:
            contents += ((had.key, wanted.key),)
        for old_one, our_one in contents:
            if not isinstance(old_one, CStruct) or not isinstance(our_one, CStruct):
                return None
            for pair in (*_elements(old_one, our_one, old, ours), (old_one, our_one)):
                if not _understood(*pair):
                    return None
                pairs.append(pair)
    return " ".join(_text(pairs))


def _elements(
    old_one: CStruct, our_one: CStruct, old: Description, ours: Description
) -> Iterator[tuple[CStruct, CStruct]]:
    olds = {field.name: field.of for field in old_one.fields}
    for field in our_one.fields:
        if field.of and olds.get(field.name):
            yield old.structs[olds[field.name]], ours.structs[field.of]


def _understood(old: CStruct, our: CStruct) -> bool:
    """What both have is of the same kind, in the same order of bytes."""
    had = {field.name: field for field in old.fields}
    return all(
        (field.code in _NUMBERS) == (had[field.name].code in _NUMBERS)
        and field.order == had[field.name].order
        and bool(field.of) == bool(had[field.name].of)
        for field in our.fields
        if field.name in had
    )


def _text(pairs: list[tuple[CStruct, CStruct]]) -> Iterator[str]:
    yield from (_declaration(old, our.c_name) for old, our in pairs)
    for old, our in pairs:
        yield _conversion(old, our, f"earlier_{our.c_name}", our.c_name)
        if our.c_name in _KEYS.values():
            yield _conversion(our, old, our.c_name, f"earlier_{our.c_name}")


def _declaration(old: CStruct, name: str) -> str:
    members = []
    for field in old.fields:
        width = old.width(field)
        if field.code in _NUMBERS:
            members.append(f"{_NUMBERS[field.code]} {field.name};")
        elif field.of:
            members.append(f"struct earlier_{_ELEMENT} {field.name}[EARLIER_DATAGRAM_ORIGINS];")
        elif width == 16:
            members.append(f"struct address {field.name};")
        else:
            members.append(f"__u8 {field.name}[{width}];")
    return (
        f"struct earlier_{name} {{ {' '.join(members)} }};"
        f' _Static_assert(sizeof(struct earlier_{name}) == {old.size}, "earlier {name}");'
    )


def _conversion(source: CStruct, target: CStruct, source_name: str, target_name: str) -> str:
    had = {field.name: field for field in source.fields}
    steps = []
    for field in target.fields:
        name = field.name
        if name not in had:
            steps.append(f"__builtin_memset(&to->{name}, 0, sizeof(to->{name}));")
        elif field.of:
            element = f"{_ELEMENT}_of_earlier_{_ELEMENT}"
            steps.append(
                "for (int i = 0; i < DATAGRAM_ORIGINS && i < EARLIER_DATAGRAM_ORIGINS; i++)"
                f" {element}(&to->{name}[i], &from->{name}[i]);"
            )
        elif field.code in _NUMBERS or target.width(field) == source.width(had[name]) == 16:
            steps.append(f"to->{name} = from->{name};")
        else:
            least = min(target.width(field), source.width(had[name]))
            steps.append(f"__builtin_memcpy(to->{name}, from->{name}, {least});")
    return (
        f"static __always_inline void {target_name}_of_{source_name}"
        f"(struct {target_name} *to, const struct {source_name} *from) {{ {' '.join(steps)} }}"
    )


def datagram_origins(old: Description) -> int:
    """How many places a record of an unconnected socket has there."""
    record, element = old.structs["datagram_origins"], old.structs[_ELEMENT]
    return next(record.width(field) for field in record.fields if field.of) // element.size
