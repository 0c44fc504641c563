"""`kubesock backends`: a row for each backend of each service port."""

from __future__ import annotations

from pyagent.datapath.decoded import decode_backend
from pyagent.model.address import format_endpoint
from pyagent.model.service import BackendStateBit
from pyagent.view.live import LiveMaps, LiveSet, backend_columns, live_sets
from pyagent.view.names import PortName, is_service, node_names, service_port_names, view_text
from pyagent.view.tables import Column, Row, Table

BACKENDS_READ = frozenset({"sets", "slots", "backends", "names", "chosen"})
"""The maps that `backend_rows` looks at."""


def backend_rows(live: LiveMaps, service: str = "") -> list[Row]:
    """A row for each backend that a set holds, in the order of service ports and slots.

    Args:
        service: only its backends, as `matches_service` says; empty: all.

    Fields: `share` is the percentage of its service port's connections since the backends came, None before
    the first; `views` are the sets that hold it.
    """
    names = service_port_names(live.raw.names)
    sets: dict[int, list[LiveSet]] = {}
    for live_set in live_sets(live.raw, {port.identifier: port.incarnation for port in names}):
        sets.setdefault(live_set.service_port, []).append(live_set)
    ports = [port for port in names if not service or matches_service(port, service)]
    chosen = backend_columns(live).chosen
    nodes = node_names(live.raw.names)
    rows: list[Row] = []
    for port in sorted(ports, key=lambda port: port[2:7]):
        rows += _rows_of(port, sets.get(port.identifier, []), live, chosen, nodes)
    return rows


def _rows_of(
    port: PortName,
    sets: list[LiveSet],
    live: LiveMaps,
    chosen: list[int],
    nodes: dict[int, tuple[str, str]],
) -> list[Row]:
    views: dict[int, list[str]] = {}
    for live_set in sets:
        view = view_text(live_set.view, live_set.node_id, nodes)
        for word in live_set.members:
            views.setdefault(word, []).append(view)
    rows: list[Row] = []
    for word, held_by in views.items():
        backend = decode_backend(live.raw.backends, word >> 32)
        if backend is None or backend.incarnation != word & 0xFFFFFFFF:
            continue  # replaced while we read
        node, zone = nodes.get(backend.node_id, ("", ""))
        rows.append(
            {
                "service": port.service,
                "backend": format_endpoint(backend.address, backend.port),
                "state": state_text(backend.state),
                "local": bool(backend.state & BackendStateBit.LOCAL),
                "node": node,
                "zone": zone,
                "chosen": chosen[backend.backend_id],
                "share": None,
                "namespace": port.namespace,
                "name": port.name,
                "port": port.port,
                "protocol": port.protocol,
                "family": port.family,
                "type": port.type,
                "views": held_by,
                "id": backend.backend_id,
                "old": not live.agent.alive,
            }
        )
    total = sum(row["chosen"] for row in rows)
    if total:
        for row in rows:
            row["share"] = round(100 * row["chosen"] / total, 1)
    return rows


def state_text(state: int) -> str:
    """`ready`, `terminating` (but serving), `serving` or `not ready`, by the bits of a backend."""
    if state & BackendStateBit.TERMINATING:
        return "terminating" if state & BackendStateBit.SERVING else "terminating, not serving"
    if state & BackendStateBit.READY:
        return "ready"
    return "serving" if state & BackendStateBit.SERVING else "not ready"


def matches_service(port: PortName, wanted: str) -> bool:
    """Whether `wanted` means this service port: [NAMESPACE/]NAME[:PORT][/PROTOCOL]."""
    return is_service(wanted, port.namespace, port.name, port.port, port.protocol)


BACKENDS = Table(
    kind="BackendList",
    columns=(
        Column("SERVICE", "service"),
        Column("BACKEND", "backend"),
        Column("STATE", "state", alarm=lambda row: 0 if row["state"] == "ready" else 1),
        Column("LOCAL", "local"),
        Column("NODE", "node"),
        Column("ZONE", "zone"),
        Column("CHOSEN", "chosen"),
        Column("SHARE", "share", lambda row: "-" if row["share"] is None else f"{row['share']:.1f}%"),
        Column("FAMILY", "family", wide=True),
        Column("VIEWS", "views", wide=True),
        Column("ID", "id", wide=True),
    ),
    identity=("service", "family", "backend"),
    name=lambda row: f"{row['service']} {row['backend']}",
)
