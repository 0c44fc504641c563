"""Services, backends and connections, with what happens on them now."""

from __future__ import annotations

from collections.abc import Sequence

from pyagent.datapath.decoded import decode_name
from pyagent.datapath.encoded import name_key
from pyagent.datapath.layout import NameKind
from pyagent.view.backend_table import BACKENDS, BACKENDS_READ, backend_rows
from pyagent.view.connection_table import (
    CONNECTIONS,
    CONNECTIONS_READ,
    OUTSIDE,
    age_text,
    client,
    connection_rows,
    flow_connections,
    state_alarm,
    uses_backend,
)
from pyagent.view.live import backend_columns
from pyagent.view.names import is_service, service_port_names
from pyagent.view.service_table import SERVICES, SERVICES_READ, port_title, service_name
from pyagent.view.socket_walk import pace_text
from pyagent.view.tables import Column, Row
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.sample import KEEP_SOCKETS, MOST_WITH_PROCESSES, Needs, Sample
from pyagent.view.terminal.view_kinds import Found, Request, Shown, View, fixed, rate_text

HISTORY_WIDTH = 10
OLD_SECONDS = 2.0
"""From this age on sockets are not shown as if they were of now."""

SHARE_WIDTH = 10


def _service_rows(sample: Sample, activity: Activity, _request: Request) -> Found:
    rows = activity.services.rows(sample.live)
    counts = _open_sockets(sample) if sample.walk.error is None else None
    quiet = 0.0 if activity.known else None
    for row in rows:
        identifier = row["id"]
        row["service"] = f"{row['namespace']}/{port_title(row)}"
        row["newPerSecond"] = activity.ports.get(identifier, quiet)
        row["refusedPerSecond"] = activity.refused.get(identifier, quiet)
        row["live"] = counts.get(identifier, 0) if counts is not None else None
        row["history"] = activity.history(identifier)
    return Found(rows, _note(sample))


def _open_sockets(sample: Sample) -> dict[int, int]:
    """Sockets by service-port id; those of a service port that had the id before do not count."""
    found = {}
    for (identifier, incarnation), count in sample.walk.ports.items():
        key = name_key(NameKind.SERVICE_PORT, identifier)
        name = decode_name(key, sample.live.raw.names.get(key, b""))
        if name is not None and name.incarnation == incarnation:
            found[identifier] = count
    return found


def _note(sample: Sample) -> str:
    walk = sample.walk
    if walk.error is not None:
        return f"open sockets are not known: {walk.error}"
    age = sample.taken - walk.taken
    return f"open sockets of {age:.0f} s ago: {pace_text(walk)}" if age >= OLD_SECONDS else ""


def _draw_history(row: Row, marks: Marks) -> str:
    return marks.history(row["history"], HISTORY_WIDTH)


def _service_detail(row: Row, marks: Marks) -> list[str]:
    affinity = f", affinity {row['affinitySeconds']} s" if row["affinitySeconds"] else ""
    about = f"{row['type']}, {row['family']}, {row['protocol']}, policy {row['policy']}{affinity}"
    elsewhere = ", ".join(row["remoteFrontends"])
    remote = f" {marks.dot} on other nodes {elsewhere}" if elsewhere else ""
    refused = f" {marks.dot} refused {row['refused']}" if row["refused"] else ""
    return [
        f"{service_name(row)} {marks.dot} {about}",
        f"frontends {', '.join(row['frontends']) or 'none'}{remote}",
        f"backends {row['ready']} ready, {row['terminating']} terminating, {row['local']} on this node"
        f"{_recent(row, marks)} {marks.dot} chosen {row['chosen']}{refused}",
    ]


def _recent(row: Row, marks: Marks) -> str:
    """New connections per second: now, and the mean of the last looks."""
    history = row["history"]
    if not history:
        return ""
    now, ten, all_of_them = (rate_text(sum(history[-n:]) / len(history[-n:])) for n in (1, 10, len(history)))
    return f" {marks.dot} new/s {now}, of 10 looks {ten}, of {len(history)} {all_of_them}"


