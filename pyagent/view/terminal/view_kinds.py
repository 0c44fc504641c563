"""What a view of the screen is: what it needs, its rows, its columns, and where Enter leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyagent.view.tables import Column, Row, Table
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.sample import Needs, Sample

Draw = Callable[[Row, Marks], str]


class Shown(NamedTuple):
    """A column on the screen.

    Attributes:
        importance: 0 is never left out on narrow screens, the highest goes first.
        cut: whether its text may be cut short.
        draw: how the cell looks instead of the column's text.
        only_drawn: it is a picture: not in the text of `--once`.
        plain: what is drawn is a text like others.
        least: to how few characters it may be cut before other columns are left out; 0: not far.
    """

    column: Column
    importance: int = 0
    cut: bool = False
    draw: Draw | None = None
    only_drawn: bool = False
    plain: bool = False
    least: int = 0


class Request(NamedTuple):
    """What somebody wants to see.

    Attributes:
        view: a key of `VIEWS`.
        subject: what the view is narrowed to: a service, a backend, a map; empty: nothing.
        pattern: as `/` takes it.
        sort: a field, `-field` for greatest first; empty: the view's usual order.
        raw: bytes instead of what they mean, in the view of a map.
    """

    view: str
    subject: str = ""
    pattern: str = ""
    sort: str = ""
    raw: bool = False


class Found(NamedTuple):
    """The rows of a view. `note`: what the user should know of them, such as why there are none."""

    rows: list[Row]
    note: str = ""


class View(NamedTuple):
    """One kind of screen.

    Attributes:
        needs: what a look must bring.
        rows: all rows in their usual order, filtered by the subject alone.
        columns: which are shown, for these rows.
        table: identity and names of the rows; also kind of the JSON list.
        enter: view that Enter leads to; empty: to all fields of the row.
        subject: what that view is narrowed to.
        explains: (target, client) for `kubesock explain`; None: rows are nothing that can be dialled.
        detail: lines about a row, below the table.
    """

    key: str
    title: str
    about: str
    needs: Needs
    rows: Callable[[Sample, Activity, Request], Found]
    columns: Callable[[Request, Sequence[Row]], Sequence[Shown]]
    table: Table
    sort: str = ""
    enter: str = ""
    subject: Callable[[Row], str] = lambda _row: ""
    explains: Callable[[Row], tuple[str, str]] | None = None
    detail: Callable[[Row, Marks], list[str]] = lambda _row, _marks: []

    def table_for(self, request: Request, rows: Sequence[Row]) -> Table:
        """The table of `--once`, with the columns that are text."""
        shown = self.columns(request, rows)
        return self.table._replace(columns=tuple(one.column for one in shown if not one.only_drawn))


def rate_text(rate: float | None) -> str:
    """`-` before two looks, `0.4`, `12`."""
    if rate is None:
        return "-"
    return f"{rate:.1f}" if 0 < rate < 10 else str(round(rate))


def fixed(*shown: Shown) -> Callable[[Request, Sequence[Row]], Sequence[Shown]]:
    """The same columns for all requests."""
    return lambda _request, _rows: shown
