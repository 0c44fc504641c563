"""What the kernel's maps say against what they should: every entry, read anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from pyagent.datapath.bounds import decode_bounds
from pyagent.datapath.decoded import RawMaps, decode_frontend, decode_name
from pyagent.datapath.encoded import (
    NODE,
    PROBE_FRONTENDS,
    PROBE_SET,
    RULE,
    address_frontend_key,
    name_key,
    node_port_frontend_key,
    outside_key,
    service_address_key,
)
from pyagent.datapath.evaluate import Answer, evaluate_frontend, evaluate_set
from pyagent.datapath.held import Dialled, HeldServicePort, HeldState
from pyagent.datapath.layout import (
    CONFIG,
    FRONTEND_KEY,
    SERVICE_ADDRESS_KEY,
    SOURCE_RANGE_KEY,
    NameKind,
    NodeId,
)
from pyagent.datapath.source_range_plan import ADMITTED
from pyagent.model.address import Network, Protocol, format_address, format_endpoint
from pyagent.model.outcome import Outcome
from pyagent.model.service import (
    ANY_OTHER_NODE,
    OUTSIDE,
    AddressRule,
    Backend,
    BackendSet,
    DesiredChange,
    ServicePort,
    ServicePortKey,
    SetKey,
)
from pyagent.view.explain_facts import view_of
from pyagent.view.explain_maps import OWNER_BITS

NOTHING = "nothing"


class Difference(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that is not as it should be."""

    subject: str
    kernel: str  # what it has
    desired: str  # what it should have

    def __str__(self) -> str:
        return f"{self.subject}: the kernel has {self.kernel}, and should have {self.desired}"


class Meant(msgspec.Struct, frozen=True):
    """What the maps should hold. Made in the loop's thread, and of nothing that changes afterwards.

    `desired` is all of it; `ids`, `bounds` and `no_room` are how the planner laid it out.
    """

    desired: DesiredChange
    ids: dict[ServicePortKey, HeldServicePort]
    node_ids: dict[str, int]
    config: bytes
    no_room: frozenset[ServicePortKey]


def meant(desired: DesiredChange, held: HeldState) -> Meant:
    """What the maps should hold, by the desired state and the planner's books."""
    ids = {key: msgspec.structs.replace(port) for key, port in held.service_ports.items()}
    nodes = {**held.nodes, "": int(NodeId.OWN), ANY_OTHER_NODE: int(NodeId.ANY_OTHER)}
    return Meant(desired, ids, nodes, bytes(held.config), frozenset(held.waiting.service_ports))


def differences(
    meant: Meant, raw: RawMaps, ranges: Mapping[bytes, bytes], altered: Iterable[str] = ()
) -> Iterator[Difference]:
    """Everything in which the maps differ from what they should hold.

    Args:
        ranges: entries of `source_ranges`.
        altered: what no plan writes and somebody else changed.
    """
    yield from _service_ports(meant, raw)
    yield from _frontends(meant, raw)
    yield from _service_addresses(meant.desired.service_addresses, raw)
    yield from _node_addresses(meant, raw)
    yield from _source_ranges(meant, ranges)
    yield from _bounds(meant, raw)
    for what in altered:
        yield Difference(what, "what somebody else did", "what the agent left")


def _service_ports(meant: Meant, raw: RawMaps) -> Iterator[Difference]:
    nodes = {number: name for name, number in meant.node_ids.items()}
    living = set()
    for key, port in meant.desired.service_ports.items():
        if port is None:
            continue
        held = meant.ids.get(key)
        if held is None or key in meant.no_room:
            yield Difference(str(key), "an older state or nothing: no room", "its service port")
            continue
        living.add(name_key(NameKind.SERVICE_PORT, held.identifier))
        yield from _name(port, held, raw)
        for one in port.sets:
            yield from _set(port, one, held, raw, meant.node_ids, nodes)
    for key_bytes, value in raw.names.items():
        name = decode_name(key_bytes, value)
        if name is None:
            yield Difference(f"name {key_bytes.hex()}", "what cannot be read", NOTHING)
        elif name.kind is NameKind.SERVICE_PORT and key_bytes not in living:
            yield Difference(f"name of service port {name.identifier}", str(name.service_port), NOTHING)


def _name(port: ServicePort, held: HeldServicePort, raw: RawMaps) -> Iterator[Difference]:
    key = name_key(NameKind.SERVICE_PORT, held.identifier)
    name = decode_name(key, raw.names.get(key, b""))
    wanted = (port.key, held.incarnation, int(port.service_type), port.policy)
    found = (
        (name.service_port, name.incarnation, name.service_type, name.policy) if name is not None else None
    )
    if found != wanted:
        text = str(name.service_port) if name is not None else NOTHING
        if name is not None and name.service_port == port.key:
            text += " with another type, policy or incarnation"
        yield Difference(f"name of service port {held.identifier}", text, str(port.key))


