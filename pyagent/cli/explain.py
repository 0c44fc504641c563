"""`kubesock explain`: where a dial goes from here, and why."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import is_utf8, show_document, terminal_width, wants_color
from pyagent.cli.options import (
    bpffs_option,
    color_option,
    complete_service,
    json_option,
    state_dir_option,
    verbose_option,
)
from pyagent.model.failures import NoPermission
from pyagent.view.agent_socket import AgentFailed, NoAgent, ask
from pyagent.view.explain import KIND, explain, question_of
from pyagent.view.explain_facts import NodeFacts
from pyagent.view.explain_text import explanation_text
from pyagent.view.tables import Row


@click.command(name="explain")
@click.argument("target", shell_complete=complete_service)
@click.option(
    "--from",
    "client",
    default="",
    metavar="CLIENT",
    help="Who dials: [NAMESPACE/]POD, its address, a name in /run/netns, a path, a process id,"
    " cookie:NUMBER, or host for the node's own processes.  [default: nobody in particular]",
)
@json_option
@bpffs_option
@state_dir_option
@color_option
@verbose_option
def explain_verb(target: str, client: str, output: str, bpffs: Path, state_dir: Path, color: str) -> None:
    """Where a dial goes from this node, and why.

    TARGET is ADDRESS:PORT[/PROTOCOL] or [NAMESPACE/]SERVICE[:PORT][/PROTOCOL]. The maps answer; a living
    agent adds why each endpoint is chosen or not.
    """
    rows = explanations(target, client, bpffs, state_dir)
    if output == "table":
        width = terminal_width()
        texts = [explanation_text(row, wants_color(color), width, is_utf8()) for row in rows]
        click.echo("\n".join(texts), nl=False, color=True)
    elif len(rows) == 1:
        show_document(KIND, rows[0], output)
    else:
        show_document(f"{KIND}List", {"items": rows}, output)


def explanations(target: str, client: str, bpffs: Path, state_dir: Path) -> list[Row]:
    """One for an address, one for each port and family of a Service.

    Raises:
        UsageError: nothing can be found under `target` or `client`.
        PinsMissing, LayoutMismatch, NoPermission, KernelRefused: with the remedy.
    """
    from pyagent.kernel.features import kernel_version
    from pyagent.view.explain_client import find_client
    from pyagent.view.explain_lookup import look_up
    from pyagent.view.explain_maps import EXPLAIN_READ, read_client_maps
    from pyagent.view.explain_question import AddressTarget, dial_of, dials_of, parse_target
    from pyagent.view.pins import read_live

    wanted = parse_target(target)
    live = read_live(bpffs, EXPLAIN_READ)
    clients = read_client_maps(bpffs)
    who = find_client(client, live.raw, clients)
    if isinstance(wanted, AddressTarget):
        dials = [dial_of(wanted, live.raw, who)]
    else:
        dials = dials_of(wanted, live.raw)
    rows = []
    answers: dict[str, NodeFacts | None] = {}
    for dial in dials:
        found = look_up(live, clients, dial, who)
        question = question_of(live, found)
        if question not in answers:
            answers[question] = _ask(state_dir, bpffs, question)
        rows.append(explain(live, found, answers[question], kernel_version() >= (5, 18)))
    return rows


def _ask(state_dir: Path, bpffs: Path, question: str) -> NodeFacts | None:
    """The agent's part; None where no agent can give it, which the explanation says."""
    try:
        return ask(state_dir, bpffs, question, NodeFacts)
    except (NoAgent, NoPermission):
        return None
    except AgentFailed as error:
        click.echo(f"kubesock: {error}", err=True)
        return None
