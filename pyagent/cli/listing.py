"""What every list verb does with its rows: select, sort, show, and with -w show again what changed."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pyagent.cli.options import Listing
from pyagent.model.failures import KubesockError, sanitized
from pyagent.view import render
from pyagent.view.live import AgentFacts
from pyagent.view.tables import Row, Table, parse_selectors, selected, sorted_by

Read = Callable[[], tuple[Table, list[Row], AgentFacts]]
"""Looks once: the table, its rows in their usual order, and whether somebody keeps them up to date."""


def show(read: Read, listing: Listing, bpffs: Path) -> None:
    """Carry out a list verb.

    Raises:
        UsageError: a flag names what is not there. Whatever `read` raises.
    """
    # Rows are many, hold no cycles and live to the end: looking for garbage among them takes half the time.
    gc.disable()
    table, rows, agent = _look(read, listing)
    if not agent.alive:
        tell_old(agent, bpffs)
    _Screen(table, listing, not agent.alive).whole(rows)
    if listing.watch:
        _watch(read, listing, bpffs, (table, rows, agent))


def _look(read: Read, listing: Listing) -> tuple[Table, list[Row], AgentFacts]:
    table, rows, agent = read()
    if listing.namespace:
        rows = [row for row in rows if row.get("namespace") == listing.namespace]
    rows = selected(rows, parse_selectors(listing.selector))
    if listing.sort_by:
        rows = sorted_by(rows, listing.sort_by, table.columns)
    return table, rows, agent


def _watch(read: Read, listing: Listing, bpffs: Path, first: tuple[Table, list[Row], AgentFacts]) -> None:
    table, rows, agent = first
    screen = _Screen(table, listing, not agent.alive)
    screen.measure(rows)
    held = {table.key(row): row for row in rows}
    while True:
        sys.stdout.flush()
        time.sleep(listing.interval)
        was_alive = agent.alive
        table, rows, agent = _look(read, listing)
        if was_alive and not agent.alive:
            tell_old(agent, bpffs)
        found = {table.key(row): row for row in rows}
        for key, row in found.items():
            if key not in held:
                screen.change("ADDED", row)
            elif table.differs(held[key], row):
                screen.change("MODIFIED", row)
        for key, row in held.items():
            if key not in found:
                screen.change("DELETED", row)
        held = found


class _Screen:
    """Where rows are written. With -w each carries what happened to it, the first ones too."""

    def __init__(self, table: Table, listing: Listing, old: bool) -> None:
        self._table = table
        self._listing = listing
        self._columns = render.shown_columns(table, listing.output == "wide", old)
        self._color = wants_color(listing.color)
        self._widths: list[int] = []

    def whole(self, rows: list[Row]) -> None:
        listing, table = self._listing, self._table
        if listing.watch and listing.output in ("json", "yaml"):
            for row in rows:
                self.change("ADDED", row)
        elif listing.output == "json":
            click.echo(render.json_text(render.document(table.kind, rows)), nl=False)
        elif listing.output == "yaml":
            click.echo(render.yaml_text(render.document(table.kind, rows)), nl=False)
        elif listing.output == "name":
            click.echo(render.name_text(table, rows), nl=False)
        elif rows or listing.watch:
            click.echo(self._lines(rows, "ADDED", listing.headers), nl=False, color=True)
        else:
            click.echo("kubesock: no rows", err=True)

    def measure(self, rows: list[Row]) -> None:
        """Take over the widths of the table that is on the screen already."""
        if self._listing.output in ("table", "wide"):
            self._lines(rows, "ADDED", self._listing.headers)

    def change(self, event: str, row: Row) -> None:
        output = self._listing.output
        if output == "json":
            click.echo(render.json_text({"type": event, "object": row}, indent=0), nl=False)
        elif output == "yaml":
            click.echo("---\n" + render.yaml_text({"type": event, "object": row}), nl=False)
        elif output == "name":
            click.echo(render.name_text(self._table, [row]), nl=False)
        else:
            click.echo(self._lines([row], event, headers=False), nl=False, color=True)

    def _lines(self, rows: list[Row], event: str, headers: bool) -> str:
        columns = self._columns
        if self._listing.watch:
            columns = [render.event_column(event), *columns]
        text, self._widths = render.table_text(columns, rows, headers, self._color, self._widths)
        return text


def wants_color(color: str) -> bool:
    """Whether to colour standard output (https://no-color.org)."""
    if color != "auto":
        return color == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None: it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def is_utf8() -> bool:
    """Whether the user's locale has more than ASCII (locale(7)); Python's own encoding is UTF-8 in C too."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next(filter(None, names), "").lower()
    return "utf-8" in locale or "utf8" in locale


def unknown_service(service: str) -> KubesockError:
    """Nothing in the maps has this name."""
    return KubesockError(f"service {sanitized(service)}: not in the maps; `kubesock services` lists what is")


def tell_old(agent: AgentFacts, bpffs: Path) -> None:
    """One line on standard error: nobody keeps what is shown up to date."""
    since = f", the last one started {duration_text(agent.age)} ago" if agent.age is not None else ""
    click.echo(
        f"kubesock: no agent is running on {bpffs}{since}: the data is old; start `kubesock run`", err=True
    )


def duration_text(seconds: float) -> str:
    """`45s`, `12m`, `3h`, `5d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def show_document(kind: str, fields: dict[str, Any], output: str) -> None:
    """One object as JSON or YAML."""
    value = {"apiVersion": render.API_VERSION, "kind": kind, **fields}
    click.echo(render.json_text(value) if output == "json" else render.yaml_text(value), nl=False)
