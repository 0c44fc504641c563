"""`kubesock status`: one screen."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import duration_text, show_document, wants_color
from pyagent.cli.options import bpffs_option, cgroup_option, color_option, json_option, verbose_option
from pyagent.view import render
from pyagent.view.map_table import MAPS, map_rows
from pyagent.view.node_status import NodeStatus, read_status, status_fields
from pyagent.view.tables import Column, Row

DEGRADED = 4

HOOK_COLUMNS = (
    Column("HOOK", "hook"),
    Column("ATTACHED", "attached", alarm=lambda row: 0 if row["attached"] else 2),
    Column(
        "EFFECTIVE",
        "effective",
        lambda row: "unknown" if row["effective"] is None else "yes" if row["effective"] else "no",
        alarm=lambda row: {None: 1, True: 0, False: 2}[row["effective"]],
    ),
    Column("PROGRAM", "program"),
    Column("LINK", "link"),
    Column("CGROUP", "cgroup"),
)
OUTCOME_COLUMNS = (Column("OUTCOME", "outcome"), Column("COUNT", "count"))


@click.command()
@json_option
@bpffs_option
@cgroup_option
@color_option
@verbose_option
@click.pass_context
def status(context: click.Context, output: str, bpffs: Path, cgroup: Path | None, color: str) -> None:
    """One screen: agent, hooks, maps, and what is wrong.

    With --cgroup the hooks must be attached to that one. Exit code 0: all is well; 4: degraded; 3: nothing is
    pinned.
    """
    found = read_status(bpffs, cgroup)
    if output == "table":
        click.echo(screen(found, wants_color(color)), nl=False, color=True)
    else:
        show_document("Status", status_fields(found), output)
    context.exit(DEGRADED if found.problems else 0)


def screen(status: NodeStatus, color: bool) -> str:
    """The status as text."""
    fields = status_fields(status)
    agent = status.live.agent
    started = f"started {duration_text(agent.age)} ago" if agent.age is not None else "never started"
    who = f"running, pid {agent.pid}" if agent.pid else "running" if agent.alive else "not running"
    lines = [
        ("status", fields["status"]),
        ("agent", f"{who}, {started}"),
        ("pins", f"{fields['pins']}, layout {fields['layout']}, program {fields['programTag']}"),
        (
            "services",
            f"{fields['servicePorts']} service ports, {fields['servicePortsWithoutBackends']} without"
            f" backends, {fields['frontends']} frontends",
        ),
        *(("problem", render.printable(problem)) for problem in status.problems),
    ]
    hooks, _ = render.table_text(HOOK_COLUMNS, fields["hooks"], color=color)
    fills: list[Row] = [row for row in map_rows(status.live) if row["fillPercent"] is not None]
    columns = [column for column in MAPS.columns if not column.wide]
    maps, _ = render.table_text(columns, fills, color=color)
    counted = [{"outcome": name, "count": count} for name, count in fields["outcomes"].items() if count]
    outcomes, _ = render.table_text(OUTCOME_COLUMNS, counted, color=color)
    head = "".join(f"{name:<10}{text}\n" for name, text in lines)
    return "\n".join((head, hooks, maps, outcomes))