def _set(
    port: ServicePort,
    one: BackendSet,
    held: HeldServicePort,
    raw: RawMaps,
    node_ids: Mapping[str, int],
    nodes: Mapping[int, str],
) -> Iterator[Difference]:
    subject = f"{port.key} ({port.key.family.label}), set {view_of(one.key)}"
    set_id = held.set_id(one.key)
    answer = evaluate_set(raw, set_id) if set_id is not None else None
    if answer is None or answer.header is None:
        yield Difference(subject, NOTHING, _backends(one.backends))
        return
    if (answer.service_port, answer.incarnation) != (held.identifier, held.incarnation):
        yield Difference(
            subject, f"a block of service port {answer.service_port}", f"one of {held.identifier}"
        )
        return
    yield from _header(subject, port, one, answer, node_ids)
    yield from _members(subject, one, answer, nodes)


def _header(
    subject: str, port: ServicePort, one: BackendSet, answer: Answer, node_ids: Mapping[str, int]
) -> Iterator[Difference]:
    header = answer.header
    if header is None:
        return
    wanted = (one.key.view, node_ids.get(one.key.node))
    if (header.view, header.node_id) != wanted:
        yield Difference(
            subject, f"view {header.view} of node {header.node_id}", f"{wanted[0]} of {wanted[1]}"
        )
    if header.affinity_seconds != port.affinity_seconds:
        kernel, desired = f"affinity {header.affinity_seconds} s", f"{port.affinity_seconds} s"
        yield Difference(subject, kernel, desired)
    if not one.backends and header.when_empty is not one.when_empty:
        yield Difference(subject, f"{header.when_empty.label} when empty", one.when_empty.label)


def _members(subject: str, one: BackendSet, answer: Answer, nodes: Mapping[int, str]) -> Iterator[Difference]:
    wanted = {(b.address, b.port): b for b in one.backends}
    found = {(c.address, c.port): c for c in answer.candidates}
    torn = sum(1 for c in answer.candidates if not c.matches)
    if torn:
        yield Difference(subject, f"{torn} slots whose backend is another's", "none")
    if len(found) != len(answer.candidates):
        yield Difference(subject, "a backend twice", "each once")
    for identity in sorted(wanted.keys() - found.keys()):
        yield Difference(subject, "no such backend", format_endpoint(*identity))
    for identity in sorted(found.keys() - wanted.keys()):
        yield Difference(subject, format_endpoint(*identity), "no such backend")
    for identity in sorted(wanted.keys() & found.keys()):
        backend, candidate = wanted[identity], found[identity]
        text = f"{subject}, {format_endpoint(*identity)}"
        if candidate.state != backend.state:
            yield Difference(text, f"state {candidate.state}", str(backend.state))
        node = nodes.get(candidate.node_id, f"#{candidate.node_id}")
        if node != backend.node:
            yield Difference(text, f"node {node or 'unknown'}", backend.node or "unknown")


def _frontends(meant: Meant, raw: RawMaps) -> Iterator[Difference]:
    wanted = set(PROBE_FRONTENDS)
    owners = {
        set_id: _claim_text(port_key, set_key)
        for port_key, held in meant.ids.items()
        for set_key, set_id in zip(held.set_keys, held.set_ids, strict=True)
    }
    for dialled, claim in meant.desired.frontends.items():
        if claim is None:
            continue
        subject = f"frontend {_dialled_text(dialled)}"
        key = _key_of(dialled, meant.node_ids)
        if key is None:
            yield Difference(subject, f"no id for node {dialled[4]}", _claim_text(*claim))
            continue
        wanted.add(key)
        kernel = _target(key, owners, raw)
        if kernel != _claim_text(*claim):
            yield Difference(subject, kernel, _claim_text(*claim))
    for key in PROBE_FRONTENDS:
        answer = evaluate_frontend(raw, key) if key in raw.frontends else None
        if answer is None or answer.outcome is not Outcome.PROBED or answer.set_id != PROBE_SET:
            what = NOTHING if answer is None else answer.outcome.label
            yield Difference(f"the self-probe's frontend {_key_text(key)}", what, Outcome.PROBED.label)
    for key in sorted(raw.frontends.keys() - wanted):
        yield Difference(f"frontend {_key_text(key)}", _target(key, owners, raw), NOTHING)


def _key_of(dialled: Dialled, node_ids: Mapping[str, int]) -> bytes | None:
    family, protocol, port, address, node = dialled
    if node == OUTSIDE:
        inside = _key_of((family, protocol, port, address, ""), node_ids)
        return outside_key(inside) if inside is not None else None
    if address:
        return address_frontend_key(address, port, protocol)
    return node_port_frontend_key(family, node_ids[node], port, protocol) if node in node_ids else None


