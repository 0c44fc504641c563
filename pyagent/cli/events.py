"""`kubesock events`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from pyagent.cli.listing import wants_color
from pyagent.cli.options import (
    bpffs_option,
    color_option,
    complete_service,
    headers_option,
    namespace_options,
    output_option,
    selector_option,
    state_dir_option,
    verbose_option,
)
from pyagent.view import render
from pyagent.view.event_table import EVENT_NAMES, EVENTS, LOST, Chosen
from pyagent.view.tables import Row, parse_selectors, selected

if TYPE_CHECKING:
    from pyagent.view.event_listener import Listener

WIDTHS = (12, 22, 18, 14, 26, 18, 20)
"""Of the first columns, before anything is known of what comes: lines are to stand below each other."""


def _complete_event(_context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    before, comma, last = text.rpartition(",")
    return [f"{before}{comma}{name}" for name in EVENT_NAMES if name.startswith(last)]


@click.command()
@click.option("-f", "--follow", "-w", "--watch", is_flag=True, help="Go on, and show what happens.")
@click.option(
    "--event",
    "names",
    default="",
    metavar="EVENT,…",
    shell_complete=_complete_event,
    help=f"Only these: {', '.join(EVENT_NAMES)}.  [default: all but further datagrams and self-probes]",
)
@click.option(
    "--service",
    default="",
    shell_complete=complete_service,
    help="Only of [NAMESPACE/]NAME[:PORT][/PROTOCOL].",
)
@click.option(
    "--pod", default="", metavar="[NAMESPACE/]NAME", help="Only calls of this pod or network namespace."
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Of the hooks' events one in N, chosen in the kernel.",
)
@click.option(
    "--last",
    type=click.IntRange(min=0),
    metavar="N",
    help="So many of what the agent remembers first.  [default: all, with -f none]",
)
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0.0),
    metavar="SECONDS",
    help="With -f: end after this time.",
)
@click.option(
    "--input",
    "file",
    type=click.File("rb"),
    metavar="FILE",
    help="Show events that `-o json` wrote; - for standard input.",
)
@output_option
@namespace_options
@selector_option
@headers_option
@color_option
@bpffs_option
@state_dir_option
@verbose_option
def events(
    follow: bool,
    names: str,
    service: str,
    pod: str,
    sample: int,
    last: int | None,
    seconds: float | None,
    file: IO[bytes] | None,
    output: str,
    namespace: str,
    all_namespaces: bool,
    selector: str,
    no_headers: bool,
    color: str,
    bpffs: Path,
    state_dir: Path,
) -> None:
    """What happens: translations, refusals and why, switches, ended sockets, the agent's changes.

    The hooks report only while somebody listens with -f, only what is asked for, and count what they had no
    room for. The agent remembers its own deeds; without an agent one listener at a time reads the hooks'
    events itself.
    """
    from pyagent.view.event_listener import Asked, Listener

    chosen = Chosen([name.strip() for name in names.split(",") if name.strip()])
    remembered = 0 if follow and last is None else last
    asked = Asked(chosen, service, pod, sample, remembered, follow)
    wanted = _Wanted(namespace if not all_namespaces else "", selector)
    screen = _Screen(output, not no_headers, wants_color(color), follow or file is not None)
    if file is not None:
        from pyagent.view.event_input import read_events

        for row in read_events(file):
            screen.show(wanted.of([row] if asked.accepts(row) else []))
    else:
        for rows in _until(Listener(bpffs, state_dir, asked), seconds, bpffs):
            screen.show(wanted.of(rows))
    screen.end()


class _Wanted:
    """What -n and -l leave."""

    def __init__(self, namespace: str, selector: str) -> None:
        self._namespace = namespace
        self._selectors = parse_selectors(selector)

    def of(self, rows: list[Row]) -> list[Row]:
        lost = [row for row in rows if row["event"] == LOST]
        rest = [row for row in rows if row["event"] != LOST]
        if self._namespace:
            rest = [row for row in rest if row["namespace"] == self._namespace]
        return [*selected(rest, self._selectors), *lost]


def _until(listener: Listener, seconds: float | None, bpffs: Path) -> Iterator[list[Row]]:
    """Rows until the time is over; tells on standard error when an agent comes or goes."""
    end = None if seconds is None else time.monotonic() + seconds
    agent = True
    for heard in listener.heard():
        if heard.agent != agent:
            agent = heard.agent
            state = "an agent has come" if agent else "no agent is running: events of the hooks alone"
            click.echo(f"kubesock: {bpffs}: {state}", err=True)
        yield heard.rows
        if end is not None and time.monotonic() >= end:
            return


class _Screen:
    """Where rows are written: as one list, or as they come."""

    def __init__(self, output: str, headers: bool, color: bool, streams: bool) -> None:
        self._output = output
        self._headers = headers
        self._color = color
        self._streams = streams
        self._columns = render.shown_columns(EVENTS, output == "wide", old=False)
        self._widths = [*WIDTHS, *(0 for _ in self._columns[len(WIDTHS) :])] if streams else []
        self._rows: list[Row] = []
        if streams:
            self._write([])

    def show(self, rows: list[Row]) -> None:
        if not self._streams:
            self._rows += rows
        elif rows:
            self._write(rows)

    def end(self) -> None:
        """There is no more."""
        if self._streams:
            return
        if self._output == "json":
            click.echo(render.json_text(render.document(EVENTS.kind, self._rows)), nl=False)
        elif self._output == "yaml":
            click.echo(render.yaml_text(render.document(EVENTS.kind, self._rows)), nl=False)
        elif self._rows:
            self._write(self._rows)
        else:
            click.echo("kubesock: no events", err=True)

    def _write(self, rows: list[Row]) -> None:
        if self._output == "json":
            text = "".join(render.json_text({"type": "ADDED", "object": row}, indent=0) for row in rows)
        elif self._output == "yaml":
            text = "".join("---\n" + render.yaml_text({"type": "ADDED", "object": row}) for row in rows)
        elif self._output == "name":
            text = render.name_text(EVENTS, rows)
        else:
            text, self._widths = render.table_text(
                self._columns, rows, self._headers, self._color, self._widths
            )
            self._headers = False
        click.echo(text, nl=False, color=True)
        if self._streams:
            sys.stdout.flush()
