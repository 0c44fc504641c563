"""`kubesock connections`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from pyagent.cli.listing import show
from pyagent.cli.options import Listing, bpffs_option, complete_service, list_options
from pyagent.kernel.namespace_owners import owners, processes
from pyagent.view.connection_table import (
    CONNECTIONS,
    CONNECTIONS_READ,
    OUTSIDE,
    WITH_PROCESSES,
    chooser,
    connection_rows,
    flow_connections,
    is_draining,
    of_pod,
)
from pyagent.view.live import AgentFacts
from pyagent.view.pins import read_live
from pyagent.view.socket_walk import SHARE, SocketWalker, pace_text
from pyagent.view.tables import Row, Table


@click.command()
@click.option(
    "--service",
    default="",
    shell_complete=complete_service,
    help="Only of [NAMESPACE/]NAME[:PORT][/PROTOCOL].",
)
@click.option("--backend", default="", metavar="ADDRESS[:PORT]", help="Only those that use this backend.")
@click.option("--pod", default="", metavar="[NAMESPACE/]NAME", help="Only of this pod or network namespace.")
@click.option("--draining", is_flag=True, help="Only those on a backend that is terminating or removed.")
@click.option("--processes", "with_processes", is_flag=True, help="Also who has each open, from /proc.")
@list_options()
@bpffs_option
def connections(
    service: str,
    backend: str,
    pod: str,
    draining: bool,
    with_processes: bool,
    listing: Listing,
    bpffs: Path,
) -> None:
    """Every open socket that was translated: who dialled which Service, and got which backend.

    Also connections from outside the cluster, whose network namespace is called `outside`.

    TCP and connected UDP of all network namespaces of this node. Processes and pods are found where their
    pids are visible (on the machine itself, or with hostPID).
    """
    walker = SocketWalker(bpffs)
    told = False

    def read() -> tuple[Table, list[Row], AgentFacts]:
        nonlocal told
        walk = walker.look()
        if walk.error is not None:
            raise walk.error
        if listing.watch and not told and walk.seconds / SHARE > listing.interval:
            told = True
            click.echo(f"kubesock: {pace_text(walk)}", err=True)
        live = read_live(bpffs, CONNECTIONS_READ)
        choose = chooser(live, service, backend)
        sockets = list(filter(choose, walk.found))
        found = {0: OUTSIDE, **owners({one.netns for one in sockets})}
        opened = {netns: processes(owner) for netns, owner in found.items()} if with_processes else None
        rows = connection_rows(
            live._replace(now=live.now + walk.taken - time.monotonic()), sockets, found, opened
        )
        rows += connection_rows(live, filter(choose, flow_connections(live.flows)), found, opened)
        rows = [row for row in rows if (not pod or of_pod(row, pod)) and (not draining or is_draining(row))]
        return WITH_PROCESSES if with_processes else CONNECTIONS, rows, live.agent

    show(read, listing, bpffs)
