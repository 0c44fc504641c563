"""Maps may hold anything: whatever is read, there are rows and no exception."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.decoded import RawMaps
from pyagent.model.failures import UsageError
from pyagent.view import render
from pyagent.view.affinity_table import AFFINITIES, affinity_rows
from pyagent.view.backend_table import BACKENDS, backend_rows
from pyagent.view.fill import entries_in_use
from pyagent.view.live import LiveMaps
from pyagent.view.map_dump import dump_rows, dump_table
from pyagent.view.map_entries import ENTRIES
from pyagent.view.service_table import SERVICES, service_rows
from tests.unit.view.maps_made import live, shop

SOUND = live([shop()], {1: "worker"})


def entries(key: int, value: int) -> st.SearchStrategy[dict[bytes, bytes]]:
    sized = st.dictionaries(
        st.binary(min_size=key, max_size=key), st.binary(min_size=value, max_size=value), max_size=4
    )
    return sized | st.dictionaries(st.binary(max_size=40), st.binary(max_size=40), max_size=3)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of sound maps with some overwritten, or any other bytes."""

    def overwrite(changes: list[tuple[int, bytes]]) -> bytes:
        found = bytearray(whole)
        for at, data in changes:
            found[at % len(whole) : at % len(whole) + len(data)] = data
        return bytes(found)

    changes = st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=9)), max_size=6)
    return changes.map(overwrite) | st.binary(max_size=200)


@st.composite
def any_maps(draw: st.DrawFn) -> LiveMaps:
    raw = SOUND.raw
    names = {key: draw(damaged(value)) for key, value in raw.names.items()} | draw(entries(8, 328))
    return SOUND._replace(
        raw=RawMaps(
            frontends={**raw.frontends, **draw(entries(20, 8))},
            sets=draw(damaged(bytes(raw.sets))),
            slots=draw(damaged(bytes(raw.slots))),
            backends=draw(damaged(bytes(raw.backends))),
            names=names,
            service_addresses=draw(entries(20, 4)),
            node_addresses=draw(entries(16, 4)),
            config=draw(st.binary(max_size=200)),
        ),
        chosen=(draw(st.binary(max_size=100)), draw(st.binary(max_size=100))),
        refused=draw(st.binary(max_size=100)),
        affinity=tuple(draw(entries(16, 24)).items()),
        overflow=tuple(draw(entries(32, 24)).items()),
        source_ranges=tuple(draw(entries(24, 4)).items()),
        client_addresses=tuple(draw(entries(8, 32)).items()),
        opted_out=tuple(draw(entries(16, 4)).items()),
    )


@given(any_maps())
def test_every_table_shows_whatever_the_maps_hold(found: LiveMaps) -> None:
    tables = [
        (SERVICES, service_rows(found)),
        (BACKENDS, backend_rows(found)),
        (AFFINITIES, affinity_rows(found)),
    ]
    for raw in (False, True):
        for name in ENTRIES:
            with contextlib.suppress(UsageError):  # per-CPU and one-element maps have no raw form
                rows = dump_rows(found, name, raw)
                tables.append((dump_table(rows), rows))
    for table, rows in tables:
        text, _ = render.table_text(table.columns, rows)
        assert text.isascii() or text.replace("\n", "").isprintable()
        assert len(text.splitlines()) == (len(rows) + 1 if table.columns else 0)
        assert render.json_text(render.document(table.kind, rows)).startswith("{")
    assert all(count >= 0 for count in entries_in_use(found).values())
