"""The entries of each map as rows, for `kubesock maps NAME`. What cannot be read is shown in hexadecimal."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

from pyagent.datapath import decoded
from pyagent.datapath.flow_layout import FLOW, FLOW_KEY, OUTSIDE_DEVICE, DeviceFlag, FlowPoint
from pyagent.datapath.layout import (
    AFFINITY,
    AFFINITY_KEY,
    BACKEND,
    CLIENT_ADDRESSES,
    CONFIG,
    OVERFLOW,
    OVERFLOW_KEY,
    SERVICE_ADDRESS_KEY,
    SOURCE_RANGE_KEY,
    WORD,
    WORKLOAD_KEY,
    NameKind,
    Scope,
    WorkloadKind,
    split_pair_word,
    split_set_word,
)
from pyagent.model.address import Network, format_address, format_endpoint
from pyagent.model.service import AddressRule
from pyagent.view.affinity_table import affinity_client
from pyagent.view.backend_table import state_text
from pyagent.view.live import LiveMaps, live_sets, words
from pyagent.view.names import (
    FAMILIES,
    PROTOCOLS,
    TYPES,
    PortName,
    node_label,
    node_names,
    policy_text,
    service_port_names,
    view_text,
)
from pyagent.view.tables import Row

UNREADABLE = "unreadable"
_U32 = struct.Struct("=I")


class NamedMaps:
    """A snapshot with ids as text. One that no name belongs to any more is shown as its number."""

    def __init__(self, live: LiveMaps) -> None:
        self.live = live
        self.ports: dict[int, PortName] = {p.identifier: p for p in service_port_names(live.raw.names)}
        self.nodes = node_names(live.raw.names)
        self.owner_of_set = {
            live_set.set_id: live_set.service_port
            for live_set in live_sets(live.raw, {i: p.incarnation for i, p in self.ports.items()})
        }

    def port(self, identifier: int | None) -> str:
        if identifier is None:
            return ""
        return self.ports[identifier].service if identifier in self.ports else f"#{identifier}"

    def node(self, identifier: int) -> str:
        return node_label(identifier, self.nodes)


def _unreadable(key: bytes, value: bytes) -> Row:
    return {"key": key.hex(), UNREADABLE: value.hex()}


def _frontends(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.raw.frontends.items()):
        found = decoded.decode_frontend(key, value)
        if found is None:
            yield _unreadable(key, value)
            continue
        is_address = found.scope is Scope.ADDRESS
        yield {
            "dialled": format_endpoint(found.address, found.port)
            if is_address
            else f"{maps.node(found.node_id)}:{found.port}",
            "protocol": PROTOCOLS.get(found.protocol, str(found.protocol)),
            "family": FAMILIES.get(found.family, str(found.family)),
            "scope": found.scope.name.lower() + (" from outside" if found.outside else ""),
            "set": found.set_id,
            "service": maps.port(maps.owner_of_set.get(found.set_id)),
            "tagMatches": found.tag_matches,
        }


def _sets(maps: NamedMaps) -> Iterator[Row]:
    for set_id, word in enumerate(words(maps.live.raw.sets).tolist()):
        if not word:
            continue
        found = decoded.decode_set(maps.live.raw.sets, maps.live.raw.slots, set_id)
        first, count, generation = split_set_word(word)
        row = {"set": set_id, "firstSlot": first, "backends": count, "generation": generation}
        if found is None:
            yield {**row, UNREADABLE: f"{word:016x}"}
            continue
        yield {
            **row,
            "service": maps.port(found.service_port),
            "incarnation": found.incarnation,
            "view": view_text(found.header.view, found.header.node_id, maps.nodes),
            "whenEmpty": found.header.when_empty.label,
            "affinitySeconds": found.header.affinity_seconds,
        }


def _slots(maps: NamedMaps) -> Iterator[Row]:
    """The blocks that sets point to, a row for each backend's word."""
    for set_id in range(len(maps.live.raw.sets) // 8):
        found = decoded.decode_set(maps.live.raw.sets, maps.live.raw.slots, set_id)
        if found is None or not words(maps.live.raw.sets)[set_id]:
            continue
        for position, word in enumerate(found.backend_words):
            backend_id, incarnation = split_pair_word(word)
            backend = decoded.decode_backend(maps.live.raw.backends, backend_id)
            alive = backend is not None and backend.incarnation == incarnation
            yield {
                "slot": found.first_slot + 3 + position,
                "set": set_id,
                "service": maps.port(found.service_port),
                "backendId": backend_id,
                "incarnation": incarnation,
                "backend": format_endpoint(backend.address, backend.port) if alive and backend else "",
            }


def _backends(maps: NamedMaps) -> Iterator[Row]:
    for backend_id in range(len(maps.live.raw.backends) // BACKEND.size):
        found = decoded.decode_backend(maps.live.raw.backends, backend_id)
        if found is not None:
            yield {
                "id": backend_id,
                "backend": format_endpoint(found.address, found.port),
                "state": state_text(found.state),
                "stateBits": found.state,
                "incarnation": found.incarnation,
                "service": maps.port(found.service_port),
                "node": maps.nodes.get(found.node_id, ("", ""))[0],
            }


def _service_addresses(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.raw.service_addresses.items()):
        if len(key) != SERVICE_ADDRESS_KEY.size or len(value) != _U32.size:
            yield _unreadable(key, value)
            continue
        prefix, address = SERVICE_ADDRESS_KEY.packer.unpack(key)
        yield {"range": str(Network(address, prefix)), "rule": _rule(_U32.unpack(value)[0])}


def _rule(number: int) -> str:
    return AddressRule(number).name.lower() if number in set(AddressRule) else str(number)


def _node_addresses(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.raw.node_addresses.items()):
        if len(key) != 16 or len(value) != _U32.size:
            yield _unreadable(key, value)
            continue
        node_id = _U32.unpack(value)[0]
        yield {"address": format_address(key), "nodeId": node_id, "node": maps.node(node_id)}


def _name_entries(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.raw.names.items()):
        found = decoded.decode_name(key, value)
        if found is None:
            yield _unreadable(key, value)
            continue
        port = found.service_port
        yield {
            "kind": found.kind.name.lower(),
            "id": found.identifier,
            "incarnation": found.incarnation,
            "name": str(port) if port else found.node,
            "zone": found.zone,
            "family": port.family.label if port else "",
            "type": TYPES.get(found.service_type, str(found.service_type)) if port else "",
            "policy": policy_text(found.policy) if found.kind is NameKind.SERVICE_PORT else "",
        }


def _source_ranges(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.source_ranges):
        if len(key) != SOURCE_RANGE_KEY.size:
            yield _unreadable(key, value)
            continue
        prefix, port_id, address = SOURCE_RANGE_KEY.packer.unpack(key)
        # the service port comes first in the trie's key, with 32 bits of its own
        yield {"service": maps.port(port_id), "range": str(Network(address, prefix - 32))}


def _client_addresses(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.client_addresses):
        if len(key) != WORD.size or len(value) != CLIENT_ADDRESSES.size:
            yield _unreadable(key, value)
            continue
        ipv4, ipv6 = (format_address(a) if any(a) else "" for a in CLIENT_ADDRESSES.packer.unpack(value))
        yield {"client": WORD.unpack(key)[0], "ipv4": ipv4, "ipv6": ipv6}


def _opted_out(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.opted_out):
        if len(key) != WORKLOAD_KEY.size:
            yield _unreadable(key, value)
            continue
        identifier, kind, _ = WORKLOAD_KEY.packer.unpack(key)
        known = kind in set(WorkloadKind)
        yield {"kind": WorkloadKind(kind).name.lower() if known else str(kind), "id": identifier}


def _affinity(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.affinity):
        if len(key) != AFFINITY_KEY.size or len(value) != AFFINITY.size:
            yield _unreadable(key, value)
            continue
        port_id, incarnation, *client = AFFINITY_KEY.packer.unpack(key)
        word, last_used, slot, _ = AFFINITY.packer.unpack(value)
        backend_id, backend_incarnation = split_pair_word(word)
        yield {
            "service": maps.port(port_id),
            "incarnation": incarnation,
            "client": affinity_client(*client),
            "backendId": backend_id,
            "backendIncarnation": backend_incarnation,
            "lastUsedSeconds": last_used,
            "slot": slot,
        }


def _overflow(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.overflow):
        if len(key) != OVERFLOW_KEY.size or len(value) != OVERFLOW.size:
            yield _unreadable(key, value)
            continue
        dialled, source = OVERFLOW_KEY.as_dict(key), OVERFLOW.as_dict(value)
        yield {
            "socket": dialled["socket"],
            "backend": _endpoint(dialled, "backend"),
            "frontend": _endpoint(source, "frontend"),
        }


def _endpoint(fields: Mapping[str, int | bytes], name: str) -> str:
    address, port = fields[name], fields[f"{name}_port"]
    return format_endpoint(address, port) if isinstance(address, bytes) and isinstance(port, int) else ""


def _chosen(maps: NamedMaps) -> Iterator[Row]:
    for shard, counts in enumerate(maps.live.chosen):
        for backend_id, count in enumerate(words(counts).tolist()):
            if count:
                backend = decoded.decode_backend(maps.live.raw.backends, backend_id)
                yield {
                    "backendId": backend_id,
                    "shard": shard,
                    "backend": format_endpoint(backend.address, backend.port) if backend else "",
                    "service": maps.port(backend.service_port) if backend else "",
                    "count": count,
                }


def _refused(maps: NamedMaps) -> Iterator[Row]:
    for port_id, count in enumerate(words(maps.live.refused).tolist()):
        if count:
            yield {"id": port_id, "service": maps.port(port_id), "count": count}


def _outcomes(maps: NamedMaps) -> Iterator[Row]:
    for outcome, count in maps.live.outcomes.items():
        yield {"outcome": outcome.label, "count": count}


def _outside_outcomes(maps: NamedMaps) -> Iterator[Row]:
    for outcome, count in maps.live.outside_outcomes.items():
        yield {"outcome": outcome.label, "count": count}


def _flows(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.flows):
        if len(key) != FLOW_KEY.size or len(value) != FLOW.size:
            yield _unreadable(key, value)
            continue
        half, flow = FLOW_KEY.as_dict(key), FLOW.as_dict(value)
        yield {
            "point": "ingress" if half["point"] == FlowPoint.INGRESS else "egress",
            "source": _endpoint(half, "source"),
            "destination": _endpoint(half, "destination"),
            "protocol": PROTOCOLS.get(int(half["protocol"]), str(half["protocol"])),
            "becomes": format_endpoint(bytes(flow["addr"]), int(flow["port"])),
            "otherPort": flow["other_port"],
            "seen": flow["seen"],
            "flags": flow["flags"],
            "service": maps.port(int(flow["service_port"])),
            "backendId": int(flow["backend"]) >> 32,
            "lastSeenSeconds": int(flow["last_seen"]) // 1_000_000_000,
        }


def _devices(maps: NamedMaps) -> Iterator[Row]:
    for key, value in sorted(maps.live.devices):
        if len(value) != OUTSIDE_DEVICE.size:
            yield _unreadable(key, value)
            continue
        device = OUTSIDE_DEVICE.as_dict(value)
        yield {
            "device": int.from_bytes(key, "little"),
            "ipv4": format_address(bytes(device["ipv4"])),
            "ipv6": format_address(bytes(device["ipv6"])),
            "podSide": bool(int(device["flags"]) & DeviceFlag.POD_SIDE),
        }


def _config(maps: NamedMaps) -> Iterator[Row]:
    if len(maps.live.raw.config) >= CONFIG.size:
        for field, value in CONFIG.as_dict(memoryview(maps.live.raw.config)).items():
            if isinstance(value, int):
                yield {"field": field, "value": value}


def _meta(maps: NamedMaps) -> Iterator[Row]:
    for field, value in maps.live.meta.items():
        yield {"field": field, "value": value}


ENTRIES: dict[str, Callable[[NamedMaps], Iterator[Row]]] = {
    "frontends": _frontends,
    "sets": _sets,
    "slots": _slots,
    "backends": _backends,
    "service_addresses": _service_addresses,
    "node_addresses": _node_addresses,
    "names": _name_entries,
    "source_ranges": _source_ranges,
    "client_addresses": _client_addresses,
    "opted_out": _opted_out,
    "affinity": _affinity,
    "origin_overflow": _overflow,
    "chosen": _chosen,
    "refused": _refused,
    "outcomes": _outcomes,
    "flows": _flows,
    "outside_devices": _devices,
    "outside_outcomes": _outside_outcomes,
    "config": _config,
    "meta": _meta,
}
"""Map name -> its entries, decoded. Entries of hash maps come in the order of their keys."""
