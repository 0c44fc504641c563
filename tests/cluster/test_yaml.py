"""YAML as people write it, and as attackers do."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pyagent.cluster.manifest_file import read_manifest
from pyagent.cluster.yaml_documents import BadYaml, read_documents

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20).filter(
        # PyYAML leaves some numbers of YAML 1.2 without quotes, such as 0E0: it writes 1.1.
        lambda text: text[:1] not in {*"0123456789+-."}
    ),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc-./", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.lists(plain.filter(lambda v: v is not None), min_size=1, max_size=3))
def test_what_is_dumped_is_read_back(documents: list[object]) -> None:
    text = yaml.safe_dump_all(documents, allow_unicode=True).encode()
    assert [document.value for document in read_documents(text)] == documents


@given(st.binary(max_size=200) | st.text("{}[]*&<>:- \n\"'!|a1,?#%@", max_size=200).map(str.encode))
def test_no_text_does_anything_but_be_read_or_refused(data: bytes) -> None:
    content = read_manifest("any.yaml", data)
    assert content.objects == {}


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(12, 12), "aliases expand to more than"),
        ("a: &a {x: 1}\nb: {<<: [*a, *a]}", "merge keys"),
        ("a: &a [*a]", "stands for nothing, or for itself"),
        ("[" * 200_000, "nested deeper than"),
        ("- " * 200_000 + "x", "nested deeper than"),
        ("{" * 100_000, "nested deeper than"),
        ("a: 1\na: 2", "appears twice"),
        ("? [a]\n: b", "a key is not text"),
        ("a: \x00", ""),
        ("a: !!python/object/apply:os.system [x]\nb: *c", "stands for nothing"),
    ],
)
def test_hostile_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadYaml) as caught:
        list(read_documents(text.encode()))
    assert reason in caught.value.reason


def test_dates_and_words_that_yaml_1_1_takes_for_values_stay_text() -> None:
    (document,) = read_documents(b"{a: 2024-01-01T00:00:00Z, b: yes, c: 1:30, d: 'true', e: true, f: 0x1f}")
    assert document.value == {
        "a": "2024-01-01T00:00:00Z",
        "b": "yes",
        "c": "1:30",
        "d": "true",
        "e": True,
        "f": "0x1f",
    }


def test_documents_tell_where_they_begin() -> None:
    assert [d.line for d in read_documents(b"# head\n---\na: 1\n---\n\n---\nb: 2\n")] == [3, 7]


def test_bytes_that_are_no_utf_8_are_refused_with_their_line() -> None:
    content = read_manifest("x.yaml", b"kind: Service\nmetadata:\n  name: \xff\n")
    assert content.unreadable is not None
    assert content.unreadable.origin == "x.yaml:3"