def _target(key: bytes, owners: Mapping[int, str], raw: RawMaps) -> str:
    """Whose set an entry leads to, by the planner's books: ids alone say nothing to a reader."""
    value = raw.frontends.get(key)
    if value is None:
        return NOTHING
    entry = decode_frontend(key, value)
    if entry is None or not entry.tag_matches:
        return "a word that is not its own"
    return owners.get(entry.set_id, f"set {entry.set_id}, which is nobody's")


def _service_addresses(wanted: Mapping[Network, AddressRule | None], raw: RawMaps) -> Iterator[Difference]:
    rules = {service_address_key(n): rule for n, rule in wanted.items() if rule is not None}
    for key in sorted(rules.keys() | raw.service_addresses.keys()):
        kernel, desired = raw.service_addresses.get(key), rules.get(key)
        if kernel != (RULE.pack(desired) if desired is not None else None):
            prefix, address = SERVICE_ADDRESS_KEY.packer.unpack(key)
            subject = f"service address {Network(address, prefix)}"
            yield Difference(subject, _rule_text(kernel), desired.name.lower() if desired else NOTHING)


def _rule_text(value: bytes | None) -> str:
    if value is None:
        return NOTHING
    number = RULE.unpack(value)[0]
    return AddressRule(number).name.lower() if number in set(AddressRule) else f"rule {number}"


def _node_addresses(meant: Meant, raw: RawMaps) -> Iterator[Difference]:
    wanted = {a: name for a, name in meant.desired.node_addresses.items() if name is not None}
    nodes = {number: name for name, number in meant.node_ids.items()}
    for address in sorted(wanted.keys() | raw.node_addresses.keys()):
        value = raw.node_addresses.get(address)
        number = NODE.unpack(value)[0] if value is not None else None
        kernel = nodes.get(number, f"#{number}") if number is not None else None
        if kernel != wanted.get(address):
            texts = [NOTHING if t is None else t or "this node" for t in (kernel, wanted.get(address))]
            yield Difference(f"node address {format_address(address)}", *texts)


def _source_ranges(meant: Meant, kernel: Mapping[bytes, bytes]) -> Iterator[Difference]:
    owners = {held.identifier: str(key) for key, held in meant.ids.items()}
    wanted = {
        SOURCE_RANGE_KEY.pack(OWNER_BITS + network.prefix, meant.ids[key].identifier, network.address)
        for key, port in meant.desired.service_ports.items()
        if port is not None and key in meant.ids
        for network in port.source_ranges
    }
    for key_bytes in sorted(wanted | kernel.keys()):
        value = kernel.get(key_bytes)
        if key_bytes in wanted and value == ADMITTED:
            continue
        prefix, owner, address = SOURCE_RANGE_KEY.packer.unpack(key_bytes)
        network = str(Network(address, prefix - OWNER_BITS))
        found = (
            NOTHING if value is None else network if value == ADMITTED else f"{network} with another value"
        )
        desired = network if key_bytes in wanted else NOTHING
        yield Difference(f"source range of {owners.get(owner, f'service port {owner}')}", found, desired)


def _bounds(meant: Meant, raw: RawMaps) -> Iterator[Difference]:
    if len(raw.config) < CONFIG.size:
        yield Difference("config", NOTHING, "its one element")
        return
    kernel, desired = decode_bounds(raw.config), decode_bounds(meant.config)
    for field in ("service_ipv6", "service_ipv4", "node_port"):
        found, wanted = getattr(kernel, field), getattr(desired, field)
        if found != wanted:
            yield Difference(
                f"config, bounds of {field}", f"{found.low} to {found.high}", f"{wanted.low} to {wanted.high}"
            )
    if kernel.prefixes != desired.prefixes:
        yield Difference("config, served prefixes", f"{kernel.prefixes:x}", f"{desired.prefixes:x}")


def _backends(backends: Iterable[Backend]) -> str:
    return ", ".join(format_endpoint(b.address, b.port) for b in backends) or "an empty set"


def _claim_text(key: ServicePortKey, set_key: SetKey) -> str:
    return f"{key} ({key.family.label}), set {view_of(set_key)}"


def _dialled_text(dialled: Dialled) -> str:
    family, protocol, port, address, node = dialled
    outside = " from outside" if node == OUTSIDE else ""
    owner = "node" if node in ("", OUTSIDE) else node
    where = format_endpoint(address, port) if address else f"{owner}:{port} ({family.label})"
    return f"{where}/{protocol.name}{outside}"


def _key_text(key: bytes) -> str:
    entry = decode_frontend(key, bytes(8)) if len(key) == FRONTEND_KEY.size else None
    if entry is None or entry.protocol not in set(Protocol):
        return key.hex()
    address = (
        format_endpoint(entry.address, entry.port) if entry.address else f"node-{entry.node_id}:{entry.port}"
    )
    outside = " from outside" if entry.outside else ""
    return f"{address}/{Protocol(entry.protocol).name}{outside}"
