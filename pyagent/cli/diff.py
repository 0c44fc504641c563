"""`kubesock diff`: in what the kernel's maps differ from what they should hold."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from pyagent.cli.listing import show_document
from pyagent.cli.options import bpffs_option, json_option, state_dir_option, verbose_option
from pyagent.model.failures import KubesockError, NoPermission
from pyagent.view import render
from pyagent.view.agent_socket import NoAgent, ask

DIFFERS, NO_AGENT, FAILED = 1, 3, 5


class Difference(msgspec.Struct, frozen=True):
    """As the agent tells it."""

    subject: str
    kernel: str
    desired: str


class Differences(msgspec.Struct, frozen=True):
    """`count` may be more than are listed."""

    differences: list[Difference] = []
    count: int = 0


@click.command()
@json_option
@bpffs_option
@state_dir_option
@verbose_option
@click.pass_context
def diff(context: click.Context, output: str, bpffs: Path, state_dir: Path) -> None:
    """In what the kernel's maps differ from what they should hold, a line each.

    The agent reads every map anew and compares. Exit code 0: they are the same; 1: they differ; 3: no agent
    runs, and only it knows what is desired; 5: failed.
    """
    try:
        found = ask(state_dir, bpffs, "/v1/diff", Differences)
    except (NoAgent, NoPermission) as error:
        click.echo(f"kubesock: {error}; only the agent knows what is desired", err=True)
        context.exit(NO_AGENT)
    except (KubesockError, OSError) as error:
        click.echo(f"kubesock: {error}", err=True)
        context.exit(FAILED)
    if output == "table":
        click.echo(text(found), nl=False)
    else:
        items = [msgspec.to_builtins(one) for one in found.differences]
        show_document("DifferenceList", {"count": found.count, "items": items}, output)
    context.exit(DIFFERS if found.count else 0)


def text(found: Differences) -> str:
    """A line for each difference."""
    lines = [
        f"{one.subject}: the kernel has {one.kernel}, and should have {one.desired}"
        for one in found.differences
    ]
    if found.count > len(lines):
        lines.append(f"… and {found.count - len(lines)} more")
    return "".join(f"{render.printable(line)}\n" for line in lines)
