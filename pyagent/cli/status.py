"""`kubesock status`: one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyagent.cli.listing import duration_text, show_document, wants_color
from pyagent.cli.options import (
    bpffs_option,
    cgroup_option,
    color_option,
    json_option,
    state_dir_option,
    verbose_option,
)
from pyagent.model.failures import NoPermission
from pyagent.view import render
from pyagent.view.agent_socket import AgentFailed, NoAgent, ask_plain
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
SOURCE_COLUMNS = (
    Column("SOURCE", "kind"),
    Column("STATE", "state", alarm=lambda row: 0 if row["state"] == "watching" else 1),
    Column("AGE", "ageSeconds", lambda row: duration_text(row["ageSeconds"])),
    Column("RESOURCE-VERSION", "resourceVersion"),
    Column("DISCONNECTS", "disconnects"),
    Column("ERROR", "error"),
)
SETTING_COLUMNS = (
    Column("SETTING", "setting"),
    Column("VALUE", "value"),
    Column("ORIGIN", "origin", lambda row: f"{row['origin']} {row['from']}".rstrip()),
)


@click.command()
@json_option
@click.option("--config", "settings", is_flag=True, help="Every setting in force, and where it came from.")
@bpffs_option
@state_dir_option
@cgroup_option
@color_option
@verbose_option
@click.pass_context
def status(
    context: click.Context,
    output: str,
    settings: bool,
    bpffs: Path,
    state_dir: Path,
    cgroup: Path | None,
    color: str,
) -> None:
    """One screen: agent, hooks, maps, and what is wrong.

    With --cgroup the hooks must be attached to that one. Exit code 0: all is well; 4: degraded; 3: nothing is
    pinned, or --config and no agent.
    """
    if settings:
        _show_settings(ask_plain(state_dir, bpffs, "/v1/config"), output, wants_color(color))
        return
    sync = _sync(state_dir, bpffs)
    found = read_status(bpffs, cgroup, observing=bool(sync and sync.get("observing")))
    sync = sync if found.live.agent.alive else None
    if output == "table":
        click.echo(screen(found, wants_color(color), sync), nl=False, color=True)
    else:
        show_document("Status", {**status_fields(found), "sync": sync}, output)
    context.exit(DEGRADED if found.problems or (sync is not None and not sync["ready"]) else 0)


def _show_settings(answer: dict[str, Any], output: str, color: bool) -> None:
    if output == "table":
        click.echo(
            render.table_text(SETTING_COLUMNS, answer["settings"], color=color)[0], nl=False, color=True
        )
    else:
        show_document("SettingList", {"items": answer["settings"]}, output)


def _sync(state_dir: Path, bpffs: Path) -> dict[str, Any] | None:
    """What the agent says of itself; None if it says nothing, for the pins tell enough."""
    try:
        return ask_plain(state_dir, bpffs, "/v1/sync")
    except (NoAgent, NoPermission, AgentFailed):
        return None


def screen(status: NodeStatus, color: bool, sync: dict[str, Any] | None = None) -> str:
    """The status as text. `sync`: what the agent says of itself."""
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
        ("outside", ", ".join(one.name for one in status.outside if one.served) or "no device"),
        *_told(status, sync),
    ]
    hooks, _ = render.table_text(HOOK_COLUMNS, fields["hooks"], color=color)
    fills: list[Row] = [row for row in map_rows(status.live) if row["fillPercent"] is not None]
    columns = [column for column in MAPS.columns if not column.wide]
    maps, _ = render.table_text(columns, fills, color=color)
    counted = [{"outcome": name, "count": count} for name, count in fields["outcomes"].items() if count]
    outcomes, _ = render.table_text(OUTCOME_COLUMNS, counted, color=color)
    head = "".join(f"{name:<10}{text}\n" for name, text in lines)
    sources = render.table_text(SOURCE_COLUMNS, sync["sources"], color=color)[0] if sync else ""
    return "\n".join(part for part in (head, sources, hooks, maps, outcomes) if part)


def _told(status: NodeStatus, sync: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Lines about readiness and what is wrong."""
    lines = [("problem", problem) for problem in status.problems]
    if sync is None:
        if status.live.agent.alive:
            lines.append(("agent", "does not answer on its socket: is --state-dir the agent's?"))
    else:
        lines += (
            [("ready", "yes, observing: nothing is attached" if sync.get("observing") else "yes")]
            if sync["ready"]
            else [("ready", f"no: {'; '.join(sync['notReadyBecause'])}")]
        )
        if sync["lastPlan"]["error"]:
            lines.append(("problem", f"the maps could not be written: {sync['lastPlan']['error']}"))
        lines += [("no room", text) for text in sync["noRoom"]]
        lines += [("problem", text) for text in sync["problems"]]
    return [(name, render.printable(text)) for name, text in lines]
