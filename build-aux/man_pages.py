"""Writes docs/man from the command tree: `make man`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from pyagent.cli.main import PROGRAM, VERBS, kubesock
from pyagent.cli.version import kubesock_version

FOLDER = Path("docs/man")
TITLE = "kubesock manual"
EXIT_CODES = (
    ("0", "Fine."),
    ("1", "Failed; of diff: the maps differ."),
    ("2", "Wrong usage."),
    ("3", "Nothing is pinned there, no permission, or no agent answers where one is needed."),
    ("4", "Degraded: of status, check and migrate."),
    ("5", "diff failed."),
    ("130", "Interrupted."),
)
ENVIRONMENT = (
    ("KUBECONFIG", "Credentials of run and migrate, if nothing else names them."),
    ("NODE_NAME", "Name of this node, for run."),
    ("NO_COLOR", "No colours, whatever its value, unless it is empty."),
)
FILES = (
    ("/sys/fs/bpf/kubesock", "Programs, maps and links."),
    ("/var/lib/kubesock", "The agent's state and its socket."),
)


def pages() -> dict[str, str]:
    """File name -> text."""
    found = {f"{PROGRAM}.1": _page([], _overview())}
    for name in VERBS:
        context = click.Context(kubesock, info_name=PROGRAM, **kubesock.context_settings)
        command = kubesock.get_command(context, name)
        if command is None:
            raise LookupError(f"{name}: listed, and cannot be loaded")
        found[f"{PROGRAM}-{name}.1"] = _page([name], _verb(command, context))
    return found


def _page(path: list[str], body: Iterator[str]) -> str:
    title = "-".join([PROGRAM, *path])
    version = re.sub(r"[.+]?(dev|post).*", "", kubesock_version())
    head = f'.TH "{title.upper()}" 1 "" "{PROGRAM} {version}" "{TITLE}"'
    return "\n".join(['.\\" Made by `make man` from the command line.', head, *body]) + "\n"


def _overview() -> Iterator[str]:
    first, *rest = _paragraphs(kubesock.help or "")
    yield from (".SH NAME", f"{PROGRAM} \\- {_text(first.rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {PROGRAM}", "\\fIverb\\fR [\\fIoption\\fR ...]")
    yield ".SH DESCRIPTION"
    for paragraph in rest:
        if not paragraph.startswith("Exit codes"):
            yield from (_text(paragraph), ".PP")
    yield (f"Each verb has a page of its own, such as \\fB{PROGRAM}\\-services\\fR(1).")
    yield ".SH VERBS"
    for name, verb in VERBS.items():
        yield from (".TP", f".B {_text(name)}", _text(verb.help))
    yield from _list("EXIT STATUS", EXIT_CODES)
    yield from _list("ENVIRONMENT", ENVIRONMENT)
    yield from _list("FILES", FILES)
    yield from _see_also(f"{PROGRAM}-{name}" for name in VERBS)


def _verb(command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=command.name, parent=parent)
    first, *rest = _paragraphs(command.help or "")
    yield from (".SH NAME", f"{PROGRAM}\\-{_text(str(command.name))} \\- {_text(first.rstrip('.'))}")
    yield from (".SH SYNOPSIS", f".B {PROGRAM} {_text(str(command.name))}")
    yield _text(" ".join(command.collect_usage_pieces(context)))
    yield from (".SH DESCRIPTION", _text(first))
    for paragraph in rest:
        yield from (".PP", _text(paragraph))
    yield ".SH OPTIONS"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            flags, text = record
            yield from (".TP", f".B {_text(flags)}", _text(text) or "\\&")
    yield from _list("EXIT STATUS", EXIT_CODES)
    yield from _see_also([PROGRAM])


def _list(title: str, rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for name, text in rows:
        yield from (".TP", f".B {_text(name)}", _text(text))


def _see_also(names: Iterator[str] | list[str]) -> Iterator[str]:
    *others, last = (f"\\fB{_text(name)}\\fR(1)" for name in names)
    yield from (".SH SEE ALSO", *(f"{name}," for name in others), last)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in cleandoc(text).split("\n\n")]


def _text(text: str) -> str:
    """As roff takes it: a hyphen that can be typed again, no line that begins with a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("`", "\\(ga")
    text = text.replace("'", "\\(aq") if text.startswith("'") else text
    return f"\\&{text}" if text.startswith(".") else text


def write(folder: Path = FOLDER) -> None:
    """Write every page, and remove those of verbs that are gone."""
    made = pages()
    for old in folder.glob("*.1"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write()
