"""`kubesock completion`: a script that makes a shell complete verbs, flags and names of Services."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from pyagent.cli.main import COMPLETION_VARIABLE, PROGRAM, kubesock
from pyagent.cli.options import verbose_option
from pyagent.cli.shells import register

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@verbose_option
def completion(shell: str) -> None:
    """The completion script for a shell.

    For example, in ~/.bashrc: source <(kubesock completion bash)
    """
    register()
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  click knows all of SHELLS
    # Not kind.source(): for bash that runs the bash of this machine, which need not be the reader's.
    script = ShellComplete.source(kind(kubesock, {}, PROGRAM, COMPLETION_VARIABLE))
    click.echo(script)
