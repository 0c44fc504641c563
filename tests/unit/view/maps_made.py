"""Maps as an agent would have written them, made from a few lines of description."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from pyagent.datapath.blocks import block_words
from pyagent.datapath.bounds import NOTHING
from pyagent.datapath.decoded import RawMaps
from pyagent.datapath.encoded import (
    address_frontend_key,
    name_key,
    node_port_frontend_key,
    padded_name,
)
from pyagent.datapath.layout import (
    BACKEND,
    BLOCK_HEADER_WORDS,
    CHOSEN_SHARDS,
    CONFIG,
    LAYOUT_VERSION,
    META,
    Capacities,
    NameKind,
    frontend_word,
    header_word,
    loopback_word,
    pair_word,
    set_word,
)
from pyagent.datapath.served_prefixes import ALL_BITS
from pyagent.datapath.writes import Put, Store, Write
from pyagent.model.address import Family, Protocol, family_of, parse_address
from pyagent.model.outcome import Outcome
from pyagent.model.service import BackendStateBit, ServiceType, View
from pyagent.view.live import AgentFacts, LiveMaps

READY = BackendStateBit.READY | BackendStateBit.SERVING
DRAINING = BackendStateBit.SERVING | BackendStateBit.TERMINATING


class B(NamedTuple):
    """A backend: `10.1.0.1:8080`, IPv4 only."""

    address: str
    state: int = READY
    node: int = 0
    chosen: int = 0


class S(NamedTuple):
    """A service port. `sets` are (view, node id, backends); `node_ports` go to the first set."""

    text: str
    frontends: tuple[str, ...] = ()
    sets: tuple[tuple[View, int, tuple[B, ...]], ...] = ()
    node_ports: tuple[tuple[int, int], ...] = ()  # node id, port
    protocol: Protocol = Protocol.TCP
    service_type: ServiceType = ServiceType.CLUSTER_IP
    policy: int = 0
    affinity: int = 0
    refused: int = 0


def shop(**changes: object) -> S:
    """A Service with three backends, one of them draining."""
    backends = (
        B("10.1.0.1:8080", chosen=3),
        B("10.1.0.2:8080", chosen=1, node=1),
        B("10.1.0.3:8080", DRAINING),
    )
    service = S("shop/web:http", ("10.96.0.1:80",), ((View.CLUSTER, 0, backends),))
    return service._replace(**changes)  # type: ignore[arg-type]


class Made(NamedTuple):
    """Contents of all maps."""

    raw: RawMaps
    chosen: tuple[bytes, ...]
    refused: bytes


def made(services: Iterable[S], nodes: dict[int, str] | None = None) -> Made:
    """Ids are given in order, from 1; incarnations are 100 + service-port id and 1000 + backend id."""
    frontends: dict[bytes, bytes] = {}
    names: dict[bytes, bytes] = {}
    sets, slots, backends = [0], [0] * 4, [bytes(BACKEND.size)]
    chosen, refused = [0], [0]
    for node_id, text in (nodes or {}).items():
        names[name_key(NameKind.NODE, node_id)] = padded_name(
            struct.pack("=I4B", 7, 0, 0, 0, 0) + text.encode()
        )
    for port_id, service in enumerate(services, start=1):
        family = Family.IPV6 if any("[" in text for text in service.frontends) else Family.IPV4
        head = struct.pack(
            "=I4B", 100 + port_id, family, service.protocol, service.service_type, service.policy
        )
        names[name_key(NameKind.SERVICE_PORT, port_id)] = padded_name(head + service.text.encode())
        refused.append(service.refused)
        known: dict[B, int] = {}
        first_set = len(sets)
        for view, node_id, members in service.sets:
            for member in members:
                if member not in known:
                    known[member] = len(backends)
                    backends.append(_backend(member, 1000 + len(backends), port_id))
                    chosen.append(member.chosen)
            block = [
                pair_word(port_id, 100 + port_id),
                header_word(node_id, view, Outcome.REFUSED_NO_ENDPOINTS, service.affinity),
                loopback_word(None),
                *(pair_word(known[m], 1000 + known[m]) for m in members),
            ]
            size = block_words(len(members))
            first = -(-len(slots) // size) * size
            slots += [0] * (first - len(slots)) + block + [0] * (size - len(block))
            sets.append(set_word(first, len(members), 1))
        for text in service.frontends:
            address, port = endpoint(text)
            key = address_frontend_key(address, port, service.protocol)
            frontends[key] = struct.pack("=Q", frontend_word(first_set, key))
        for node_id, port in service.node_ports:
            key = node_port_frontend_key(family, node_id, port, service.protocol)
            frontends[key] = struct.pack("=Q", frontend_word(first_set, key))
    raw = RawMaps(
        frontends=frontends,
        sets=struct.pack(f"={len(sets)}Q", *sets),
        slots=struct.pack(f"={len(slots)}Q", *slots),
        backends=b"".join(backends),
        names=names,
        service_addresses={},
        node_addresses={},
        config=bytes(plain_config()),
    )
    halves = [[count // 2 for count in chosen], [count - count // 2 for count in chosen]]
    return Made(raw, tuple(_words(half) for half in halves), _words(refused))


def plain_config() -> bytearray:
    """Of a node whose Services may be anywhere."""
    config = bytearray(CONFIG.size)
    for offset, data in NOTHING._replace(prefixes=ALL_BITS).encoded():
        config[offset : offset + len(data)] = data
    return config


def live(services: Iterable[S], nodes: dict[int, str] | None = None, **changes: object) -> LiveMaps:
    """The snapshot of such maps, with an agent alive."""
    contents = made(services, nodes)
    found = LiveMaps(contents.raw, contents.chosen, contents.refused, agent=AgentFacts(True, 1, 5.0))
    return found._replace(**changes)  # type: ignore[arg-type]


def writes(contents: Made, capacities: Capacities, started: int = 1) -> list[Write]:
    """What brings a fresh `MapSet` to these contents."""
    raw = contents.raw
    shard = capacities.backends * 8
    found: list[Write] = [
        Store("backends", 0, bytes(raw.backends)),
        Store("slots", 0, bytes(raw.slots)),
        Store("sets", 0, bytes(raw.sets)),
        Store("refused", 0, contents.refused),
        Store("meta", 0, META.pack(LAYOUT_VERSION, started, 0xFEED, 4711, bytes(32))),
        *(Store("chosen", i * shard, contents.chosen[i]) for i in range(CHOSEN_SHARDS)),
    ]
    for name, entries in (("names", raw.names), ("frontends", raw.frontends)):
        found += [Put(name, key, value) for key, value in entries.items()]
    return found


def endpoint(text: str) -> tuple[bytes, int]:
    """`10.0.0.1:80` or `[fd00::1]:80`."""
    address, _, port = text.rpartition(":")
    return parse_address(address.strip("[]")), int(port)


def _backend(member: B, incarnation: int, port_id: int) -> bytes:
    address, port = endpoint(member.address)
    assert family_of(address) in Family
    return BACKEND.pack(address, port, member.state, incarnation, port_id, member.node)


def _words(values: list[int]) -> bytes:
    return struct.pack(f"={len(values)}Q", *values)


assert BLOCK_HEADER_WORDS == 3