def _first_frontends(row: Row) -> str:
    shown = row["frontends"]
    return f"{shown[0]} +{len(shown) - 1}" if len(shown) > 1 else shown[0] if shown else "-"


SERVICES_VIEW = View(
    key="services",
    title="Services",
    about="what can be dialled, and how often it is",
    needs=Needs(SERVICES_READ, sockets=0),
    rows=_service_rows,
    columns=fixed(
        Shown(Column("SERVICE", "service"), cut=True),
        Shown(Column("PROTOCOL", "protocol"), 6),
        Shown(Column("TYPE", "type"), 7),
        Shown(Column("FRONTENDS", "frontends", _first_frontends), 5, cut=True, least=16),
        Shown(SERVICES.columns[5]),
        Shown(Column("TERM", "terminating", alarm=lambda row: 1 if row["terminating"] else 0), 4),
        Shown(Column("POLICY", "policy"), 8, cut=True),
        Shown(Column("NEW/S", "newPerSecond", lambda row: rate_text(row["newPerSecond"])), 1),
        Shown(Column("HISTORY", "history"), 3, draw=_draw_history, only_drawn=True),
        Shown(Column("LIVE", "live"), 2),
        Shown(Column("REFUSED", "refused", alarm=lambda row: 1 if row["refusedPerSecond"] else 0), 4),
        Shown(Column("CHOSEN", "chosen"), 9),
        Shown(Column("FAMILY", "family"), 10),
    ),
    table=SERVICES._replace(kind="ServiceActivityList"),
    enter="backends",
    subject=service_name,
    explains=lambda row: (service_name(row), ""),
    detail=_service_detail,
)


def _backend_rows(sample: Sample, activity: Activity, request: Request) -> Found:
    rows = backend_rows(sample.live, request.subject)
    counts = sample.walk.backends if sample.walk.error is None else None
    incarnations = backend_columns(sample.live).incarnations
    for row in rows:
        identifier = row["id"]
        word = identifier << 32 | incarnations[identifier]
        row["newPerSecond"] = activity.backends.get(identifier, 0.0) if activity.known else None
        row["live"] = counts.get(word, 0) if counts is not None else None
    note = _note(sample)
    if request.subject and not rows:
        known = any(
            is_service(request.subject, port.namespace, port.name, port.port, port.protocol)
            for port in service_port_names(sample.live.raw.names)
        )
        note = f"{request.subject} has no backends" if known else f"{request.subject} is gone"
    return Found(rows, note)


def _draw_share(row: Row, marks: Marks) -> str:
    if row["share"] is None:
        return "-"
    return f"{marks.bar(row['share'], SHARE_WIDTH)} {row['share']:5.1f}%"


def _backend_detail(row: Row, marks: Marks) -> list[str]:
    where = f"node {row['node'] or 'unknown'}, zone {row['zone'] or 'unknown'}"
    return [
        f"{row['backend']} {marks.dot} {row['state']} {marks.dot} {where}",
        f"of {row['service']}, {row['family']} {marks.dot} in the sets {', '.join(row['views'])}",
        f"chosen {row['chosen']} times since it came, id {row['id']}",
    ]


def _backend_columns(request: Request, _rows: Sequence[Row]) -> Sequence[Shown]:
    return [one for one in _BACKEND_COLUMNS if not (request.subject and one.column.field == "service")]


_BACKEND_COLUMNS = (
    Shown(Column("BACKEND", "backend")),
    Shown(Column("SERVICE", "service"), 1, cut=True),
    Shown(BACKENDS.columns[2]),
    Shown(Column("NODE", "node"), 4, cut=True),
    Shown(Column("ZONE", "zone"), 6, cut=True),
    Shown(Column("NEW/S", "newPerSecond", lambda row: rate_text(row["newPerSecond"])), 1),
    Shown(Column("LIVE", "live"), 2),
    Shown(Column("CHOSEN", "chosen"), 5),
    Shown(BACKENDS.columns[7], 3, draw=_draw_share),
    Shown(Column("LOCAL", "local"), 8),
    Shown(Column("VIEWS", "views"), 9, cut=True),
)

