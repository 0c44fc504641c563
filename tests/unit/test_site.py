"""The documents as a site, and the commands in them: each is one that the command line knows."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pyagent.cli.main import kubesock

ROOT = Path(__file__).resolve().parents[2]
SITE = runpy.run_path(str(ROOT / "build-aux" / "site.py"))
COMMAND = re.compile(r"^    ((?:\.venv/bin/)?kubesock|kubectl|systemctl|vagrant|make)( .*)$", re.MULTILINE)
NEEDS = re.compile(r"cluster|systemd|kube-proxy|control-plane|Vagrant", re.IGNORECASE)
"""What a document says near a command that no test here can run."""


def commands() -> list[tuple[str, str, str]]:
    """(document, command line, the text from the heading above it on) of each indented command."""
    found = []
    for document in SITE["documents"]():
        text = (ROOT / document).read_text(encoding="utf-8")
        for match in COMMAND.finditer(text):
            above = max(0, text.rfind("\n#", 0, match.start()))
            line = re.sub(r"\s+#.*$", "", match[1] + match[2])
            found.append((str(document), line, text[above : match.start()]))
    return found


COMMANDS = commands()
OWN = [(document, line) for document, line, _ in COMMANDS if line.split()[0].endswith("kubesock")]


def test_the_site_is_built_without_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "build-aux" / "site.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    pages = {document.stem for document in SITE["documents"]() if document.parent == Path("docs")}
    assert {"operations", "troubleshooting"} <= pages
    for page in pages:
        assert (ROOT / "build" / "site" / "docs" / f"{page}.html").is_file()


def test_every_document_is_in_the_menu() -> None:
    menu = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE))
    wanted = {str(one) for one in SITE["documents"]() if len(one.parts) < 3}
    assert wanted == menu


@pytest.mark.parametrize(("document", "line"), OWN)
def test_a_kubesock_command_is_one_that_the_command_line_takes(document: str, line: str) -> None:
    words = [word for word in shlex.split(line.split(" >")[0])[1:] if word != "…"]
    context = click.Context(kubesock)
    command: click.Command = kubesock
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            break
        command, words = found, words[1:]
    assert command is not kubesock, f"{document}: {line}"
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known | {"--help"}, f"{document}: {line}"


def test_a_command_that_needs_a_cluster_stands_where_the_document_says_so() -> None:
    unsaid = [
        f"{document}: {line}"
        for document, line, above in COMMANDS
        if line.split()[0] in {"kubectl", "systemctl", "vagrant"} and not NEEDS.search(above)
    ]
    assert not unsaid
