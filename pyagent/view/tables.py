"""What a table is: rows with named fields, and how columns show them.

A row is a plain dict. Its field names are those of JSON and YAML, are what `--sort-by` and `-l` take, and a
column shows one field; fields are added, never renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pyagent.model.failures import UsageError

Row = dict[str, Any]


def plain(value: Any) -> str:
    """A field as a cell."""
    if type(value) is str:  # first, for most are
        return value or "-"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "-"
    return str(value)


class Column(NamedTuple):
    """One column.

    Attributes:
        cell: the text for a row; None: the field `field` as it is.
        wide: shown with `-o wide` alone.
        alarm: whether a row deserves attention here: 0 no, 1 a warning, 2 trouble.
    """

    header: str
    field: str
    cell: Callable[[Row], str] | None = None
    wide: bool = False
    alarm: Callable[[Row], int] | None = None

    def texts(self, rows: Sequence[Row]) -> list[str]:
        """The cells of all rows."""
        if self.cell is not None:
            return list(map(self.cell, rows))
        field = self.field
        return [plain(row.get(field)) for row in rows]


class Table(NamedTuple):
    """Columns of one kind of row.

    Attributes:
        kind: as in JSON, for example `ServiceList`.
        identity: fields that tell a row apart from others, and make its name.
        name: what `-o name` prints.
        volatile: fields that change by themselves, as ages do; that is no news for `-w`.
    """

    kind: str
    columns: tuple[Column, ...]
    identity: tuple[str, ...]
    name: Callable[[Row], str]
    volatile: frozenset[str] = frozenset()

    def key(self, row: Row) -> tuple[Any, ...]:
        return tuple(row.get(field) for field in self.identity)

    def differs(self, one: Row, other: Row) -> bool:
        """Whether two rows with the same key tell different things."""
        if not self.volatile:
            return one != other
        fields = (one.keys() | other.keys()) - self.volatile
        return any(one.get(field) != other.get(field) for field in fields)


class Selector(NamedTuple):
    """One requirement of `-l`."""

    field: str
    value: str
    equal: bool

    def accepts(self, row: Row) -> bool:
        held = row.get(self.field)
        texts = held if isinstance(held, list) else [plain(held) if isinstance(held, bool) else held]
        return any(str(text).lower() == self.value for text in texts) is self.equal


def parse_selectors(text: str) -> list[Selector]:
    """`field=value`, `field==value` or `field!=value`, separated by commas; all must hold.

    The maps hold no labels of Kubernetes objects: the fields of a row are what can be selected.

    Raises:
        UsageError: another form.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        field, sign, value = part.partition("=")
        equal = not field.endswith("!")
        if not sign or not field.rstrip("!"):
            raise UsageError(f"-l {part!r}: want FIELD=VALUE or FIELD!=VALUE, for example -l type=NodePort")
        found.append(Selector(field.rstrip("!").strip(), value.removeprefix("=").strip().lower(), equal))
    return found


def selected(rows: Iterable[Row], selectors: Sequence[Selector]) -> list[Row]:
    """Rows that every selector accepts.

    Raises:
        UsageError: no row has such a field.
    """
    found = list(rows)
    for selector in selectors:
        if found:
            _check_field("-l", selector.field, found[0])
        found = [row for row in found if selector.accepts(row)]
    return found


def sorted_by(rows: list[Row], field: str, columns: Sequence[Column]) -> list[Row]:
    """Rows in the order of a field, named as in JSON or by its column's header; `-field` is descending.

    Raises:
        UsageError: no row has such a field.
    """
    descending = field.startswith("-")
    wanted = field.removeprefix("-").strip("{}").lstrip(".")
    wanted = next((c.field for c in columns if c.header.lower() == wanted.lower()), wanted)
    if rows:
        _check_field("--sort-by", wanted, rows[0])
    return sorted(rows, key=lambda row: _sort_key(row.get(wanted)), reverse=descending)


def _sort_key(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, plain(value)


def _check_field(flag: str, field: str, row: Row) -> None:
    if field not in row:
        raise UsageError(f"{flag} {field!r}: no such field; there are {', '.join(row)}")
