"""`kubesock connections`: a row for each translated socket that is open now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pyagent.datapath.decoded import decode_backend
from pyagent.datapath.flow_records import flow_records
from pyagent.kernel.connections import Connection
from pyagent.kernel.namespace_owners import NetnsOwner, SocketKey
from pyagent.model.address import Protocol, family_of, format_endpoint, parse_address
from pyagent.model.failures import InvalidField, UsageError
from pyagent.view.backend_table import state_text
from pyagent.view.live import LiveMaps, live_sets
from pyagent.view.names import PROTOCOLS, is_service, node_names, service_port_names
from pyagent.view.tables import Column, Row, Table

CONNECTIONS_READ = frozenset({"sets", "slots", "backends", "names", "flows"})
"""The maps that `connection_rows` looks at."""

REMOVED = "removed"
"""The state of a backend that no set of its service port holds any more."""

_STATES = (
    "", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "close",
    "close-wait", "last-ack", "listen", "closing",
)  # fmt: skip
"""By number, as in include/net/tcp_states.h."""

Processes = Mapping[int, Mapping[SocketKey, tuple[str, ...]]]
"""Network namespace -> socket -> its processes."""


def connection_rows(
    live: LiveMaps,
    found: Iterable[Connection],
    owners: Mapping[int, NetnsOwner],
    processes: Processes | None = None,
) -> list[Row]:
    """A row for each socket, in the order of service, backend and client.

    Args:
        live: with `CONNECTIONS_READ`; `now` is when the sockets were listed.
        owners: whose their network namespaces are; others are shown by number.
        processes: who has them open; None: nobody asked.

    Fields: `pod` is empty where none is known; `netns` is a name, or the inode number; `backendState` is
    `removed` where no new connection can come to the backend any more.
    """
    ports = {(port.identifier, port.incarnation): port for port in service_port_names(live.raw.names)}
    members: dict[int, set[int]] = {}
    for live_set in live_sets(live.raw, dict(ports.keys())):
        members.setdefault(live_set.service_port, set()).update(live_set.members)
    nodes = node_names(live.raw.names)
    rows = []
    for one in found:
        port = ports.get((one.service_port, one.service_port_incarnation))
        word = one.backend_id << 32 | one.backend_incarnation
        backend = decode_backend(live.raw.backends, one.backend_id)
        serves = port is not None and word in members.get(one.service_port, ()) and backend is not None
        owner = owners.get(one.netns, _NOBODY)
        rows.append(
            {
                "pod": owner.pod,
                "netns": owner.name or str(one.netns),
                "processes": None if processes is None else _processes(processes, one),
                "service": port.service if port is not None else f"#{one.service_port} (removed)",
                "protocol": PROTOCOLS.get(one.protocol, str(one.protocol)),
                "dialled": format_endpoint(one.frontend, one.frontend_port),
                "chosen": format_endpoint(one.peer, one.peer_port),
                "backendState": state_text(backend.state) if serves and backend is not None else REMOVED,
                "state": _state(one),
                "ageSeconds": round(max(0.0, live.now - one.since / 1e9), 1),
                "namespace": port.namespace if port is not None else "",
                "name": port.name if port is not None else "",
                "port": port.port if port is not None else "",
                "family": family_of(one.frontend).label,
                "source": format_endpoint(one.source, one.source_port),
                "node": nodes.get(backend.node_id, ("", ""))[0] if serves and backend is not None else "",
                "cookie": one.cookie,
                "old": not live.agent.alive,
            }
        )
    return sorted(rows, key=lambda row: (row["service"], row["chosen"], row["pod"], row["source"]))


def flow_connections(entries: Iterable[tuple[bytes, bytes]]) -> list[Connection]:
    """Connections from outside, which have no socket here, from the entries of `flows`."""
    return [
        Connection(
            cookie=0, netns=0, family=0, state=one.state, protocol=one.protocol, source=one.client,
            source_port=one.client_port, peer=one.backend, peer_port=one.backend_port,
            frontend=one.frontend, frontend_port=one.frontend_port, service_port=one.service_port,
            service_port_incarnation=one.service_port_incarnation, backend_id=one.backend_id,
            backend_incarnation=one.backend_incarnation, since=one.since,
        )
        for one in flow_records(entries)
    ]  # fmt: skip


OUTSIDE = NetnsOwner("", "outside", ())
"""Whose the connections of `flow_connections` are."""

_NOBODY = NetnsOwner("", "", ())


def _processes(processes: Processes, one: Connection) -> list[str]:
    key = SocketKey(one.protocol, one.source, one.source_port, one.peer, one.peer_port)
    return list(processes.get(one.netns, {}).get(key, ()))


def _state(one: Connection) -> str:
    """UDP knows but two: connected and closed (include/net/sock.h)."""
    if one.protocol == Protocol.UDP:
        return "connected" if one.state == 1 else "close"
    return _STATES[one.state] if one.state < len(_STATES) else str(one.state)


def is_draining(row: Row) -> bool:
    """Whether the socket uses a backend that takes no new ones, or soon none."""
    state: str = row["backendState"]
    return state == REMOVED or state.startswith("terminating")


def chooser(live: LiveMaps, service: str, backend: str) -> Callable[[Connection], bool]:
    """Whether a socket is of a service and uses a backend, before any row is made: there may be very many.

    Args:
        live: with `names`.
        service: [NAMESPACE/]NAME[:PORT][/PROTOCOL]; empty: any.
        backend: ADDRESS[:PORT]; empty: any.

    Raises:
        UsageError: `backend` is none.
    """
    ports = {
        (port.identifier, port.incarnation)
        for port in service_port_names(live.raw.names)
        if is_service(service, port.namespace, port.name, port.port, port.protocol)
    }
    peer = _backend_of(backend) if backend else None

    def chosen(one: Connection) -> bool:
        if service and (one.service_port, one.service_port_incarnation) not in ports:
            return False
        return peer is None or (one.peer == peer[0] and peer[1] in (0, one.peer_port))

    return chosen


def _backend_of(text: str) -> tuple[bytes, int]:
    """Address and port, 0 for any."""
    address, colon, port = text.rpartition(":")
    try:
        if colon and port.isdigit() and (":" not in address or address.startswith("[")):
            return parse_address(address.strip("[]")), int(port)
        return parse_address(text.strip("[]")), 0
    except InvalidField as error:
        raise UsageError(f"--backend: {error}; want ADDRESS[:PORT]") from None


def uses_backend(row: Row, wanted: str) -> bool:
    """Whether `wanted`, ADDRESS or ADDRESS:PORT, is the backend."""
    chosen: str = row["chosen"]
    return wanted == chosen or wanted.strip("[]") == chosen.rpartition(":")[0].strip("[]")


def of_pod(row: Row, wanted: str) -> bool:
    """Whether `wanted`, [NAMESPACE/]NAME or a network namespace's name, is the client."""
    pod: str = row["pod"]
    return wanted in (pod, pod.partition("/")[2], row["netns"]) and bool(wanted)


