"""`kubesock backends`."""

from __future__ import annotations

from pathlib import Path

import click

from pyagent.cli.listing import show, unknown_service
from pyagent.cli.options import Listing, bpffs_option, complete_service, list_options
from pyagent.view.backend_table import BACKENDS, BACKENDS_READ, backend_rows, matches_service
from pyagent.view.live import AgentFacts
from pyagent.view.names import service_port_names
from pyagent.view.pins import read_live
from pyagent.view.tables import Row, Table


@click.command()
@click.argument("service", default="", shell_complete=complete_service)
@list_options()
@bpffs_option
def backends(service: str, listing: Listing, bpffs: Path) -> None:
    """Backends with state, place and how often each was chosen.

    SERVICE is [NAMESPACE/]NAME[:PORT][/PROTOCOL]; without it those of all are listed.
    """

    def read() -> tuple[Table, list[Row], AgentFacts]:
        live = read_live(bpffs, BACKENDS_READ)
        rows = backend_rows(live, service)
        if service and not rows and not listing.watch:
            names = service_port_names(live.raw.names)
            if not any(matches_service(name, service) for name in names):
                raise unknown_service(service)
        return BACKENDS, rows, live.agent

    show(read, listing, bpffs)
