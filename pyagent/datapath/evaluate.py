"""What the kernel answers to a dial, by the same steps as `bpf/lib/lookup.h`, from the maps' raw contents."""

from __future__ import annotations

from typing import NamedTuple

from pyagent.datapath.bounds import decode_bounds
from pyagent.datapath.decoded import RawMaps, decode_frontend, decode_set
from pyagent.datapath.encoded import (
    NODE,
    RULE,
    address_frontend_key,
    any_other_node,
    node_port_frontend_key,
    node_port_node,
    outside_key,
    service_address_key,
)
from pyagent.datapath.layout import BACKEND, BlockHeader, NodeId
from pyagent.model.address import Family, Network, Protocol, family_of, is_loopback, parse_address
from pyagent.model.outcome import Outcome
from pyagent.model.service import AddressRule

RULE_OUTCOMES: dict[int, Outcome] = {
    AddressRule.REFUSE_UNDEFINED_PORT: Outcome.REFUSED_UNDEFINED_PORT,
    AddressRule.REFUSE_UNALLOCATED: Outcome.REFUSED_UNALLOCATED_ADDRESS,
}
"""Every other rule passes the dial on."""

_LOOPBACK_IPV4 = parse_address("127.0.0.1")


class Candidate(NamedTuple):
    """A backend that a dial may be led to."""

    address: bytes
    port: int
    backend_id: int
    incarnation: int
    state: int
    node_id: int
    matches: bool  # slot and backend agree on the incarnation, backend and block on the service port


class Answer(NamedTuple):
    """TRANSLATED with candidates, or why not. The rest tells how it came about."""

    outcome: Outcome
    candidates: tuple[Candidate, ...] = ()
    frontend: bytes | None = None  # key of the entry that answered
    set_id: int | None = None
    service_port: int = 0
    incarnation: int = 0
    header: BlockHeader | None = None
    rule: Network | None = None

    @property
    def decision(self) -> tuple[Outcome, tuple[tuple[bytes, int, int, int], ...]]:
        """What a client can tell apart: the outcome; (address, port, id, incarnation) of each candidate."""
        return self.outcome, tuple(candidate[:4] for candidate in self.candidates)


def evaluate(
    maps: RawMaps, address: bytes, port: int, protocol: int, *, in_node_namespace: bool = True
) -> Answer:
    """What connect() or sendmsg() to an address does.

    Args:
        maps: contents of the maps.
        address: 16 bytes, IPv4 as v4-mapped.
        port: in host order.
        protocol: TCP and UDP are looked at, everything else passes.
        in_node_namespace: the socket lives in the node's own network namespace; only there loopback
            addresses count as the node's.
    """
    if protocol not in (Protocol.TCP, Protocol.UDP):
        return Answer(Outcome.NOT_A_SERVICE)
    if not decode_bounds(maps.config).may_serve(address, port):
        return Answer(Outcome.NOT_A_SERVICE)
    key = address_frontend_key(address, port, protocol)
    if key in maps.frontends:
        return evaluate_frontend(maps, key)
    node_port = node_port_entry(maps, address, port, protocol, in_node_namespace=in_node_namespace)
    if node_port is not None:
        return evaluate_frontend(maps, node_port)
    return _service_address(maps, address)


def evaluate_packet(
    maps: RawMaps, address: bytes, port: int, protocol: int, *, from_outside: bool = True
) -> Answer:
    """What becomes of a packet that opens a connection to an address, by the steps of `bpf/packets/begin.h`.

    Args:
        from_outside: it came by an uplink, not from a workload of this node.
    """
    if protocol not in (Protocol.TCP, Protocol.UDP):
        return Answer(Outcome.NOT_A_SERVICE)
    key = address_frontend_key(address, port, protocol)
    if key not in maps.frontends:
        node_port = node_port_entry(maps, address, port, protocol, in_node_namespace=False)
        if node_port is None or node_port_node(node_port) != NodeId.OWN:
            return _service_address(maps, address)
        key = node_port
    answer = evaluate_frontend(maps, key)
    other = outside_key(key)
    if not from_outside or answer.header is None or other not in maps.frontends:
        return answer
    outside = evaluate_frontend(maps, other)
    same = (outside.service_port, outside.incarnation) == (answer.service_port, answer.incarnation)
    return outside if same or outside.header is None else answer


