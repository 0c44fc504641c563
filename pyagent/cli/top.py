"""`kubesock top`."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

import click

from pyagent.cli.listing import is_utf8, show, wants_color
from pyagent.cli.options import (
    Listing,
    bpffs_option,
    cgroup_option,
    color_option,
    state_dir_option,
    verbose_option,
)
from pyagent.model.failures import UsageError
from pyagent.view.backend_table import BACKENDS_READ, backend_rows
from pyagent.view.live import AgentFacts
from pyagent.view.tables import Row, Table
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.frame import TABS, VIEWS, Frame, frame
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.reader import ALWAYS, NodeReader
from pyagent.view.terminal.sample import Needs, Reader
from pyagent.view.terminal.view_kinds import Request

GC_THRESHOLD = 50_000
"""Objects made between two collections: each look at 5,000 Services would cause several."""

_NAMES = [view.key for view in TABS]


@click.command()
@click.argument("view", default="services", type=click.Choice(_NAMES))
@click.argument("subject", default="")
@click.option("--once", is_flag=True, help="Print the view and end; rates are of one --interval.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "wide", "json", "yaml", "name")),
    help="Print the view in this form and end.",
)
@click.option(
    "--filter", "pattern", default="", metavar="PATTERN", help="As / on the screen: REGEX, !REGEX, ..."
)
@click.option("--sort-by", default="", metavar="FIELD", help="A field or a column; -FIELD: greatest first.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.25, max=60.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--raw", is_flag=True, help="With `maps NAME`: bytes instead of what they mean.")
@bpffs_option
@state_dir_option
@cgroup_option
@color_option
@verbose_option
def top(
    view: str,
    subject: str,
    once: bool,
    output: str | None,
    pattern: str,
    sort_by: str,
    interval: float,
    raw: bool,
    bpffs: Path,
    state_dir: Path,
    cgroup: Path | None,
    color: str,
) -> None:
    """A live screen of this node: Services, backends, connections, changes, maps, hooks, sources.

    VIEW is where to begin. SUBJECT narrows it: a Service for backends, a backend's address for connections,
    a map's name for maps. Reads the pins: works without the agent, the cluster and BCC.
    """
    if subject and view == "maps":
        view = "map"
    request = Request(view, subject, pattern, sort_by, raw)
    reader = NodeReader(bpffs, state_dir, cgroup)
    try:
        if once or output is not None:
            listing = Listing(output=output or "table", color=color)
            show(lambda: _looked_twice(reader, request, interval), listing, bpffs)
        else:
            _screen(reader, request, interval, bpffs, state_dir)
    finally:
        reader.close()


def _looked_twice(reader: Reader, request: Request, interval: float) -> tuple[Table, list[Row], AgentFacts]:
    """Rates need two looks; the first one need not bring more than counters."""
    activity = Activity()
    needs = VIEWS[request.view].needs
    rates = any(
        shown.column.field.endswith("PerSecond") for shown in VIEWS[request.view].columns(request, [])
    )
    if rates or needs.events:
        activity.follow(reader.look(Needs(ALWAYS, hooks=needs.hooks, events=needs.events)))
        time.sleep(interval)
    sample = reader.look(needs)
    activity.follow(sample)
    found: Frame = frame(request, sample, activity)
    for note in found.notes:
        click.echo(f"kubesock: {note}", err=True)
    return found.view.table_for(request, found.rows), found.rows, sample.live.agent


def _screen(reader: NodeReader, request: Request, interval: float, bpffs: Path, state_dir: Path) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in (None, "", "dumb"):
        raise UsageError(
            "top: this is no terminal that it could draw on; `kubesock top --once` prints the view"
        )
    # What cannot work at all is told before the screen is taken.
    here = backend_rows(reader.look(Needs(BACKENDS_READ)).live)
    node = next((row["node"] for row in here if row["local"] and row["node"]), os.uname().nodename)
    from pyagent.view.terminal.app import TopApp
    from pyagent.view.terminal.remembered import remembered, state_path
    from pyagent.view.terminal.settings import Settings

    path = state_path(os.environ)
    chosen = remembered(path)
    settings = Settings(
        reader,
        node=node,
        kernel=os.uname().release.partition("-")[0],
        explain=lambda target, client, width: _explained(target, client, width, bpffs, state_dir),
        chosen=chosen,
        marks=Marks(is_utf8()),
        interval=interval,
        first=request,
        state_file=path,
    )
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    app = TopApp(settings)
    app.run(mouse=chosen.mouse)
    if app.failure is not None:
        raise app.failure


def _explained(target: str, client: str, width: int, bpffs: Path, state_dir: Path) -> str:
    from pyagent.cli.explain import explanations
    from pyagent.view.explain_text import explanation_text

    try:
        rows = explanations(target, client, bpffs, state_dir)
    except UsageError:
        if not client:
            raise
        rows = explanations(target, "", bpffs, state_dir)  # the client cannot be found by this name
    return "\n".join(explanation_text(row, wants_color("auto"), width, is_utf8()) for row in rows)
