"""`kubesock diag`: all that somebody needs who cannot log in here, in one file, without secrets."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from pyagent.cli.check import CHECKS, row_of
from pyagent.cli.options import bpffs_option, cgroup_option, state_dir_option, verbose_option
from pyagent.cli.version import version_fields
from pyagent.kernel.lock_owner import LockOwner, lock_owner
from pyagent.kernel.namespace_owners import owners
from pyagent.kernel.preflight import findings
from pyagent.model.failures import KubesockError
from pyagent.view import render
from pyagent.view.affinity_table import AFFINITIES, affinity_rows
from pyagent.view.agent_socket import ask_plain
from pyagent.view.backend_table import BACKENDS, backend_rows
from pyagent.view.bundle import Bundle, as_json
from pyagent.view.connection_table import CONNECTIONS, connection_rows
from pyagent.view.map_dump import dump_rows, dump_table
from pyagent.view.map_entries import ENTRIES
from pyagent.view.map_table import MAPS, map_rows
from pyagent.view.node_facts import machine_facts
from pyagent.view.node_status import read_status, status_fields
from pyagent.view.pins import read_live
from pyagent.view.service_table import SERVICES, service_rows
from pyagent.view.socket_walk import SocketWalker
from pyagent.view.tables import Row, Table

ROWS = 10_000
"""At most of one list."""

README = """\
A support bundle of kubesock, made by `kubesock diag`.

It holds: versions, checks of the machine, state of hooks and maps, the contents of the maps (names of
Services and nodes, addresses), open translated connections, what the agent says of itself (settings, sources,
changes), its metrics, its log where systemd keeps it, facts about kernel and mounts.

It holds no credentials: kubeconfig files, tokens and environments are not read, and what looks like a key, a
certificate, a token or a password in any text
is replaced by [removed]. Names and addresses are yours to judge.
"""

Part = tuple[str, Callable[[], str]]


@click.command()
@click.option(
    "-o",
    "--output",
    default="",
    metavar="FILE",
    help="Where to write; - is standard output.  [default: kubesock-diag-HOST-TIME.tar.gz here]",
)
@bpffs_option
@state_dir_option
@cgroup_option
@verbose_option
def diag(output: str, bpffs: Path, state_dir: Path, cgroup: Path | None) -> None:
    """A support bundle: one file with all that tells how this node is served, without secrets.

    What cannot be collected is named in errors.txt of the bundle; the rest is there all the same.
    """
    now = time.time()
    name = f"kubesock-diag-{os.uname().nodename}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    if output == "-":
        if sys.stdout.isatty():
            raise click.UsageError("-o -: standard output is a terminal; redirect it to a file")
        collect(sys.stdout.buffer, name, now, bpffs, state_dir, cgroup)
        return
    path = Path(output or f"{name}.tar.gz")
    try:
        # Not over another's file, and nobody else's to read.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            errors = collect(target, name, now, bpffs, state_dir, cgroup)
    except FileExistsError:
        raise KubesockError(f"{path}: exists already; give another --output") from None
    click.echo(path)
    if errors:
        click.echo(f"kubesock: {len(errors)} parts could not be collected, see errors.txt in it", err=True)


def collect(
    target: IO[bytes], name: str, now: float, bpffs: Path, state_dir: Path, cgroup: Path | None
) -> list[str]:
    """Write a bundle; what could not be collected, a line each."""
    bundle = Bundle(target, name, now)
    bundle.add("README.txt", lambda: README)
    for part, make in parts(bpffs, state_dir, cgroup):
        bundle.add(part, make)
    bundle.close()
    return bundle.errors


def parts(bpffs: Path, state_dir: Path, cgroup: Path | None) -> Iterator[Part]:
    """Name of each text, and what makes it."""
    yield "version.json", lambda: as_json(version_fields())
    yield "check.json", lambda: _list(CHECKS, [row_of(finding) for finding in findings(bpffs, cgroup)])
    yield "status.json", lambda: as_json(status_fields(read_status(bpffs, cgroup)))
    yield from _lists(bpffs)
    for path in ("sync", "config", "journal", "diff"):
        yield f"agent/{path}.json", lambda path=path: as_json(ask_plain(state_dir, bpffs, f"/v1/{path}"))  # type: ignore[misc]
    yield "agent/metrics.txt", lambda: _metrics(ask_plain(state_dir, bpffs, "/v1/config"))
    yield from machine_facts(bpffs, _agent(bpffs).pid)


def _lists(bpffs: Path) -> Iterator[Part]:
    yield "services.json", lambda: _list(SERVICES, service_rows(read_live(bpffs)))
    yield "backends.json", lambda: _list(BACKENDS, backend_rows(read_live(bpffs)))
    yield "affinity.json", lambda: _list(AFFINITIES, affinity_rows(read_live(bpffs)))
    yield "maps.json", lambda: _list(MAPS, map_rows(read_live(bpffs, facts=True)))
    yield "connections.json", lambda: _connections(bpffs)
    for name in ENTRIES:
        yield f"maps/{name}.json", lambda name=name: _dump(bpffs, name)  # type: ignore[misc]


def _list(table: Table, rows: list[Row]) -> str:
    return as_json(render.document(table.kind, rows[:ROWS], {"total": len(rows)}))


def _dump(bpffs: Path, name: str) -> str:
    rows = dump_rows(read_live(bpffs), name, limit=ROWS)
    return as_json(render.document(dump_table(rows).kind, rows))


def _connections(bpffs: Path) -> str:
    walk = SocketWalker(bpffs).look(keep=ROWS)
    if walk.error is not None:
        raise walk.error
    found = connection_rows(read_live(bpffs), walk.found, owners({one.netns for one in walk.found}))
    return as_json(render.document(CONNECTIONS.kind, found, {"total": walk.total}))


def _metrics(config: dict[str, Any]) -> str:
    settings = {row["setting"]: row["value"] for row in config["settings"]}
    host, _, port = settings.get("metrics-bind-address", "").rpartition(":")
    if not port.isdigit() or port == "0":
        return "off\n"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104  dialled
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode("utf-8", "replace")
    finally:
        connection.close()


def _agent(bpffs: Path) -> LockOwner:
    try:
        return lock_owner(bpffs)
    except OSError:
        return LockOwner(False)
