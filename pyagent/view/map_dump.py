"""`kubesock maps NAME`: what one map holds, decoded entry by entry, or as raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice

from pyagent.datapath import decoded
from pyagent.datapath.layout import (
    BACKEND,
    CONFIG,
)
from pyagent.model.failures import UsageError
from pyagent.view.live import LiveMaps
from pyagent.view.map_entries import ENTRIES, NamedMaps
from pyagent.view.tables import Column, Row, Table

KIND = "MapEntryList"
_U32 = struct.Struct("=I")


def dump_rows(live: LiveMaps, name: str, raw: bool = False, limit: int | None = None) -> list[Row]:
    """The entries of a map, in the order of their keys. Needs every map to be read.

    Args:
        raw: key and value as hexadecimal bytes instead.
        limit: only so many of the first; None: all.

    Raises:
        UsageError: there is no such map, or its contents cannot be listed.
    """
    if raw:
        return [{"key": key.hex(), "value": value.hex()} for key, value in islice(_raw(live, name), limit)]
    if name not in ENTRIES:
        raise _cannot_list(name, ENTRIES)
    return list(islice(ENTRIES[name](NamedMaps(live)), limit))


def dump_table(rows: list[Row]) -> Table:
    """The columns that the rows of a dump have."""
    fields = dict.fromkeys(field for row in rows for field in row)
    first = next(iter(fields), "key")
    return Table(
        kind=KIND,
        columns=tuple(Column(_header(field), field) for field in fields),
        identity=tuple(fields)[:2],
        name=lambda row: str(row.get(first, "")),
    )


def _header(field: str) -> str:
    """`whenEmpty` -> `WHEN-EMPTY`."""
    return "".join(f"-{c}" if c.isupper() else c for c in field).upper()


def _cannot_list(name: str, known: Iterable[str]) -> UsageError:
    if name in ("origin", "origin_udp"):
        return UsageError(f"map {name}: its entries lie with their sockets and cannot be read as a list")
    if name == "events":
        return UsageError("map events: a ring buffer is read by one reader alone, which is the agent")
    return UsageError(f"map {name!r}: no such map; there are {', '.join(known)}")


def _raw(live: LiveMaps, name: str) -> Iterator[tuple[bytes, bytes]]:
    raw = live.raw
    hashes: dict[str, Iterable[tuple[bytes, bytes]]] = {
        "frontends": raw.frontends.items(),
        "names": raw.names.items(),
        "service_addresses": raw.service_addresses.items(),
        "node_addresses": raw.node_addresses.items(),
        "source_ranges": live.source_ranges,
        "client_addresses": live.client_addresses,
        "opted_out": live.opted_out,
        "affinity": live.affinity,
        "origin_overflow": live.overflow,
        "flows": live.flows,
        "outside_devices": live.devices,
    }
    arrays: dict[str, tuple[decoded.Buffer, int]] = {
        "sets": (raw.sets, 8),
        "slots": (raw.slots, 8),
        "backends": (raw.backends, BACKEND.size),
        "refused": (live.refused, 8),
        "config": (raw.config, CONFIG.size),
        "chosen": (b"".join(live.chosen), 8),
    }
    if name in hashes:
        yield from sorted(hashes[name])
    elif name in arrays:
        data, size = arrays[name]
        for index in range(len(data) // size):
            value = bytes(data[index * size : index * size + size])
            if any(value):
                yield _U32.pack(index), value
    else:
        raise _cannot_list(name, [*hashes, *arrays])
