"""EndpointSlices of one Service -> the endpoints of each of its ports (KEP-752).

A slice is read once, when it arrives, into a compact form that is kept instead of the object: the
endpoints already carry the number of the slice's first port, so that a Service with one port shares
them as its backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from sys import intern
from typing import NamedTuple

import msgspec

from pyagent.desired.endpoint_address import endpoint_address, plain_ipv4
from pyagent.desired.names import MAX_NAME, node_name, zone_name
from pyagent.desired.problems import Findings
from pyagent.model.address import Family, Protocol
from pyagent.model.failures import InvalidField, sanitized
from pyagent.model.kube_objects import Endpoint, EndpointPort, EndpointSlice, Hints, TargetRef
from pyagent.model.service import Backend, BackendStateBit
from pyagent.model.source_events import Problem

READY = int(BackendStateBit.READY)
SERVING = int(BackendStateBit.SERVING)
TERMINATING = int(BackendStateBit.TERMINATING)
LOCAL = int(BackendStateBit.LOCAL)
ON_NODE_ADDRESS = int(BackendStateBit.ON_NODE_ADDRESS)

MAX_PORT = 65_535
FAMILY_OF_TYPE = {family.label: family for family in Family}
PROTOCOL_OF_NAME: dict[str | None, Protocol] = {None: Protocol.TCP, "": Protocol.TCP}
PROTOCOL_OF_NAME |= {protocol.name: protocol for protocol in Protocol}


class SlicePort(NamedTuple):
    name: str
    protocol: Protocol
    port: int


class Hint(NamedTuple):
    """For clients in which zones and on which nodes an endpoint is meant (KEP-2433, KEP-4444, KEP-3015)."""

    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


NO_HINT = Hint()


class Endpoints(NamedTuple):
    """Endpoints in the order of their addresses and ports.

    `hints` runs parallel to `backends`; it is empty if no endpoint has a hint.
    """

    backends: tuple[Backend, ...] = ()
    hints: tuple[Hint, ...] = ()


NO_ENDPOINTS = Endpoints()


class SliceEndpoints(msgspec.Struct, frozen=True, gc=False):
    """What one EndpointSlice says. The endpoints carry the number of its first port."""

    service: str
    name: str
    family: Family
    ports: tuple[SlicePort, ...]
    endpoints: Endpoints
    problems: tuple[Problem, ...] = ()


PortIndex = dict[tuple[Family, str, Protocol], list[tuple[SliceEndpoints, int]]]


def read_slice(obj: EndpointSlice, service: str, own_node: str) -> SliceEndpoints:
    """The compact form of a slice; without ports if its type is neither IPv4 nor IPv6.

    Conditions that are absent count as the API defines: ready and serving true, terminating false.
    Only the first address of an endpoint is used, as the API asks.

    Args:
        service: name of the Service, from the slice's label.
        own_node: this node's name; "" marks no endpoint as local.
    """
    findings = Findings("EndpointSlice", obj.metadata.namespace, obj.metadata.name)
    family = FAMILY_OF_TYPE.get(obj.addressType)
    ports: tuple[SlicePort, ...] = ()
    endpoints = NO_ENDPOINTS
    if family is None:
        reason = f"cannot be served: {sanitized(obj.addressType)}; write IPv4 or IPv6"
        findings.add("addressType", reason)
        family = Family.IPV4
    else:
        ports = _ports(obj.ports or [], findings)
        if ports:
            endpoints = _endpoints(obj, family, ports[0].port, own_node, findings)
    return SliceEndpoints(service, obj.metadata.name, family, ports, endpoints, findings.problems())


def index_ports(slices: Sequence[SliceEndpoints]) -> PortIndex:
    """Which slices, in the given order, carry a port, and with which numbers (named ports may differ)."""
    index: PortIndex = {}
    for piece in slices:
        for name, protocol, port in piece.ports:
            index.setdefault((piece.family, name, protocol), []).append((piece, port))
    return index


def merge(pieces: Sequence[tuple[SliceEndpoints, int]]) -> Endpoints:
    """All endpoints of one service port.

    One address and port listed twice (a pod's address reused while the old pod still terminates): the
    first stays, unless a later one is not terminating. The caller's order of slices decides.
    """
    if len(pieces) == 1:
        piece, port = pieces[0]
        return with_port(piece.endpoints, port)
    merged: dict[tuple[bytes, int], tuple[Backend, Hint]] = {}
    for piece, port in pieces:
        backends, hints = with_port(piece.endpoints, port)
        for backend, hint in zip(backends, hints or (NO_HINT,) * len(backends), strict=True):
            identity = (backend.address, port)
            if identity not in merged or not backend.state & TERMINATING:
                merged[identity] = (backend, hint)
    ordered = [merged[identity] for identity in sorted(merged)]
    hinted = any(hint is not NO_HINT for _, hint in ordered)
    return Endpoints(
        tuple(backend for backend, _ in ordered),
        tuple(hint for _, hint in ordered) if hinted else (),
    )


def _ports(ports: Sequence[EndpointPort], findings: Findings) -> tuple[SlicePort, ...]:
    usable: dict[SlicePort, None] = {}
    for i, entry in enumerate(ports):
        if not entry.port:
            continue  # the API lets it mean "all ports", which no proxy can serve
        protocol = PROTOCOL_OF_NAME.get(entry.protocol)
        if not 0 < entry.port <= MAX_PORT:
            findings.add(f"ports[{i}].port", f"out of range: {sanitized(entry.port)}; want 1 to {MAX_PORT}")
        elif protocol is None:
            reason = f"unknown protocol: {sanitized(entry.protocol)}; want TCP, UDP or SCTP"
            findings.add(f"ports[{i}].protocol", reason)
        else:
            usable[SlicePort(intern(entry.name or ""), protocol, entry.port)] = None
    return _shared_ports(tuple(usable))


@lru_cache(1024)
def _shared_ports(ports: tuple[SlicePort, ...]) -> tuple[SlicePort, ...]:
    """The same object for the same ports: most slices have one of a few lists."""
    return ports


def _endpoints(obj: EndpointSlice, family: Family, port: int, own_node: str, findings: Findings) -> Endpoints:
    namespace = obj.metadata.namespace
    plain = plain_ipv4 if family is Family.IPV4 else _never_plain
    found: dict[bytes, Backend] = {}
    hints: dict[bytes, Hint] = {}
    for i, endpoint in enumerate(obj.endpoints or ()):
        addresses, conditions = endpoint.addresses, endpoint.conditions
        if not addresses:
            findings.add(f"endpoints[{i}].addresses", "empty; list the endpoint's address")
            continue
        address = plain(addresses[0])
        if address is None:
            try:
                address = endpoint_address(addresses[0], family)
            except InvalidField as error:
                findings.add(f"endpoints[{i}].addresses[0]", error)
                continue
        state = READY | SERVING
        if conditions is not None:
            state = (
                (0 if conditions.ready is False else READY)
                | (0 if conditions.serving is False else SERVING)
                | (TERMINATING if conditions.terminating else 0)
            )
        if address in found and state & TERMINATING:
            continue
        try:
            node, zone = node_name(endpoint.nodeName), zone_name(endpoint.zone)
        except InvalidField:
            node, zone = _place(endpoint, i, findings)
        if node and node == own_node:
            state |= LOCAL
        target = endpoint.targetRef
        pod = _pod(target, namespace) if target is not None else ""
        found[address] = Backend(address, port, state, node, zone, pod)
        if endpoint.hints is not None or address in hints:
            hints[address] = _hint(endpoint.hints)
    order = sorted(found)
    hinted = any(hint is not NO_HINT for hint in hints.values())
    return Endpoints(
        tuple([found[address] for address in order]),
        tuple([hints.get(address, NO_HINT) for address in order]) if hinted else (),
    )


def _never_plain(_: str) -> None:
    return None


def _place(endpoint: Endpoint, i: int, findings: Findings) -> tuple[str, str]:
    """Node and zone of an endpoint of which at least one is no name."""
    place = ["", ""]
    for n, (field, check, text) in enumerate(
        (("nodeName", node_name, endpoint.nodeName), ("zone", zone_name, endpoint.zone))
    ):
        try:
            place[n] = check(text)
        except InvalidField as error:
            findings.add(f"endpoints[{i}].{field}", error)
    return place[0], place[1]


def _pod(reference: TargetRef, namespace: str) -> str:
    name, elsewhere = reference.name, reference.namespace
    if not name or reference.kind not in (None, "", "Pod"):
        return ""
    if len(name) > MAX_NAME or (elsewhere and len(elsewhere) > MAX_NAME):
        return ""
    return f"{elsewhere or namespace}/{name}"


def _hint(hints: Hints | None) -> Hint:
    if hints is None:
        return NO_HINT
    zones = tuple([hint.name for hint in hints.forZones or ()])
    nodes = tuple([hint.name for hint in hints.forNodes or ()])
    return _shared_hint(zones, nodes)


@lru_cache(4096)
def _shared_hint(zones: tuple[str, ...], nodes: tuple[str, ...]) -> Hint:
    return Hint(zones, nodes) if zones or nodes else NO_HINT


def with_port(endpoints: Endpoints, port: int) -> Endpoints:
    """The same endpoints with another port; the same object if it is theirs."""
    backends, hints = endpoints
    if not backends or backends[0].port == port:
        return endpoints
    return Endpoints(
        tuple([Backend(b.address, port, b.state, b.node, b.zone, b.target) for b in backends]),
        hints,
    )