BACKENDS_VIEW = View(
    key="backends",
    title="Backends",
    about="where connections go, and how they are shared out",
    needs=Needs(BACKENDS_READ, sockets=0),
    rows=_backend_rows,
    columns=_backend_columns,
    table=BACKENDS._replace(kind="BackendActivityList"),
    enter="connections",
    subject=lambda row: str(row["backend"]),
    explains=lambda row: (row["service"], ""),
    detail=_backend_detail,
)


def _connection_rows(sample: Sample, _activity: Activity, request: Request) -> Found:
    walk = sample.walk
    live = sample.live._replace(now=sample.live.now + walk.taken - sample.taken)
    rows = connection_rows(live, walk.found, sample.owners, sample.processes)
    outside = flow_connections(live.flows)
    most = KEEP_SOCKETS - min(KEEP_SOCKETS, len(walk.found))
    rows += connection_rows(live, outside[:most], {0: OUTSIDE})
    if request.subject:
        rows = [row for row in rows if uses_backend(row, request.subject)]
    note = _note(sample)
    if walk.total > len(walk.found):
        kept = (
            f"the first {len(walk.found)} of {walk.total} open sockets;"
            " `kubesock connections --service NAME` lists all of one"
        )
        note = "; ".join(filter(None, (note, kept)))
    if len(outside) > most:
        kept = f"the first {most} of {len(outside)} connections from outside"
        note = "; ".join(filter(None, (note, kept)))
    if walk.total > MOST_WITH_PROCESSES:
        note += "; whose they are among so many tells `kubesock connections --processes`"
    return Found(rows, note)


def _processes(row: Row) -> str:
    return ",".join(row["processes"] or ()) or "-"


def _connection_detail(row: Row, marks: Marks) -> list[str]:
    return [
        f"{client(row)} {row['source']} {marks.arrow} {row['dialled']} {marks.arrow} {row['chosen']}",
        f"{row['service']}, {row['family']} {marks.dot} backend {row['backendState']} on {row['node']}",
        f"{row['state']} for {age_text(row['ageSeconds'])} {marks.dot} {_processes(row)}"
        f" {marks.dot} network namespace {row['netns']}, cookie {row['cookie']}",
    ]


def _client_argument(row: Row) -> str:
    """What `explain --from` takes; a bare inode number is nothing that it could find."""
    if row["netns"] == OUTSIDE.name:
        return str(row["source"]).rpartition(":")[0].strip("[]")
    return str(
        row["pod"] or ("" if row["netns"].isdigit() else "host" if row["netns"] == "node" else row["netns"])
    )


CONNECTIONS_VIEW = View(
    key="connections",
    title="Connections",
    about="open sockets: who dialled what, and which backend it got",
    needs=Needs(CONNECTIONS_READ, sockets=KEEP_SOCKETS),
    rows=_connection_rows,
    columns=fixed(
        Shown(Column("CLIENT", "pod", client), cut=True),
        Shown(Column("PROCESS", "processes", _processes), 4, cut=True),
        Shown(Column("SERVICE", "service"), 2, cut=True),
        Shown(Column("DIALLED", "dialled"), 3),
        Shown(
            Column("CHOSEN", "chosen"),
            draw=lambda row, marks: f"{marks.arrow} {row['chosen']}",
        ),
        Shown(Column("BACKEND", "backendState", alarm=state_alarm), 5),
        Shown(Column("STATE", "state"), 6),
        Shown(Column("AGE", "ageSeconds", lambda row: age_text(row["ageSeconds"])), 1),
        Shown(Column("SOURCE", "source"), 8),
        Shown(Column("NODE", "node"), 9, cut=True),
    ),
    table=CONNECTIONS,
    explains=lambda row: (f"{row['dialled']}/{row['protocol']}", _client_argument(row)),
    detail=_connection_detail,
)
