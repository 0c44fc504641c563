"""`kubesock affinity`: which clients stay on which backend."""

from __future__ import annotations

import struct

from pyagent.datapath.decoded import decode_backend
from pyagent.datapath.layout import AFFINITY, AFFINITY_KEY, split_pair_word
from pyagent.model.address import format_address, format_endpoint
from pyagent.view.live import LiveMaps, live_sets
from pyagent.view.names import service_port_names
from pyagent.view.tables import Column, Row, Table

AFFINITY_READ = frozenset({"sets", "slots", "backends", "names", "affinity"})
"""The maps that `affinity_rows` looks at."""


def affinity_rows(live: LiveMaps) -> list[Row]:
    """A row for each client that the hooks remember.

    Fields: `client` is the cookie of its network namespace (SO_NETNS_COOKIE), or the address of a client
    outside of the cluster; `remainingSeconds` until it
    may be sent elsewhere if it stays quiet; `state` is `active`, `expired`, or `gone` when the backend left
    the service port. Only active ones decide anything; the kernel overwrites the others when it needs room.
    """
    ports = {port.identifier: port for port in service_port_names(live.raw.names)}
    seconds: dict[int, int] = {}
    members: dict[int, set[int]] = {}
    for live_set in live_sets(live.raw, {i: port.incarnation for i, port in ports.items()}):
        seconds[live_set.service_port] = live_set.affinity_seconds
        members.setdefault(live_set.service_port, set()).update(live_set.members)
    rows = []
    for key, value in live.affinity:
        if len(key) != AFFINITY_KEY.size or len(value) != AFFINITY.size:
            continue
        port_id, incarnation, *client = AFFINITY_KEY.packer.unpack(key)
        word, last_used, slot, _ = AFFINITY.packer.unpack(value)
        port = ports.get(port_id)
        if port is None or port.incarnation != incarnation:
            continue  # a service port that is gone: the entry can match nothing
        remaining = max(0, seconds.get(port_id, 0) - max(0, int(live.now) - last_used))
        backend_id, backend_incarnation = split_pair_word(word)
        backend = decode_backend(live.raw.backends, backend_id)
        alive = backend is not None and backend.incarnation == backend_incarnation
        held = word in members.get(port_id, ())
        rows.append(
            {
                "client": affinity_client(*client),
                "service": port.service,
                "backend": format_endpoint(backend.address, backend.port) if alive and backend else "",
                "remainingSeconds": remaining,
                "state": "gone" if not (alive and held) else "active" if remaining else "expired",
                "namespace": port.namespace,
                "name": port.name,
                "port": port.port,
                "protocol": port.protocol,
                "family": port.family,
                "type": port.type,
                "slot": slot,
                "old": not live.agent.alive,
            }
        )
    return sorted(
        rows, key=lambda row: (row["service"], row["family"], isinstance(row["client"], str), row["client"])
    )


def affinity_client(client: int, client_low: int) -> int | str:
    """Who an entry of `affinity` is about: a network namespace's cookie, or the address packets come from."""
    return format_address(struct.pack("=QQ", client, client_low)) if client_low else client


AFFINITIES = Table(
    kind="AffinityList",
    columns=(
        Column("CLIENT", "client"),
        Column("SERVICE", "service"),
        Column("BACKEND", "backend"),
        Column("REMAINING", "remainingSeconds", lambda row: f"{row['remainingSeconds']}s"),
        Column("STATE", "state", alarm=lambda row: 0 if row["state"] == "active" else 1),
        Column("FAMILY", "family", wide=True),
        Column("SLOT", "slot", wide=True),
    ),
    identity=("service", "family", "client"),
    name=lambda row: f"{row['service']} {row['client']}",
)
