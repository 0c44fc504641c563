"""`kubesock check`: what this machine has and lacks, before anything is changed."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import wants_color
from pyagent.cli.options import bpffs_option, cgroup_option, color_option, json_option, verbose_option
from pyagent.kernel.preflight import Finding, State, findings
from pyagent.view import render
from pyagent.view.tables import Column, Row, Table

FAILED, DEGRADED = 1, 4
_ALARM = {"found": 0, "warning": 1, "unknown": 1, "missing": 2}

CHECKS = Table(
    kind="CheckList",
    columns=(
        Column("CHECK", "check"),
        Column("STATE", "state", alarm=lambda row: _ALARM[row["state"]]),
        Column("NEEDED", "needed"),
        Column("DETAIL", "detail"),
    ),
    identity=("check",),
    name=lambda row: str(row["check"]),
)


@click.command()
@json_option
@bpffs_option
@cgroup_option
@color_option
@verbose_option
@click.pass_context
def check(context: click.Context, output: str, bpffs: Path, cgroup: Path | None, color: str) -> None:
    """What this machine has and lacks, and what to do about it.

    Nothing is changed. Exit code 0: all is there; 4: something optional is missing or unclear; 1: something
    that is needed is missing.
    """
    found = list(findings(bpffs, cgroup))
    rows: list[Row] = [row_of(finding) for finding in found]
    code = exit_code(found)
    if output == "table":
        text, _ = render.table_text(CHECKS.columns, rows, color=wants_color(color))
        click.echo(text, nl=False, color=True)
        click.echo("".join(_remedies(rows)), nl=False)
        click.echo(f"\n{verdict(found)}")
    else:
        document = render.document(CHECKS.kind, rows)
        click.echo(render.json_text(document) if output == "json" else render.yaml_text(document), nl=False)
    context.exit(code)


def row_of(finding: Finding) -> Row:
    return {
        "check": finding.check,
        "state": finding.state.value,
        "needed": finding.needed,
        "detail": finding.detail,
        "remedy": finding.remedy,
    }


def exit_code(found: list[Finding]) -> int:
    """1 if something needed is missing, 4 if anything else is not as it should be, else 0."""
    if any(finding.needed and finding.state is State.MISSING for finding in found):
        return FAILED
    return DEGRADED if any(finding.state is not State.FOUND for finding in found) else 0


def verdict(found: list[Finding]) -> str:
    """The last line."""
    missing = [finding.check for finding in found if finding.needed and finding.state is State.MISSING]
    if missing:
        return f"kubesock cannot run here: {', '.join(missing)}"
    unclear = [finding.check for finding in found if finding.state is not State.FOUND]
    return f"kubesock can run here, with less: {', '.join(unclear)}" if unclear else "kubesock can run here"


def _remedies(rows: list[Row]) -> list[str]:
    """What to do, each thing once."""
    checks: dict[str, list[str]] = {}
    for row in rows:
        if row["remedy"] and row["state"] != State.FOUND.value:
            checks.setdefault(row["remedy"], []).append(row["check"])
    lines = [f"{', '.join(names)}: {render.printable(remedy)}\n" for remedy, names in checks.items()]
    return ["\n", *lines] if lines else []
