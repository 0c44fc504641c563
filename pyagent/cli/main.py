"""The command line `kubesock`: verbs, loaded when they are called, and errors as one line.

A verb is a click command in a module of its own; nothing but that module is imported for it, so that
`kubesock services` does not wait for what `kubesock run` needs.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click

from pyagent.cli.options import Invocation, verbose_option
from pyagent.model.failures import KubesockError

PROGRAM = "kubesock"
COMPLETION_VARIABLE = "_KUBESOCK_COMPLETE"
INTERRUPTED = 130


class Verb(NamedTuple):
    """Where a verb is, as `module:function`, and its line in `kubesock --help`."""

    place: str
    help: str


VERBS = {
    "run": Verb("pyagent.cli.run:run", "The agent: keeps the maps equal to Services and EndpointSlices."),
    "status": Verb("pyagent.cli.status:status", "One screen: agent, hooks, maps."),
    "services": Verb("pyagent.cli.services:services", "Services with frontends, backends and counts."),
    "backends": Verb("pyagent.cli.backends:backends", "Backends with state and how often each was chosen."),
    "connections": Verb(
        "pyagent.cli.connections:connections", "Open sockets: who dialled what, and got which."
    ),
    "events": Verb("pyagent.cli.events:events", "What happens: translations, refusals, changes."),
    "top": Verb("pyagent.cli.top:top", "A live screen: Services, backends, connections, maps, hooks."),
    "affinity": Verb("pyagent.cli.affinity:affinity", "Which clients stay on which backend."),
    "explain": Verb("pyagent.cli.explain:explain_verb", "Where a dial goes from this node, and why."),
    "maps": Verb("pyagent.cli.maps:maps", "The maps and their fill; `maps NAME`: what one holds."),
    "check": Verb("pyagent.cli.check:check", "What this machine has and lacks, and what to do about it."),
    "diff": Verb("pyagent.cli.diff:diff", "In what the maps differ from what they should hold."),
    "diag": Verb("pyagent.cli.diag:diag", "A support bundle: one file, without secrets."),
    "migrate": Verb("pyagent.cli.migrate:migrate", "What changes without kube-proxy; what both serve."),
    "cleanup": Verb("pyagent.cli.cleanup:cleanup", "Detach the hooks and remove every pin."),
    "demo": Verb("pyagent.cli.demo:demo", "A small cluster on this machine, with traffic."),
    "completion": Verb("pyagent.cli.completion:completion", "The completion script for a shell."),
    "version": Verb("pyagent.cli.version:version", "Versions of kubesock, the map layout, BCC, the kernel."),
}
"""In the order of `kubesock --help`."""


class LazyGroup(click.Group):
    """A group whose verbs are imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click names it
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of verbs, without importing any of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=LazyGroup, context_settings=_SETTINGS)
@verbose_option
def kubesock() -> None:
    """Kubernetes Services translated at connect() and sendmsg(), by eBPF on a cgroup.

    Exit codes: 0 fine, 1 failed, 2 usage, 3 nothing pinned or no permission, 4 degraded (status, check),
    5 diff failed.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    if COMPLETION_VARIABLE in os.environ:
        return _complete()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name may not exist in the terminal's encoding
    invocation = Invocation()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments), invocation)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read has enough. Python's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except click.ClickException as error:
        return _usage(error)
    except KubesockError as error:
        return _fail(str(error), error.exit_code, invocation)
    except OSError as error:
        code = 3 if error.errno in (errno.EPERM, errno.EACCES) else 1
        where = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return _fail(f"{where}{f'; {_permission_remedy()}' if code == 3 else ''}", code, invocation)
    except Exception as error:  # noqa: BLE001  the last one to see it: shown, not swallowed
        hint = "" if invocation.verbose else "; run again with -v for the details"
        return _fail(f"unexpected {type(error).__name__}: {error}{hint}", 1, invocation)


def _run(arguments: list[str], invocation: Invocation) -> int:
    try:
        with kubesock.make_context(PROGRAM, arguments, obj=invocation) as context:
            kubesock.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else _say(end.code)
    return 0


def _permission_remedy() -> str:
    if os.geteuid() != 0:
        return "run as root"
    return "a capability, seccomp or lockdown forbids it to root too: `kubesock check` tells which"


def _say(text: object) -> int:
    click.echo(text, err=True)
    return 1


def _usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    text = " ".join(error.format_message().split()).rstrip(".")
    hint = f"; see `{path} --help`" if isinstance(error, click.UsageError) else ""
    click.echo(f"{PROGRAM}: {_one_line(text)}{hint}", err=True)
    return error.exit_code


def _fail(text: str, code: int, invocation: Invocation) -> int:
    if invocation.verbose:
        import traceback

        click.echo(traceback.format_exc(), err=True, nl=False)
    click.echo(f"{PROGRAM}: {_one_line(text)}", err=True)
    return code


def _one_line(text: str) -> str:
    """Errors quote files and objects: no control characters, one line."""
    text = " | ".join(line.strip() for line in text.splitlines() if line.strip())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _complete() -> int:
    from click.shell_completion import shell_complete

    from pyagent.cli.shells import register

    register()
    instruction = os.environ[COMPLETION_VARIABLE]
    return shell_complete(kubesock, {}, PROGRAM, COMPLETION_VARIABLE, instruction)
