"""Selecting, sorting and showing rows."""

from __future__ import annotations

import json
import struct
import unicodedata

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.layout import CLIENT_ADDRESSES, SOURCE_RANGE_KEY, WORKLOAD_KEY, WorkloadKind
from pyagent.model.address import parse_address
from pyagent.model.failures import UsageError
from pyagent.view import render
from pyagent.view.map_dump import dump_rows
from pyagent.view.map_table import bytes_text
from pyagent.view.service_table import SERVICES, service_rows
from pyagent.view.tables import Column, Row, Table, parse_selectors, selected, sorted_by
from tests.unit.view.maps_made import live, shop

ROWS: list[Row] = [
    {"name": "b", "count": 2, "tags": ["x", "y"], "up": True, "share": None},
    {"name": "a", "count": 10, "tags": [], "up": False, "share": 1.5},
]
COLUMNS = (Column("NAME", "name"), Column("HITS", "count"), Column("TAGS", "tags", wide=True))
TABLE = Table("RowList", COLUMNS, ("name",), lambda row: str(row["name"]))


def names(rows: list[Row]) -> list[str]:
    return [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", ["b", "a"]),
        ("name=a", ["a"]),
        ("name==A", ["a"]),
        ("name!=a", ["b"]),
        ("count=2, up=yes", ["b"]),
        ("tags=y", ["b"]),
        ("name=a,count=2", []),
    ],
)
def test_a_selector_keeps_rows_whose_fields_have_the_values(selector: str, expected: list[str]) -> None:
    assert names(selected(ROWS, parse_selectors(selector))) == expected


@pytest.mark.parametrize("selector", ["name", "=a", "!=a", "no-such-field=1"])
def test_a_selector_that_means_nothing_is_refused_with_the_fields_there_are(selector: str) -> None:
    with pytest.raises(UsageError, match=r"-l"):
        selected(ROWS, parse_selectors(selector))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("name", ["a", "b"]),
        ("-name", ["b", "a"]),
        ("count", ["b", "a"]),  # as numbers, not as text
        ("HITS", ["b", "a"]),
        ("{.count}", ["b", "a"]),
        ("share", ["b", "a"]),
        ("tags", ["a", "b"]),
    ],
)
def test_rows_are_sorted_by_a_field_or_a_column(field: str, expected: list[str]) -> None:
    assert names(sorted_by(ROWS, field, COLUMNS)) == expected


def test_sorting_by_what_is_not_there_names_the_fields() -> None:
    with pytest.raises(UsageError, match="name, count"):
        sorted_by(ROWS, "size", COLUMNS)


def test_a_table_is_aligned_and_wide_has_more_columns() -> None:
    narrow, _ = render.table_text(render.shown_columns(TABLE, False, False), ROWS)
    assert narrow == "NAME   HITS\nb      2\na      10\n"
    wide, _ = render.table_text(render.shown_columns(TABLE, True, False), ROWS, headers=False)
    assert wide == "b   2    x,y\na   10   -\n"


def test_old_rows_say_so_in_a_column_of_their_own() -> None:
    text, _ = render.table_text(render.shown_columns(TABLE, False, True), ROWS)
    assert text.splitlines()[1].split() == ["b", "2", "old"]


def test_colour_changes_nothing_but_colour() -> None:
    columns = render.shown_columns(SERVICES, False, False)
    rows = service_rows(live([shop(), shop(text="a/none", sets=())]))
    plain, _ = render.table_text(columns, rows)
    coloured, _ = render.table_text(columns, rows, color=True)
    assert "\x1b[31m0\x1b[0m" in coloured
    for code in ("\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[0m"):
        coloured = coloured.replace(code, "")
    assert coloured == plain


