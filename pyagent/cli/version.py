"""`kubesock version`."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import click

from pyagent.cli.listing import show_document
from pyagent.cli.options import json_option, verbose_option
from pyagent.datapath.layout import LAYOUT_VERSION
from pyagent.kernel.preflight import bcc_version


@click.command()
@json_option
@verbose_option
def version(output: str) -> None:
    """Versions of kubesock, the map layout, BCC and the kernel."""
    fields = version_fields()
    if output != "table":
        show_document("Version", fields, output)
        return
    for name, value in fields.items():
        click.echo(f"{name:<14}{value if value is not None else 'not installed'}")


def version_fields() -> dict[str, object]:
    """What `-o json` shows."""
    system = os.uname()
    return {
        "kubesock": kubesock_version(),
        "layout": LAYOUT_VERSION,
        "bcc": bcc_version() or None,
        "kernel": system.release,
        "architecture": system.machine,
    }


def kubesock_version() -> str:
    """Of the installed package, else of the source tree."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("kubesock")
    except PackageNotFoundError:
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        try:
            return str(tomllib.loads(project.read_text())["project"]["version"])
        except (OSError, KeyError, tomllib.TOMLDecodeError):
            return "unknown"
