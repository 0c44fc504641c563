"""Reads back what `kubesock events -o json` wrote: a list, or an event a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

import msgspec

from pyagent.model.failures import UsageError
from pyagent.view.event_table import EMPTY
from pyagent.view.tables import Row


def read_events(file: IO[bytes]) -> Iterator[Row]:
    """Rows, as they can be read; fields that are not there are empty.

    Raises:
        UsageError: this is nothing of the kind; names the line.
    """
    held = b""
    number = 0
    for number, line in enumerate(file, 1):
        held += line
        alone = held.startswith(b'{"')  # a list is written over many lines
        if not alone and not held.rstrip().endswith(b"}"):
            continue
        try:
            value = msgspec.json.decode(held)
        except msgspec.DecodeError:
            if alone:
                break
            continue
        held = b""
        yield from _rows(value, number)
    if held.strip():
        raise UsageError(f"--input: what ends in line {number} is no JSON of `kubesock events`")


def _rows(value: Any, number: int) -> Iterator[Row]:
    items = value.get("items", [value.get("object", value)]) if isinstance(value, dict) else [value]
    for item in items if isinstance(items, list) else [items]:
        if not isinstance(item, dict) or not isinstance(item.get("event"), str):
            raise UsageError(f"--input: what ends in line {number} is no event of `kubesock events -o json`")
        yield {**EMPTY, **item}
