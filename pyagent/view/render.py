"""Rows as text: table, wide, JSON, YAML, names. Written by hand, for a list must not import a library for it.

Names come from objects that anybody with rights in one namespace can write, so no control or formatting
character of theirs may reach the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pyagent.view.tables import Column, Row, Table

API_VERSION = "kubesock.io/v1"
GAP = "   "
_STYLES = ("", "\x1b[33m", "\x1b[31m")  # by alarm: none, yellow, red
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"
# JSON and YAML encoders let these through: C1 controls, and characters that reorder or hide text.
_UNSAFE = re.compile("[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def printable(text: str) -> str:
    """The text with everything that does not print as `\\xNN`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def shown_columns(table: Table, wide: bool, old: bool) -> list[Column]:
    """The columns to show; rows that no agent keeps up to date get one that says so."""
    columns = [column for column in table.columns if wide or not column.wide]
    return [*columns, Column("DATA", "old", lambda _: "old")] if old else columns


def event_column(event: str) -> Column:
    """What happened to the row, for tables that go on."""
    return Column("EVENT", "event", lambda _: event)


def table_text(
    columns: Sequence[Column],
    rows: Sequence[Row],
    headers: bool = True,
    color: bool = False,
    at_least: Sequence[int] = (),
) -> tuple[str, list[int]]:
    """Aligned lines, and the width of each column.

    Args:
        at_least: widths of an earlier table that this one continues.
    """
    if not columns:
        return "", []
    texts = [_printables(column.texts(rows)) for column in columns]
    head = [column.header for column in columns]
    widths = [max(map(len, column), default=0) for column in texts]
    for least in ([len(title) for title in head] if headers else [], at_least):
        widths = [max(pair) for pair in zip(widths, least, strict=True)] if least else widths
    # Column by column and with `%`: a table of 10,000 rows takes half the time.
    line_format = GAP.join([*(f"%-{width}s" for width in widths[:-1]), "%s\n"])
    cells = zip(*texts, strict=True)
    if color:
        lines = [_coloured(columns, row, line, widths) for row, line in zip(rows, cells, strict=True)]
    else:
        lines = list(map(line_format.__mod__, cells))
    if headers:
        title = line_format % tuple(head)
        lines.insert(0, f"{_BOLD}{title.rstrip()}{_RESET}\n" if color else title)
    return "".join(lines), widths


def _printables(texts: list[str]) -> list[str]:
    return texts if "".join(texts).isprintable() else [printable(text) for text in texts]


def _coloured(columns: Sequence[Column], row: Row, line: Sequence[str], widths: Sequence[int]) -> str:
    texts = []
    for column, text, width in zip(columns, line, widths, strict=True):
        style = _STYLES[column.alarm(row)] if column.alarm else ""
        texts.append(f"{style}{text}{_RESET}{' ' * (width - len(text))}" if style else text.ljust(width))
    return GAP.join(texts).rstrip() + "\n"


def json_text(value: Any, indent: int = 2) -> str:
    """JSON with a newline at its end; `indent` 0 for one line."""
    encoded = msgspec.json.encode(value)
    if indent:
        encoded = msgspec.json.format(encoded, indent=indent)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()) + "\n"


def yaml_text(value: Any) -> str:
    """One YAML document; characters beyond ASCII are escaped."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, width=2**20, default_flow_style=False)
    return text


def name_text(table: Table, rows: Iterable[Row]) -> str:
    """A name per line, each once."""
    return "".join(f"{printable(name)}\n" for name in dict.fromkeys(map(table.name, rows)))


def document(kind: str, rows: Sequence[Row], extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The list object that JSON and YAML show."""
    return {"apiVersion": API_VERSION, "kind": kind, **(extra or {}), "items": rows}
