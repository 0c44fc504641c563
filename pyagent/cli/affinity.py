"""`kubesock affinity`."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import show
from pyagent.cli.options import Listing, bpffs_option, list_options
from pyagent.view.affinity_table import AFFINITIES, AFFINITY_READ, affinity_rows
from pyagent.view.live import AgentFacts
from pyagent.view.pins import read_live
from pyagent.view.tables import Row, Table


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also entries that decide nothing any more.")
@list_options()
@bpffs_option
def affinity(everything: bool, listing: Listing, bpffs: Path) -> None:
    """Which clients stay on which backend, of Services with sessionAffinity ClientIP.

    A client is a network namespace (a pod), shown by its cookie.
    """

    def read() -> tuple[Table, list[Row], AgentFacts]:
        live = read_live(bpffs, AFFINITY_READ)
        rows = [row for row in affinity_rows(live) if everything or row["state"] == "active"]
        return AFFINITIES, rows, live.agent

    show(read, listing, bpffs)
