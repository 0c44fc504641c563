"""`kubesock maps`."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import show
from pyagent.cli.options import Listing, bpffs_option, list_options
from pyagent.model.failures import UsageError
from pyagent.view.live import AgentFacts
from pyagent.view.map_dump import dump_rows, dump_table
from pyagent.view.map_entries import ENTRIES
from pyagent.view.map_table import MAPS, map_rows
from pyagent.view.pins import read_live
from pyagent.view.tables import Row, Table


def _complete_map(_context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    return [name for name in ENTRIES if name.startswith(text)]


@click.command()
@click.argument("name", default="", shell_complete=_complete_map)
@click.option("--raw", is_flag=True, help="With NAME: keys and values in hexadecimal.")
@list_options(namespaced=False)
@bpffs_option
def maps(name: str, raw: bool, listing: Listing, bpffs: Path) -> None:
    """The maps with their fill and memory; with NAME what that map holds, decoded."""
    if raw and not name:
        raise UsageError("--raw: of which map? give its NAME; `kubesock maps` lists them")

    def read() -> tuple[Table, list[Row], AgentFacts]:
        live = read_live(bpffs, facts=not name)
        if not name:
            return MAPS, map_rows(live), live.agent
        rows = dump_rows(live, name, raw)
        return dump_table(rows), rows, live.agent

    show(read, listing, bpffs)