def node_port_entry(
    maps: RawMaps, address: bytes, port: int, protocol: int, *, in_node_namespace: bool = True
) -> bytes | None:
    """The key under which a dial to a node's address finds a nodePort, or None."""
    if port not in decode_bounds(maps.config).node_port:
        return None
    owned = address
    if is_loopback(address):
        if not in_node_namespace:
            return None
        if family_of(address) is Family.IPV4:
            owned = _LOOPBACK_IPV4  # all of 127.0.0.0/8 answers as this one does
    if owned not in maps.node_addresses:
        return None
    node_id: int = NODE.unpack(maps.node_addresses[owned])[0]
    key = node_port_frontend_key(family_of(address), node_id, port, protocol)
    if key in maps.frontends:
        return key
    if node_id == NodeId.OWN:
        return None
    other = any_other_node(key)
    return other if other in maps.frontends else None


def evaluate_frontend(maps: RawMaps, key: bytes) -> Answer:
    """What an entry of `frontends` leads to."""
    frontend = decode_frontend(key, maps.frontends[key])
    if frontend is None or not frontend.tag_matches:
        return Answer(Outcome.REFUSED_UNSTABLE, frontend=key)
    return evaluate_set(maps, frontend.set_id, key)


def evaluate_set(maps: RawMaps, set_id: int, key: bytes | None = None) -> Answer:
    """What a set answers; also for a program that read the frontend's word some time ago."""
    decoded = decode_set(maps.sets, maps.slots, set_id)
    if decoded is None:
        return Answer(Outcome.REFUSED_UNSTABLE, frontend=key, set_id=set_id)
    candidates = tuple(_candidate(maps, word, decoded.service_port) for word in decoded.backend_words)
    return Answer(
        Outcome.TRANSLATED if candidates else decoded.header.when_empty,
        candidates,
        key,
        set_id,
        decoded.service_port,
        decoded.incarnation,
        decoded.header,
    )


def _candidate(maps: RawMaps, word: int, service_port: int) -> Candidate:
    backend_id, incarnation = word >> 32, word & 0xFFFFFFFF
    if not backend_id < len(maps.backends) // BACKEND.size:
        return Candidate(bytes(16), 0, backend_id, incarnation, 0, 0, matches=False)
    address, port, state, held, owner, node = BACKEND.unpack(
        memoryview(maps.backends), backend_id * BACKEND.size
    )
    matches = held == incarnation and owner == service_port
    return Candidate(bytes(address), int(port), backend_id, incarnation, int(state), int(node), matches)


def _service_address(maps: RawMaps, address: bytes) -> Answer:
    bounds = decode_bounds(maps.config)
    if family_of(address) is Family.IPV4:
        inside = int.from_bytes(address[12:], "big") in bounds.service_ipv4
    else:
        inside = int.from_bytes(address[:8], "big") in bounds.service_ipv6
    if not inside:
        return Answer(Outcome.NOT_A_SERVICE)
    number = int.from_bytes(address, "big")
    for prefix in range(128, -1, -1):
        shift = 128 - prefix
        network = Network((number >> shift << shift).to_bytes(16, "big"), prefix)
        value = maps.service_addresses.get(service_address_key(network))
        if value is None:
            continue
        rule: int = RULE.unpack(value)[0]
        outcome = RULE_OUTCOMES.get(rule, Outcome.PASSED_OTHER_PROXY)
        return Answer(outcome, rule=network)
    return Answer(Outcome.NOT_A_SERVICE)
