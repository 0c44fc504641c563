"""Nodes: what we keep of them, what this node is, and which addresses answer on nodePorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from pyagent.desired.names import zone_name
from pyagent.desired.problems import Findings
from pyagent.model.address import (
    Family,
    Network,
    family_of,
    format_address,
    is_loopback,
    is_multicast,
    is_unspecified,
    parse_address,
)
from pyagent.model.failures import InvalidField
from pyagent.model.kube_objects import LABEL_ZONE, TAINT_TO_BE_DELETED, Node
from pyagent.model.source_events import Problem

_ADDRESS_TYPES = ("InternalIP", "ExternalIP")
UNSPECIFIED = bytes(16)


class Settings(msgspec.Struct, frozen=True):
    """What the operator and the machine say, next to the objects."""

    node_name: str
    zone: str = ""  # used while the own Node object has no zone label
    interface_addresses: frozenset[bytes] = frozenset()  # of this node, loopback included
    link_local_addresses: frozenset[bytes] = frozenset()  # this node's too, for nodePorts never
    bind_address: bytes = UNSPECIFIED  # --bind-address: this node's first address of its family
    node_port_ranges: tuple[Network, ...] | None = None  # --nodeport-addresses; None: "primary"
    remote_node_ports: bool = False  # also translate nodePorts of other nodes
    external_ip_cidrs: tuple[Network, ...] | None = None  # spec.externalIPs allowed; None: all
    protected_addresses: frozenset[bytes] = frozenset()  # no external address may be one: the API server's
    service_cidrs: tuple[Network, ...] = ()


class NodeFacts(msgspec.Struct, frozen=True, gc=False):
    """What we keep of a Node object."""

    name: str
    zone: str = ""
    addresses: tuple[bytes, ...] = ()  # internal ones first
    deleted: bool = False  # has a deletionTimestamp
    to_be_deleted: bool = False  # tainted by the cluster autoscaler
    problems: tuple[Problem, ...] = ()


class ThisNode(msgspec.Struct, frozen=True):
    """From where Services are looked at: settings and the Nodes' facts in the form that rules ask for."""

    name: str
    zone: str = ""
    interface_addresses: frozenset[bytes] = frozenset()
    link_local_addresses: frozenset[bytes] = frozenset()
    own_addresses: frozenset[bytes] = frozenset()  # of the Node object; of the interfaces without one
    node_addresses: frozenset[bytes] = frozenset()  # the same, and those of the other nodes we know
    protected_addresses: frozenset[bytes] = frozenset()
    external_ip_cidrs: tuple[Network, ...] | None = None
    remote_node_ports: bool = False


def read_node(node: Node) -> NodeFacts:
    """Zone, addresses and signs of deletion of a Node."""
    findings = Findings("Node", "", node.metadata.name)
    zone = ""
    try:
        zone = zone_name((node.metadata.labels or {}).get(LABEL_ZONE, ""))
    except InvalidField as error:
        findings.add(f"metadata.labels[{LABEL_ZONE}]", error)
    listed = (node.status.addresses or []) if node.status else []
    addresses: dict[bytes, None] = {}
    for wanted in _ADDRESS_TYPES:
        for i, entry in enumerate(listed):
            if entry.type != wanted:
                continue
            try:
                addresses[_node_address(entry.address)] = None
            except InvalidField as error:
                findings.add(f"status.addresses[{i}].address", error)
    return NodeFacts(
        node.metadata.name,
        zone,
        tuple(addresses),
        node.metadata.deletionTimestamp is not None,
        any(taint.key == TAINT_TO_BE_DELETED for taint in ((node.spec.taints or ()) if node.spec else ())),
        findings.problems(),
    )


def this_node(settings: Settings, nodes: Mapping[str, NodeFacts]) -> ThisNode:
    """Where we stand, by the settings and the Node objects known now."""
    own = nodes.get(settings.node_name)
    own_addresses = frozenset(_named_addresses(settings, own))
    if not own_addresses:
        own_addresses = frozenset(a for a in settings.interface_addresses if not is_loopback(a))
    return ThisNode(
        settings.node_name,
        (own.zone if own else "") or settings.zone,
        settings.interface_addresses,
        settings.link_local_addresses,
        own_addresses,
        own_addresses.union(*(facts.addresses for facts in nodes.values())),
        settings.protected_addresses,
        settings.external_ip_cidrs,
        settings.remote_node_ports,
    )


def answering_addresses(
    settings: Settings, nodes: Mapping[str, NodeFacts]
) -> tuple[dict[bytes, str], tuple[Problem, ...]]:
    """The addresses whose nodePorts we serve: address -> node name, "" for this node.

    An address that two Nodes claim goes to the one whose name comes first; our own are always ours.
    Other nodes are taken to have our ranges: a nodePort must not be reached from here at an address where
    its own node does not answer.
    """
    others: dict[str, list[bytes]] = {}
    if settings.remote_node_ports:
        for name in sorted(nodes.keys() - {settings.node_name}):
            others[name] = [a for a in nodes[name].addresses if _may_answer(a, settings.node_port_ranges)]
    answering: dict[bytes, str] = {}
    for name, addresses in others.items():
        for address in addresses:
            answering.setdefault(address, name)
    own = nodes.get(settings.node_name)
    for address in settings.interface_addresses.union(_named_addresses(settings, own)):
        answering.pop(address, None)
    problems = [
        _doubled_address(name, address, answering.get(address, ""))
        for name, addresses in others.items()
        for address in addresses
        if answering.get(address) != name
    ]
    answering |= dict.fromkeys(own_answering_addresses(settings, own), "")
    return answering, tuple(problems)


def own_answering_addresses(settings: Settings, own: NodeFacts | None) -> frozenset[bytes]:
    """The addresses of this node that answer on nodePorts (`--nodeport-addresses`).

    "primary": of each family --bind-address, else the Node's first internal, else external address, and
    loopback; a family without one answers nowhere. With neither: every interface address. Ranges: the
    interface addresses inside them; loopback only if they contain it. A family that no range names
    answers on all its addresses, as in kube-proxy.
    """
    interfaces = settings.interface_addresses
    ranges = settings.node_port_ranges
    if ranges is None:
        named = _named_addresses(settings, own)
        if not named:
            return interfaces
        first: dict[Family, bytes] = {}
        for address in named:
            first.setdefault(family_of(address), address)
        return frozenset(first.values()) | {a for a in interfaces if is_loopback(a)}
    return frozenset(a for a in interfaces if _may_answer(a, ranges))


def _named_addresses(settings: Settings, own: NodeFacts | None) -> tuple[bytes, ...]:
    """What the operator and the Node object call this node's addresses, the primary ones first."""
    listed = own.addresses if own else ()
    bound = settings.bind_address
    return listed if is_unspecified(bound) else (bound, *listed)


def _may_answer(address: bytes, ranges: Sequence[Network] | None) -> bool:
    """Whether ranges leave an address in; a family that none of them names is left whole."""
    of_family = [network for network in ranges or () if network.family is family_of(address)]
    return not of_family or any(address in network for network in of_family)


def _node_address(text: str) -> bytes:
    address = parse_address(text)
    if is_loopback(address) or is_unspecified(address) or is_multicast(address):
        raise InvalidField("cannot be the address of a node", text)
    return address


def _doubled_address(name: str, address: bytes, owner: str) -> Problem:
    holder = f"Node {owner}" if owner else "this node"
    reason = f"{format_address(address)} is also the address of {holder}, which keeps its nodePorts"
    return Problem("Node", "", name, "status.addresses", f"{reason}; delete the stale Node")
