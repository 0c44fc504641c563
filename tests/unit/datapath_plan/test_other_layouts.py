"""Maps describe themselves, and what they hold becomes another layout's by the names of fields."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.carried import conversion, conversions
from pyagent.datapath.cstruct import CStruct, Field
from pyagent.datapath.description import own_description, own_text, read_description
from pyagent.datapath.earlier_text import datagram_origins, earlier_text
from pyagent.datapath.layout import BACKEND, Capacities, map_specs
from pyagent.model.failures import LayoutMismatch


def changed(**maps: Any) -> bytes:
    """Our description with other maps: [type, flags, key, value]."""
    found = json.loads(own_text().rstrip(b"\0"))
    found["maps"].update(maps)
    return json.dumps(found).encode()


def test_a_description_is_read_as_it_was_written() -> None:
    ours = [spec._replace(max_entries=0) for spec in map_specs(Capacities())]
    found = read_description(own_text())
    assert list(found.specs()) == ours
    assert {n: s.fields for n, s in found.structs.items()} == {
        n: s.fields for n, s in own_description().structs.items()
    }


@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_nonsense_is_refused_as_such(text: bytes) -> None:
    with pytest.raises(LayoutMismatch):
        read_description(text)


@pytest.mark.parametrize(
    "structs",
    [
        {"origin": [["x; } evil", "Q", "=", ""]]},
        {"origin; struct": []},
        {"origin": [["x", "Z", "=", ""]]},
        {"origin": [["x", "Q"]]},
        {"origin": 7},
    ],
    ids=str,
)
def test_a_description_brings_nothing_but_names_and_sizes(structs: dict[str, Any]) -> None:
    found = json.loads(own_text().rstrip(b"\0"))
    found["structs"].update(structs)
    with pytest.raises(LayoutMismatch):
        read_description(json.dumps(found).encode())


def test_fields_go_by_their_names() -> None:
    old = CStruct("s", Field("a", "I"), Field("b", "16s"), Field("port", "H", ">"), Field("gone", "H"))
    new = CStruct("s", Field("port", "H", ">"), Field("new", "H"), Field("b", "16s"), Field("a", "Q"))
    convert = conversion(old, new)
    assert convert is not None
    assert convert(old.pack(7, b"x" * 16, 8080, 3)) == new.pack(8080, 0, b"x" * 16, 7)


codes = st.sampled_from(["B", "H", "I", "Q", "4s", "16s"])
structs = st.dictionaries(st.sampled_from("abcdef"), codes, min_size=1).map(
    lambda fields: CStruct("s", *(Field(name, code) for name, code in fields.items()))
)


@given(structs, structs, st.data())
def test_there_and_back_keeps_what_both_have(old: CStruct, new: CStruct, data: st.DataObject) -> None:
    there, back = conversion(old, new), conversion(new, old)
    before, after = ({f.name: f.code for f in s.fields} for s in (old, new))
    kinds_differ = any(
        before[n].endswith("s") != after[n].endswith("s") for n in before.keys() & after.keys()
    )
    assert (there is None) == (back is None) == kinds_differ
    if there is None or back is None:
        return
    content = data.draw(st.binary(min_size=old.size, max_size=old.size))
    returned = old.as_dict(back(there(content)))
    for name, value in old.as_dict(content).items():
        if before.get(name) == after.get(name):
            assert returned[name] == value
        if name not in after:
            assert returned[name] in (0, bytes(old.width(Field(name, before[name]))))


def test_a_map_whose_numbers_mean_something_else_is_not_carried_over() -> None:
    assert conversions(own_description()) is not None
    assert conversions(read_description(changed(sets=[2, 1024, "u32: index", "u64: other"]))) is None
    assert conversions(read_description(changed(slots=[1, 0, "u32: index", own_value("slots")]))) is None


def own_value(name: str) -> str:
    value = own_description().maps[name].value
    assert isinstance(value, str)
    return value


def test_records_of_sockets_that_cannot_be_read_are_said_to_be_so() -> None:
    assert earlier_text(own_description()) is not None
    assert earlier_text(read_description(changed(origin=[24, 1, "u32: socket", "u64: cookie"]))) is None
    assert earlier_text(read_description(changed(affinity=[1, 0, "affinity_key", "affinity"]))) is None
    assert datagram_origins(own_description()) == 4


def test_backends_are_the_same_after_a_longer_layout() -> None:
    longer = CStruct("backend", Field("mark", "Q"), *BACKEND.fields)
    there, back = conversion(BACKEND, longer), conversion(longer, BACKEND)
    assert there is not None
    assert back is not None
    content = BACKEND.pack(bytes(range(16)), 8080, 3, 9, 5, 1)
    assert longer.as_dict(there(content))["port"] == 8080
    assert back(there(content)) == content