def client(row: Row) -> str:
    """The pod, or else the network namespace."""
    return str(row["pod"] or row["netns"])


def age_text(seconds: float) -> str:
    """`0.4s`, `45s`, `12m`, `3h`, `5d`."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"


def state_alarm(row: Row) -> int:
    return 2 if row["backendState"] == REMOVED else 1 if is_draining(row) else 0


CONNECTIONS = Table(
    kind="ConnectionList",
    columns=(
        Column("POD", "pod", client),
        Column("SERVICE", "service"),
        Column("DIALLED", "dialled"),
        Column("CHOSEN", "chosen"),
        Column("BACKEND", "backendState", alarm=state_alarm),
        Column("STATE", "state"),
        Column("AGE", "ageSeconds", lambda row: age_text(row["ageSeconds"])),
        Column("SOURCE", "source", wide=True),
        Column("NETNS", "netns", wide=True),
        Column("NODE", "node", wide=True),
        Column("COOKIE", "cookie", wide=True),
    ),
    identity=("cookie", "netns", "source", "chosen"),
    name=lambda row: f"{client(row)} {row['source']} {row['service']} {row['chosen']}",
    volatile=frozenset({"ageSeconds"}),
)

PROCESS = Column("PROCESS", "processes")
WITH_PROCESSES = CONNECTIONS._replace(
    columns=(CONNECTIONS.columns[0], PROCESS, *CONNECTIONS.columns[1:]),
)
"""For rows whose processes somebody asked for."""
