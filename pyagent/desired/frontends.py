"""The addresses that clients can dial for a service port, and which set each of them chooses from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyagent.desired.endpoint_address import plain_ipv4
from pyagent.desired.nodes import ThisNode
from pyagent.desired.problems import Findings
from pyagent.model.address import (
    PROBE_ADDRESSES,
    Family,
    Network,
    Protocol,
    family_of,
    is_link_local,
    is_loopback,
    is_multicast,
    is_unspecified,
    parse_address,
    parse_network,
)
from pyagent.model.failures import InvalidField, sanitized
from pyagent.model.kube_objects import Service, ServiceSpec
from pyagent.model.service import (
    ANY_OTHER_NODE,
    CLUSTER_SET,
    LOCAL_SET,
    OUTSIDE,
    RESTRICTED_LOCAL_SET,
    RESTRICTED_SET,
    Frontend,
    FrontendKind,
    ServiceType,
    SetKey,
    View,
)

NOWHERE_ELSE = SetKey(View.NODE, ANY_OTHER_NODE)
"""The empty set of every other node that has no endpoint of its own."""

_HEADLESS = "None"

Claimed = tuple[tuple[Frontend, SetKey], ...]


class External(NamedTuple):
    """An address outside the service range under which a Service can be dialled."""

    kind: FrontendKind
    family: Family
    address: bytes


class SourceRanges(NamedTuple):
    """Who may dial load-balancer IPs. `broken` families have a list of which nothing could be read."""

    ranges: dict[Family, tuple[Network, ...]]
    broken: frozenset[Family]


UNRESTRICTED = SourceRanges({}, frozenset())


def is_headless(spec: ServiceSpec) -> bool:
    """Whether clients get no address from us: headless or of type ExternalName."""
    first = spec.clusterIPs[0] if spec.clusterIPs else None
    return spec.type == "ExternalName" or _HEADLESS in (spec.clusterIP, first)


def read_cluster_ips(spec: ServiceSpec, findings: Findings) -> dict[Family, bytes]:
    """The ClusterIP of each family, in the Service's order.

    `ipFamilies` says which entry of `clusterIPs` has which family; objects without it (older than
    dual-stack, or written by hand) get the families of the addresses themselves.
    """
    texts = spec.clusterIPs or ([spec.clusterIP] if spec.clusterIP else [])
    if not texts:
        findings.add("spec.clusterIP", "missing; the Service is not served until it has an address")
    declared = spec.ipFamilies or []
    found: dict[Family, bytes] = {}
    for i, text in enumerate(texts):
        field = f"spec.clusterIPs[{i}]" if spec.clusterIPs else "spec.clusterIP"
        try:
            address = _cluster_ip(text)
        except InvalidField as error:
            findings.add(field, error)
            continue
        family = family_of(address)
        if declared and (i >= len(declared) or declared[i] != family.label):
            wanted = sanitized(declared[i]) if i < len(declared) else "nothing"
            findings.add(
                field, f"{sanitized(text)} is {family.label}, but spec.ipFamilies[{i}] says {wanted}"
            )
        elif family in found:
            findings.add(field, f"a second {family.label} address; a Service has one of each family")
        else:
            found[family] = address
    return found


def read_externals(
    service: Service, service_type: ServiceType, node: ThisNode, findings: Findings
) -> list[External]:
    """External and load-balancer IPs that may be served, each once.

    What is both is a load balancer's, so that nobody gets around its source ranges.
    Load-balancer IPs count only for Services of that type (what an earlier type left behind does not), and
    not if their ipMode says that the load balancer wants to see the traffic itself (KEP-1860).
    """
    found: dict[bytes, External] = {}
    for i, text in enumerate(service.spec.externalIPs or ()):
        _read_external(text, FrontendKind.EXTERNAL_IP, f"spec.externalIPs[{i}]", node, findings, found)
    balancer = service.status.loadBalancer if service.status else None
    if service_type is not ServiceType.LOAD_BALANCER or balancer is None:
        return list(found.values())
    for i, ingress in enumerate(balancer.ingress or ()):
        field = f"status.loadBalancer.ingress[{i}]"
        if ingress.ipMode not in (None, "VIP", "Proxy"):
            findings.add(f"{field}.ipMode", f"unknown: {sanitized(ingress.ipMode)}; VIP is assumed")
        if ingress.ipMode != "Proxy":
            text = ingress.ip or ""
            _read_external(text, FrontendKind.LOAD_BALANCER_IP, f"{field}.ip", node, findings, found)
    return list(found.values())


def read_source_ranges(spec: ServiceSpec, findings: Findings) -> SourceRanges:
    """loadBalancerSourceRanges by family; a range of everything lifts the restriction of its family."""
    if not spec.loadBalancerSourceRanges:
        return UNRESTRICTED
    ranges: dict[Family, list[Network]] = {}
    unread: set[Family] = set()
    for i, text in enumerate(spec.loadBalancerSourceRanges):
        try:
            network = parse_network(text)
        except InvalidField as error:
            findings.add(f"spec.loadBalancerSourceRanges[{i}]", error)
            unread.add(Family.IPV6 if ":" in text else Family.IPV4)
            continue
        ranges.setdefault(network.family, []).append(network)
    restricted = {
        family: tuple(dict.fromkeys(networks))
        for family, networks in ranges.items()
        if not any(_is_everything(network) for network in networks)
    }
    return SourceRanges(restricted, frozenset(unread - ranges.keys()))


def cluster_ip_frontend(family: Family, protocol: Protocol, port: int, address: bytes) -> Frontend:
    return Frontend(FrontendKind.CLUSTER_IP, family, protocol, port, address)


def node_port_frontends(
    family: Family,
    protocol: Protocol,
    node_port: int,
    external_local: bool,
    remote: bool,
    nodes_with_endpoints: Iterable[str],
) -> Iterator[tuple[Frontend, SetKey]]:
    """The nodePort on this node, and on others if those are translated too.

    A client in the cluster that dials its own node ignores externalTrafficPolicy Local, as kube-proxy's
    short-circuit does. On another node it gets that node's own endpoints, or an error at once.
    """

    def on(node: str) -> Frontend:
        return Frontend(FrontendKind.NODE_PORT, family, protocol, node_port, b"", node)

    yield on(""), CLUSTER_SET
    if not remote:
        return
    if not external_local:
        yield on(ANY_OTHER_NODE), CLUSTER_SET
        return
    for name in nodes_with_endpoints:
        yield on(name), SetKey(View.NODE, name)
    yield on(ANY_OTHER_NODE), NOWHERE_ELSE


def from_outside(claimed: Iterable[tuple[Frontend, SetKey]]) -> Iterator[tuple[Frontend, SetKey]]:
    """What packets from outside get of these, under externalTrafficPolicy Local: this node's endpoints.

    Sockets in the cluster ignore that policy, see `node_port_frontends`.
    """
    for frontend, set_key in claimed:
        if frontend.kind is not FrontendKind.CLUSTER_IP and not frontend.node:
            restricted = set_key == RESTRICTED_SET
            yield frontend._replace(node=OUTSIDE), RESTRICTED_LOCAL_SET if restricted else LOCAL_SET


def cluster_ip_set(internal_local: bool) -> SetKey:
    return LOCAL_SET if internal_local else CLUSTER_SET


def _cluster_ip(text: str) -> bytes:
    plain = plain_ipv4(text)
    if plain is not None:
        return plain
    address = parse_address(text)
    if is_loopback(address) or is_unspecified(address) or is_multicast(address):
        raise InvalidField("cannot be a ClusterIP; take one from the service range", text)
    if address in PROBE_ADDRESSES:
        raise InvalidField("reserved for the agent's self-probe; take one from the service range", text)
    return address


def _read_external(
    text: str,
    kind: FrontendKind,
    field: str,
    node: ThisNode,
    findings: Findings,
    found: dict[bytes, External],
) -> None:
    if not text:
        return
    try:
        address = parse_address(text)
    except InvalidField as error:
        findings.add(field, error)
        return
    reason = _why_not_external(address, kind, node)
    if reason:
        findings.add(field, f"{sanitized(text)} is not served: {reason}")
        return
    if kind is FrontendKind.LOAD_BALANCER_IP or address not in found:
        found[address] = External(kind, family_of(address), address)


def _why_not_external(address: bytes, kind: FrontendKind, node: ThisNode) -> str:
    """CVE-2020-8554: who may create a Service must not take over what other clients dial."""
    listed = node.external_ip_cidrs is not None and any(
        address in network for network in node.external_ip_cidrs
    )
    if is_loopback(address) or is_unspecified(address) or is_multicast(address):
        return "loopback, unspecified and multicast addresses are never a Service's"
    if address in PROBE_ADDRESSES:
        return "it is reserved for the agent's self-probe; use another one"
    if address in node.node_addresses:
        return "it is the address of a node; use a nodePort or another address"
    if address in node.protected_addresses:
        return "it is the address of the API server; use another one"
    if kind is FrontendKind.LOAD_BALANCER_IP:
        return "" if not is_link_local(address) else "it is link-local; the load balancer must give another"
    if node.external_ip_cidrs is not None and not listed:
        return "it is outside --external-ip-cidrs; ask the operator to allow its range"
    if not listed and is_link_local(address):
        return "it is link-local; list it in --external-ip-cidrs to allow it"
    if not listed and address in node.interface_addresses:
        return "an interface of this node has it; list it in --external-ip-cidrs to allow it"
    return ""


def _is_everything(network: Network) -> bool:
    return network.prefix == (96 if network.family is Family.IPV4 else 0)
