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
from pyagent.view.live import EMPTY, LiveMaps, LiveSet, backend_states, chosen_counts, live_sets, words
from pyagent.view.names import PortName, is_service, node_label, node_names, policy_text, service_port_names
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


class _Members(NamedTuple):
    """What the sets of a service port hold. `backends`: ids, each once."""

    set_ids: list[int]
    affinity_seconds: int
    ready: int
    terminating: int
    local: int
    backends: list[int]


_NO_MEMBERS = _Members([], 0, 0, 0, 0, [])


def service_rows(live: LiveMaps) -> list[Row]:
    """A row for each service port, in the order of namespace, name, port, protocol and family.

    `ready` and `terminating` count the backends that its sets hold now, each once; `chosen` is how often
    these were chosen; `remoteFrontends` are other nodes' addresses and nodePorts, as dialled from here.
    """
    return ServiceRows().rows(live)


class ServiceRows:
    """`service_rows` look after look: what the agent has not written again is not decoded again.

    Counters change at every look; comparing the rest with what it was costs a tenth of decoding it.
    """

    def __init__(self) -> None:
        self._raw = EMPTY
        self._ports: list[PortName] = []
        self._frontends: dict[int, _Frontends] = {}
        self._members: dict[int, _Members] = {}
        self._rows: list[tuple[Row, list[int]]] = []  # without counters, and whose counts are theirs

    def rows(self, live: LiveMaps) -> list[Row]:
        """Rows of this look: new ones at each call, but lists in them may be those of the rows before."""
        self._follow(live)
        chosen = chosen_counts(live)
        refused = words(live.refused).tolist()
        count_of, known = chosen.__getitem__, len(refused)
        old = not live.agent.alive
        found = []
        for row, backends in self._rows:
            identifier = row["id"]
            found.append(
                row
                | {
                    "chosen": sum(map(count_of, backends)),
                    "refused": refused[identifier] if identifier < known else 0,
                    "old": old,
                }
            )
        return found

    def _follow(self, live: LiveMaps) -> None:
        before, raw = self._raw, live.raw
        named = raw.names == before.names
        dialled = named and raw.frontends == before.frontends
        held = named and (raw.sets, raw.slots, raw.backends) == (before.sets, before.slots, before.backends)
        if dialled and held:
            return
        if not named:
            self._ports = service_port_names(raw.names)
        if not dialled:
            self._frontends = _frontends_by_set(live)
        if not held:
            self._members = _members_by_port(live, self._ports)
        rows = [self._row(port) for port in self._ports]
        # Last, for until here everything lies in memory in the order of ids.
        order = itemgetter("namespace", "name", "port", "protocol", "family")
        self._rows = sorted(rows, key=lambda entry: order(entry[0]))
        self._raw = raw  # as the very last: an error above must not pass for the new state

    def _row(self, port: PortName) -> tuple[Row, list[int]]:
        identifier, _, namespace, name, port_name, protocol, family, service_type, policy = port
        members = self._members.get(identifier, _NO_MEMBERS)
        dialled = [self._frontends[set_id] for set_id in members.set_ids if set_id in self._frontends]
        row = {
            "namespace": namespace,
            "name": name,
            "port": port_name,
            "protocol": protocol,
            "family": family,
            "type": service_type,
            "frontends": [text for one in dialled for text in one.own],
            "remoteFrontends": [text for one in dialled for text in one.remote],
            "ready": members.ready,
            "terminating": members.terminating,
            "local": members.local,
            "policy": policy_text(policy) if policy else "Cluster",
            "affinitySeconds": members.affinity_seconds,
            "chosen": 0,
            "refused": 0,
            "id": identifier,
            "old": False,
        }
        return row, members.backends


def _members_by_port(live: LiveMaps, ports: list[PortName]) -> dict[int, _Members]:
    """Service-port id -> what its sets hold."""
    sets: dict[int, list[LiveSet]] = {}
    for live_set in live_sets(live.raw, {port.identifier: port.incarnation for port in ports}):
        sets.setdefault(live_set.service_port, []).append(live_set)
    states, incarnations = backend_states(live)
    return {port: _members(own, states, incarnations) for port, own in sets.items()}


def _members(sets: list[LiveSet], states: list[int], incarnations: list[int]) -> _Members:
    known = len(states)
    held = sets[0].members.tolist() if len(sets) == 1 else {word for s in sets for word in s.members}
    ready = terminating = local = 0
    backends = []
    for word in held:
        backend = word >> 32
        if backend < known and incarnations[backend] == word & 0xFFFFFFFF:
            state = states[backend]
            backends.append(backend)
            if state & _READY:
                ready += 1
            if state & _TERMINATING:
                terminating += 1
            if state & _LOCAL:
                local += 1
    set_ids = [one.set_id for one in sets]
    return _Members(set_ids, sets[0].affinity_seconds, ready, terminating, local, backends)


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
