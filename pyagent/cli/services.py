"""`kubesock services`."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import show, unknown_service
from pyagent.cli.options import Listing, bpffs_option, complete_service, list_options
from pyagent.view.live import AgentFacts
from pyagent.view.pins import read_live
from pyagent.view.service_table import SERVICES, SERVICES_READ, matches, service_rows
from pyagent.view.tables import Row, Table


@click.command()
@click.argument("service", default="", shell_complete=complete_service)
@list_options()
@bpffs_option
def services(service: str, listing: Listing, bpffs: Path) -> None:
    """Services with frontends, backends and counts.

    SERVICE is [NAMESPACE/]NAME[:PORT][/PROTOCOL]; without it all are listed, a line for each port.
    """

    def read() -> tuple[Table, list[Row], AgentFacts]:
        live = read_live(bpffs, SERVICES_READ)
        rows = service_rows(live)
        if service:
            rows = [row for row in rows if matches(row, service)]
            if not rows and not listing.watch:
                raise unknown_service(service)
        return SERVICES, rows, live.agent

    show(read, listing, bpffs)