@given(st.text(max_size=40))
def test_no_text_of_an_object_moves_the_terminal(text: str) -> None:
    row = {"name": text, "count": 1, "tags": [text]}
    for color in (False, True):
        shown, _ = render.table_text(render.shown_columns(TABLE, True, False), [row], False, color)
        assert shown.count("\n") == 1
        assert shown.rstrip("\n").isprintable()
    assert render.name_text(TABLE, [row]).count("\n") == 1


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_json_and_yaml_bring_back_any_name_and_hide_no_control_character(text: str) -> None:
    for shown, parse in (
        (render.json_text({"a": text}), json.loads),
        (render.yaml_text({"a": text}), yaml.safe_load),
    ):
        assert parse(shown) == {"a": text}
        hidden = [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp") and c != "\n"]
        assert not hidden
        assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in shown)


def test_a_list_names_its_version_and_kind() -> None:
    document = msgspec.json.decode(render.json_text(render.document(TABLE.kind, ROWS)))
    assert document == {"apiVersion": "kubesock.io/v1", "kind": "RowList", "items": ROWS}


def test_every_column_of_services_shows_a_field_of_the_json() -> None:
    (row,) = service_rows(live([shop()]))
    assert {column.field for column in SERVICES.columns} <= set(row)
    assert set(SERVICES.identity) <= set(row)


def test_names_are_printed_once_for_both_families() -> None:
    six = shop(frontends=("[fd00::1]:80",))
    assert render.name_text(SERVICES, service_rows(live([shop(), six]))) == "shop/web:http/TCP\n"


def test_sizes_are_shown_in_binary_units() -> None:
    assert [bytes_text(n) for n in (0, 1023, 1024, 8 << 20, 3 << 30)] == [
        "0",
        "1023",
        "1.0Ki",
        "8.0Mi",
        "3.0Gi",
    ]


@pytest.mark.parametrize("name", ["origin", "origin_udp", "events", "no_such_map"])
def test_a_map_that_cannot_be_listed_says_why(name: str) -> None:
    with pytest.raises(UsageError, match=f"map '?{name}'?:"):
        dump_rows(live([shop()]), name)


def test_a_dump_resolves_ids_to_names() -> None:
    found = live([shop(affinity=30)], {1: "worker-1"})
    (frontend,) = dump_rows(found, "frontends")
    assert (frontend["dialled"], frontend["service"], frontend["tagMatches"]) == (
        "10.96.0.1:80",
        "shop/web:http/TCP",
        True,
    )
    (row,) = dump_rows(found, "sets")
    assert (row["service"], row["view"], row["whenEmpty"], row["affinitySeconds"]) == (
        "shop/web:http/TCP",
        "Cluster",
        "refused_no_endpoints",
        30,
    )
    assert [row["backend"] for row in dump_rows(found, "slots")] == [
        "10.1.0.1:8080",
        "10.1.0.2:8080",
        "10.1.0.3:8080",
    ]
    assert {row["name"] for row in dump_rows(found, "names")} == {"shop/web:http/TCP", "worker-1"}
    assert sum(row["count"] for row in dump_rows(found, "chosen")) == 4


def test_a_raw_dump_is_the_bytes() -> None:
    found = live([shop()])
    rows = dump_rows(found, "frontends", raw=True)
    assert {bytes.fromhex(row["key"]): bytes.fromhex(row["value"]) for row in rows} == found.raw.frontends


def test_clients_and_their_ranges_are_listed() -> None:
    found = live(
        [shop()],
        source_ranges=((SOURCE_RANGE_KEY.pack(32 + 96 + 8, 1, parse_address("10.0.0.0")), bytes(4)),),
        client_addresses=(
            (struct.pack("=Q", 7), CLIENT_ADDRESSES.pack(parse_address("10.1.2.3"), bytes(16))),
        ),
        opted_out=((WORKLOAD_KEY.pack(9, WorkloadKind.CGROUP, 0), bytes(4)),),
    )
    assert dump_rows(found, "source_ranges") == [{"service": "shop/web:http/TCP", "range": "10.0.0.0/8"}]
    assert dump_rows(found, "client_addresses") == [{"client": 7, "ipv4": "10.1.2.3", "ipv6": ""}]
    assert dump_rows(found, "opted_out") == [{"kind": "cgroup", "id": 9}]
