"""Bytes from the API server, well-formed and not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.cluster.decode import (
    MAX_OBJECT_BYTES,
    NotReadable,
    decode_list,
    decode_object,
    decode_status,
    decode_watch_line,
)
from pyagent.cluster.lines import LineSplitter
from pyagent.model.kube_objects import STRUCT_OF, Kind, Service
from pyagent.model.source_events import Problem
from tests.cluster.support import endpoint_slice, service


def as_list(*items: Any, kind: str = "Service", **meta: str) -> bytes:
    listed = {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {"resourceVersion": "7"} | meta}
    return msgspec.json.encode(listed | {"items": list(items)})


def line(event: str, obj: Any) -> bytes:
    return msgspec.json.encode({"type": event, "object": obj})


def test_a_list_gives_its_objects_version_and_continue_token() -> None:
    page = decode_list("Service", as_list(service("a"), service("b"), **{"continue": "more"}))
    assert [o.metadata.name for o in page.objects] == ["a", "b"]
    assert (page.resource_version, page.continue_token, page.problems) == ("7", "more", ())


def test_a_list_without_items_is_empty() -> None:
    assert decode_list("Service", b'{"metadata":{"resourceVersion":"1"},"items":null}').objects == []


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"spec": {"ports": [{"port": 1}, {"port": "x"}]}}, "spec.ports[1].port", "Expected int, got str"),
        ({"spec": {"ports": [{"name": "x"}]}}, "spec.ports[0].port", "is missing"),
        ({"spec": {"ports": [{"port": 8.5}]}}, "spec.ports[0].port", "Expected int, got float"),
        ({"spec": []}, "spec", "Expected object, got array"),
        (
            {"metadata": {"name": "bad", "namespace": "shop", "labels": {"a": 1}}},
            "metadata.labels[...]",
            "Exp",
        ),
        ({"metadata": {"namespace": "shop"}}, "metadata.name", "is missing"),
        ({"metadata": {"name": "bad"}}, "metadata.namespace", "is missing"),
        ({"metadata": {"name": "a\x00b", "namespace": "shop"}}, "metadata.name", "not a Kubernetes name"),
        ({"metadata": {"name": "../etc", "namespace": "shop"}}, "metadata.name", "not a Kubernetes name"),
        (
            {"metadata": {"name": "n" * 100_000, "namespace": "shop"}},
            "metadata.name",
            "not a Kubernetes name",
        ),
        ({"metadata": 5}, "metadata", "Expected object, got int"),
    ],
)
def test_a_malformed_object_is_skipped_and_named(change: dict[str, Any], field: str, reason: str) -> None:
    page = decode_list("Service", as_list(service("a"), service("bad") | change, service("z")))
    assert [o.metadata.name for o in page.objects] == ["a", "z"]
    (problem,) = page.problems
    assert problem.field == field
    assert problem.reason.startswith(reason)
    assert str(problem).isprintable()
    assert len(str(problem)) < 1000


@pytest.mark.parametrize("kind", STRUCT_OF)
def test_an_item_that_is_no_object_is_a_problem_of_every_kind(kind: Kind) -> None:
    body = msgspec.json.encode({"metadata": {"resourceVersion": "1"}, "items": [7, None, "x", []]})
    assert len(decode_list(kind, body).problems) == 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        as_list(service("a"))[:-9],
        b'{"metadata":{"resourceVersion":\xff',
        b"[" * 200_000,
    ],
)
def test_an_answer_that_is_no_list_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(NotReadable):
        decode_list("Service", body)


def test_a_list_of_another_version_is_refused() -> None:
    with pytest.raises(NotReadable, match="v9"):
        decode_list("Service", b'{"apiVersion":"v9","metadata":{},"items":[]}')


def test_text_that_is_not_utf_8_costs_one_object() -> None:
    body = as_list(service("a"), service("marker")).replace(b"marker", b"m\xffrker")
    page = decode_list("Service", body)
    assert [o.metadata.name for o in page.objects] == ["a"]
    assert page.problems[0].reason == "text is not UTF-8"


def test_an_object_of_another_version_or_kind_is_a_problem() -> None:
    wrong = decode_object(
        "EndpointSlice", msgspec.json.encode(endpoint_slice("a", "s") | {"apiVersion": "v2"})
    )
    assert isinstance(wrong, Problem)
    assert wrong.field == "apiVersion"
    other = decode_object("EndpointSlice", msgspec.json.encode(service("a")))
    assert isinstance(other, Problem)


def test_an_object_larger_than_allowed_is_a_problem() -> None:
    big = service("big") | {"x": "y" * MAX_OBJECT_BYTES}
    found = decode_object("Service", msgspec.json.encode(big))
    assert isinstance(found, Problem)
    assert (found.name, found.reason) == ("big", "larger than 16 MiB")


def test_deep_nesting_in_an_unknown_field_is_a_problem() -> None:
    raw = b'{"metadata":{"name":"a","namespace":"b"},"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    found = decode_object("Service", raw)
    assert isinstance(found, Problem)
    assert found.reason == "nested too deeply"


def test_watch_lines_of_every_type() -> None:
    obj = service("web")
    obj["metadata"]["resourceVersion"] = "9"
    added = decode_watch_line("Service", line("ADDED", obj))
    assert isinstance(added.object, Service)
    assert (added.type, added.resource_version, added.name) == ("ADDED", "9", "web")
    gone = decode_watch_line("Service", line("DELETED", obj | {"spec": "broken"}))
    assert (gone.type, gone.namespace, gone.name, gone.problem) == ("DELETED", "shop", "web", None)
    bad = decode_watch_line("Service", line("MODIFIED", obj | {"spec": "broken"}))
    assert bad.problem is not None
    assert (bad.name, bad.resource_version) == ("web", "9")
    mark = {"metadata": {"resourceVersion": "10", "annotations": {"k8s.io/initial-events-end": "true"}}}
    assert decode_watch_line("Service", line("BOOKMARK", mark)).initial_events_end
    failure = decode_watch_line("Service", line("ERROR", {"code": 410, "message": "old\n\x1b[2J"}))
    assert failure.status is not None
    assert failure.status.code == 410
    assert failure.status.message.isprintable()
    assert decode_watch_line("Service", line("NEWS", {})).type == "UNKNOWN"


@given(st.sampled_from(sorted(STRUCT_OF)), st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(kind: Kind, data: bytes) -> None:
    assert isinstance(decode_object(kind, data), Problem) or data.lstrip().startswith(b"{")
    with pytest.raises(NotReadable):
        decode_watch_line(kind, data)
    assert decode_status(data).code == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [
        "metadata",
        "spec",
        "status",
        "ports",
        "endpoints",
        "addresses",
        "conditions",
        "name",
        "namespace",
        "port",
    ]
)
shaped = st.recursive(
    json_values,
    lambda inner: st.dictionaries(fields, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=25,
)


@given(st.sampled_from(sorted(STRUCT_OF)), st.lists(shaped, max_size=4))
def test_every_item_of_a_list_is_an_object_or_a_printable_problem(kind: Kind, items: list[Any]) -> None:
    body = msgspec.json.encode({"metadata": {"resourceVersion": "1"}, "items": [*items]})
    page = decode_list(kind, body)
    assert len(page.objects) + len(page.problems) == len(items)
    assert all(str(problem).isprintable() for problem in page.problems)


@given(
    st.lists(st.binary(max_size=12).filter(lambda b: b"\n" not in b)),
    st.binary(max_size=6).filter(lambda b: b"\n" not in b),
    st.randoms(use_true_random=False),
)
def test_lines_come_out_however_the_pieces_fall(lines: list[bytes], rest: bytes, random: Any) -> None:
    stream = b"".join(one + b"\n" for one in lines) + rest
    splitter, found, at = LineSplitter(), [], 0
    while at < len(stream):
        size = random.randint(1, 9)
        found += [bytes(one) for one in splitter.feed(stream[at : at + size])]
        at += size
    assert found == [one for one in lines if one]
    assert splitter.incomplete == bool(rest)


def test_a_line_without_end_is_refused() -> None:
    splitter = LineSplitter(longest=100)
    for _ in range(10):
        assert list(splitter.feed(b"x" * 10)) == []
    with pytest.raises(NotReadable):
        list(splitter.feed(b"x"))
