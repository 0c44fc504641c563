"""What the maps serve, against what kube-proxy's rules serve on the same node."""

from __future__ import annotations

from collections.abc import Iterable

from pyagent.datapath.decoded import decode_backend, decode_frontend
from pyagent.datapath.encoded import PROBE_FRONTENDS
from pyagent.datapath.layout import NodeId, Scope
from pyagent.model.address import Family, Protocol, family_of, format_address, format_endpoint
from pyagent.view.kube_proxy_served import Dialled, Endpoint, Served
from pyagent.view.live import LiveMaps, live_sets
from pyagent.view.names import PortName, service_port_names
from pyagent.view.tables import Column, Row, Table

SAME, DIFFERS, ONLY_RULES, ONLY_MAPS = "same", "differs", "only kube-proxy", "only kubesock"
_PROTOCOLS = {int(protocol): protocol for protocol in Protocol}


def served_by_maps(live: LiveMaps) -> tuple[Served, dict[Dialled, str]]:
    """What the maps serve to a client on this node, and the service port of each frontend."""
    ports = {port.identifier: port for port in service_port_names(live.raw.names)}
    ends: dict[int, frozenset[Endpoint]] = {}
    owners: dict[int, PortName] = {}
    for one in live_sets(live.raw, {i: port.incarnation for i, port in ports.items()}):
        decoded = (decode_backend(live.raw.backends, word >> 32) for word in one.members)
        ends[one.set_id] = frozenset(
            (backend.address, backend.port) for backend in decoded if backend is not None
        )
        owners[one.set_id] = ports[one.service_port]
    served: Served = {}
    names: dict[Dialled, str] = {}
    for key, value in live.raw.frontends.items():
        if key in PROBE_FRONTENDS:
            continue
        found = decode_frontend(key, value)
        if found is None or found.outside or found.protocol not in _PROTOCOLS or found.set_id not in ends:
            continue
        if found.scope == Scope.ADDRESS:
            family = family_of(found.address)
        elif found.node_id == NodeId.OWN and found.family in tuple(Family):
            family = Family(found.family)
        else:
            continue  # nodePorts of other nodes, which kube-proxy leaves to those
        dialled = Dialled(found.address, found.port, _PROTOCOLS[found.protocol], family)
        served[dialled] = ends[found.set_id]
        names[dialled] = owners[found.set_id].service
    return served, names


def comparison(live: LiveMaps, rules: Served, families: Iterable[Family]) -> list[Row]:
    """A row for each frontend that either serves.

    Args:
        live: with frontends, sets, slots, backends and names.
        rules: of kube-proxy.
        families: those that kube-proxy has rules of; of others nothing is compared.
    """
    wanted = frozenset(families)
    maps, names = served_by_maps(live)
    rows: list[Row] = []
    for dialled in maps.keys() | rules.keys():
        if dialled.family not in wanted:
            continue
        ours, theirs = maps.get(dialled), rules.get(dialled)
        rows.append(
            {
                "frontend": frontend_text(dialled),
                "service": names.get(dialled, ""),
                "state": _state(ours, theirs),
                "kubesock": _texts(ours),
                "kubeProxy": _texts(theirs),
            }
        )
    return sorted(rows, key=lambda row: (row["state"] == SAME, row["service"], row["frontend"]))


def frontend_text(dialled: Dialled) -> str:
    """`10.96.0.1:80/TCP`, or `node:30080/TCP (IPv4)`."""
    if not dialled.address:
        return f"node:{dialled.port}/{dialled.protocol.name} ({dialled.family.label})"
    return f"{format_endpoint(dialled.address, dialled.port)}/{dialled.protocol.name}"


def _state(ours: frozenset[Endpoint] | None, theirs: frozenset[Endpoint] | None) -> str:
    if theirs is None:
        return ONLY_MAPS
    if ours is None:
        return ONLY_RULES
    return SAME if ours == theirs else DIFFERS


def _texts(ends: frozenset[Endpoint] | None) -> list[str]:
    return [format_endpoint(*end) for end in sorted(ends or (), key=lambda e: (format_address(e[0]), e[1]))]


COMPARISON = Table(
    kind="RuleComparisonList",
    columns=(
        Column("FRONTEND", "frontend"),
        Column("SERVICE", "service"),
        Column("STATE", "state", alarm=lambda row: 0 if row["state"] == SAME else 2),
        Column("KUBESOCK", "kubesock"),
        Column("KUBE-PROXY", "kubeProxy"),
    ),
    identity=("frontend",),
    name=lambda row: str(row["frontend"]),
)
