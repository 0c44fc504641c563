"""`kubesock services`: a row for each service port."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

from pyagent.datapath.decoded import SET_ID_MASK
from pyagent.datapath.encoded import NODE_PORT_ADDRESS
from pyagent.datapath.flow_layout import OUTSIDE_SCOPE
from pyagent.datapath.layout import FRONTEND_KEY, WORD, Scope
from pyagent.model.address import V4_MAPPED_PREFIX, format_endpoint
from pyagent.model.service import BackendStateBit
from pyagent.view.live import BackendColumns, LiveMaps, LiveSet, backend_columns, live_sets, words
from pyagent.view.names import is_service, node_label, node_names, policy_text, service_port_names
from pyagent.view.tables import Column, Row, Table

SERVICES_READ = frozenset({"frontends", "sets", "slots", "backends", "names", "chosen", "refused"})
"""The maps that `service_rows` looks at."""

SHOWN_FRONTENDS = 3
_FRONTEND = struct.Struct(">12s4BHBB")
# plain numbers: a flag's `&` takes a microsecond, 100,000 times
_READY, _TERMINATING, _LOCAL = map(
    int, (BackendStateBit.READY, BackendStateBit.TERMINATING, BackendStateBit.LOCAL)
)


class _Frontends(NamedTuple):
    own: list[str]
    remote: list[str]


def service_rows(live: LiveMaps) -> list[Row]:
    """A row for each service port, in the order of namespace, name, port, protocol and family.

    `ready` and `terminating` count the backends that its sets hold now, each once; `chosen` is how often
    these were chosen; `remoteFrontends` are other nodes' addresses and nodePorts, as dialled from here.
    """
    ports = service_port_names(live.raw.names)
    sets: dict[int, list[LiveSet]] = {}
    for live_set in live_sets(live.raw, {port.identifier: port.incarnation for port in ports}):
        sets.setdefault(live_set.service_port, []).append(live_set)
    frontends = _frontends_by_set(live)
    columns = backend_columns(live)
    refused = words(live.refused).tolist()
    old = not live.agent.alive
    none: list[LiveSet] = []
    nothing = _Frontends([], [])
    rows = []
    for port in ports:
        identifier, _, namespace, name, port_name, protocol, family, service_type, policy = port
        own_sets = sets.get(identifier, none)
        ready, terminating, local, chosen = _counts(own_sets, columns)
        if len(own_sets) == 1:
            own, remote = frontends.get(own_sets[0].set_id, nothing)
        else:
            dialled = [frontends.get(live_set.set_id, nothing) for live_set in own_sets]
            own = [text for one in dialled for text in one.own]
            remote = [text for one in dialled for text in one.remote]
        rows.append(
            {
                "namespace": namespace,
                "name": name,
                "port": port_name,
                "protocol": protocol,
                "family": family,
                "type": service_type,
                "frontends": own,
                "remoteFrontends": remote,
                "ready": ready,
                "terminating": terminating,
                "local": local,
                "policy": policy_text(policy) if policy else "Cluster",
                "affinitySeconds": own_sets[0].affinity_seconds if own_sets else 0,
                "chosen": chosen,
                "refused": refused[identifier] if identifier < len(refused) else 0,
                "id": identifier,
                "old": old,
            }
        )
    # Last, for until here everything lies in memory in the order of ids.
    return sorted(rows, key=itemgetter("namespace", "name", "port", "protocol", "family"))


def _counts(sets: list[LiveSet], columns: BackendColumns) -> tuple[int, int, int, int]:
    """(ready, terminating, local, chosen) of the backends in the sets."""
    if not sets:
        return 0, 0, 0, 0
    states, incarnations, chosen = columns
    known = len(states)
    members = sets[0].members.tolist() if len(sets) == 1 else {word for s in sets for word in s.members}
    ready = terminating = local = total = 0
    for word in members:
        backend = word >> 32
        if backend < known and incarnations[backend] == word & 0xFFFFFFFF:
            state = states[backend]
            total += chosen[backend]
            if state & _READY:
                ready += 1
            if state & _TERMINATING:
                terminating += 1
            if state & _LOCAL:
                local += 1
    return ready, terminating, local, total


def _frontends_by_set(live: LiveMaps) -> dict[int, _Frontends]:
    """Set id -> what can be dialled for it."""
    nodes = node_names(live.raw.names)
    whole = [
        (k, v) for k, v in live.raw.frontends.items() if len(k) == FRONTEND_KEY.size and len(v) == WORD.size
    ]
    keys = _FRONTEND.iter_unpack(b"".join([k for k, _ in whole]))
    found: dict[int, _Frontends] = {}
    in_address = int(Scope.ADDRESS)
    for (high, a, b, c, d, port, _, scope), (word,) in zip(
        keys, WORD.iter_unpack(b"".join([v for _, v in whole])), strict=True
    ):
        if scope & OUTSIDE_SCOPE:
            continue  # the same once more, for packets
        set_id = word >> 32 & SET_ID_MASK
        entry = found.get(set_id)
        if entry is None:
            entry = found[set_id] = _Frontends([], [])
        if scope != in_address:
            _add_node_port(entry, high + bytes((a, b, c, d)), port, nodes)
        elif high == V4_MAPPED_PREFIX:
            entry.own.append(f"{a}.{b}.{c}.{d}:{port}")
        else:
            entry.own.append(format_endpoint(high + bytes((a, b, c, d)), port))
    for entry in found.values():
        if len(entry.own) > 1:
            entry.own.sort(key=lambda text: text.startswith("node:"))
    return found


def _add_node_port(entry: _Frontends, key: bytes, port: int, nodes: Mapping[int, tuple[str, str]]) -> None:
    label = node_label(NODE_PORT_ADDRESS.unpack(key)[1], nodes)
    (entry.own if label == "node" else entry.remote).append(f"{label}:{port}")


def matches(row: Row, wanted: str) -> bool:
    """Whether `wanted` means this row: [NAMESPACE/]NAME[:PORT][/PROTOCOL]."""
    return is_service(wanted, row["namespace"], row["name"], row["port"], row["protocol"])


def service_name(row: Row) -> str:
    """`namespace/name:port/PROTOCOL`: what `kubesock backends` takes."""
    return f"{row['namespace']}/{port_title(row)}/{row['protocol']}"


def port_title(row: Row) -> str:
    return f"{row['name']}:{row['port']}" if row["port"] else str(row["name"])


def _some_frontends(row: Row) -> str:
    shown = row["frontends"]
    if len(shown) <= SHOWN_FRONTENDS:
        return ",".join(shown) or "-"
    return f"{','.join(shown[:SHOWN_FRONTENDS])} + {len(shown) - SHOWN_FRONTENDS} more"


SERVICES = Table(
    kind="ServiceList",
    columns=(
        Column("NAMESPACE", "namespace"),
        Column("NAME", "name", port_title),
        Column("TYPE", "type"),
        Column("PROTOCOL", "protocol"),
        Column("FRONTENDS", "frontends", _some_frontends),
        Column(
            "READY",
            "ready",
            alarm=lambda row: 0 if row["ready"] else 1 if row["terminating"] else 2,
        ),
        Column("TERMINATING", "terminating"),
        Column("POLICY", "policy"),
        Column(
            "AFFINITY",
            "affinitySeconds",
            lambda row: f"{row['affinitySeconds']}s" if row["affinitySeconds"] else "-",
        ),
        Column("CHOSEN", "chosen"),
        Column(
            "REFUSED",
            "refused",
            lambda row: str(row["refused"]),
            alarm=lambda row: 1 if row["refused"] else 0,
        ),
        Column("FAMILY", "family", wide=True),
        Column("LOCAL", "local", wide=True),
        Column("ID", "id", wide=True),
        Column("REMOTE-FRONTENDS", "remoteFrontends", wide=True),
    ),
    identity=("namespace", "name", "port", "protocol", "family"),
    name=service_name,
)
