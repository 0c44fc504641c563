"""One Service and its EndpointSlices -> the Service as this node should serve it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pyagent.desired.endpoint_choice import Choice, choose
from pyagent.desired.endpoints import (
    LOCAL,
    NO_ENDPOINTS,
    ON_NODE_ADDRESS,
    READY,
    SERVING,
    Endpoints,
    PortIndex,
    SliceEndpoints,
    index_ports,
    merge,
)
from pyagent.desired.frontends import (
    Claimed,
    cluster_ip_frontend,
    cluster_ip_set,
    from_outside,
    is_headless,
    node_port_frontends,
    read_cluster_ips,
)
from pyagent.desired.merged import Pieces
from pyagent.desired.nodes import ThisNode
from pyagent.desired.problems import Findings
from pyagent.desired.service_rules import (
    PortSpec,
    Rules,
    read_created,
    read_health_check_port,
    read_ports,
    read_rules,
)
from pyagent.model.address import Family, Network
from pyagent.model.kube_objects import LABEL_SERVICE_PROXY_NAME, Metadata, Service
from pyagent.model.outcome import Outcome
from pyagent.model.service import (
    CLUSTER_SET,
    LOCAL_SET,
    MAX_SET_BACKENDS,
    NODE_LOCAL_SET,
    RESTRICTED_LOCAL_SET,
    RESTRICTED_SET,
    Backend,
    BackendSet,
    Frontend,
    FrontendKind,
    PolicyBit,
    ServicePort,
    ServicePortKey,
    ServiceView,
    SetKey,
)

MAX_SERVICE_ENTRIES = 1_000_000
"""Backends and frontends of all ports of one Service: one object must not exhaust the node's memory."""

_INTERNAL_LOCAL = int(PolicyBit.INTERNAL_LOCAL)
_EXTERNAL_LOCAL = int(PolicyBit.EXTERNAL_LOCAL)
_SOURCE_RANGES = int(PolicyBit.SOURCE_RANGES)


def merge_anew(_key: ServicePortKey, pieces: Pieces) -> Endpoints:
    """`merge`, for whoever has no memory."""
    return merge(pieces)


def service_view(
    service: Service,
    slices: Sequence[SliceEndpoints],
    node: ThisNode,
    merging: Callable[[ServicePortKey, Pieces], Endpoints] = merge_anew,
) -> ServiceView | None:
    """The Service as this node should serve it; None if it is headless or of type ExternalName.

    Fields that cannot be used are left out or replaced by the API's default, and reported.

    Args:
        slices: of this Service, in the order of their names.
        merging: `merge`, or a `Merger`, which does the same.
    """
    spec, metadata = service.spec, service.metadata
    if is_headless(spec):
        return None
    findings = Findings("Service", metadata.namespace, metadata.name)
    cluster_ips = read_cluster_ips(spec, findings)
    created = read_created(metadata, findings)
    addresses = tuple(cluster_ips.values())
    if LABEL_SERVICE_PROXY_NAME in (metadata.labels or {}):
        return ServiceView(
            metadata.namespace, metadata.name, created, (), addresses, True, findings.problems()
        )
    rules = read_rules(service, cluster_ips, node, findings)
    ports, sctp_ports = read_ports(spec, rules.service_type, findings)
    index = index_ports(slices)
    served = (
        tuple(_service_ports(metadata, rules, ports, index, node, findings, merging)) if cluster_ips else ()
    )
    health_check_port = read_health_check_port(spec, rules, findings)
    return ServiceView(
        metadata.namespace,
        metadata.name,
        created,
        served,
        addresses,
        False,
        findings.problems(),
        health_check_port,
        _local_ready(slices) if health_check_port else 0,
        sctp_ports,
    )


def _service_ports(
    metadata: Metadata,
    rules: Rules,
    ports: Sequence[PortSpec],
    index: PortIndex,
    node: ThisNode,
    findings: Findings,
    merging: Callable[[ServicePortKey, Pieces], Endpoints],
) -> Iterable[ServicePort]:
    entries = 0
    for port in ports:
        for family in rules.cluster_ips:
            pieces = index.get((family, port.name, port.protocol))
            size = sum(len(piece.endpoints.backends) for piece, _ in pieces) if pieces else 0
            entries += size + 1 + len(rules.externals)
            if entries > MAX_SERVICE_ENTRIES:
                reason = f"more than {MAX_SERVICE_ENTRIES} endpoints and addresses in one Service; split it"
                findings.add(f"spec.ports[{port.entry}]", f"{reason}. Ports from here on are not served")
                return
            key = ServicePortKey(metadata.namespace, metadata.name, port.name, port.protocol, family)
            endpoints = _mark_node_addresses(merging(key, pieces), node) if pieces else NO_ENDPOINTS
            if len(endpoints.backends) > MAX_SET_BACKENDS:
                backends, hints = endpoints
                endpoints = Endpoints(backends[:MAX_SET_BACKENDS], hints[:MAX_SET_BACKENDS])
                reason = f"more than {MAX_SET_BACKENDS} endpoints; the rest is not used"
                findings.add(f"spec.ports[{port.entry}]", reason)
            yield _service_port(key, rules, port, endpoints, node)


def _service_port(
    key: ServicePortKey, rules: Rules, port: PortSpec, endpoints: Endpoints, node: ThisNode
) -> ServicePort:
    family = key.family
    local_elsewhere = bool(rules.external_local and port.node_port and node.remote_node_ports)
    local = rules.internal_local or rules.external_local
    choice = choose(endpoints, node.name, node.zone, local=local, other_nodes=local_elsewhere)
    node_local = _node_local(family, rules, port, node)
    inside = NODE_LOCAL_SET if node_local else cluster_ip_set(rules.internal_local)
    frontends = _frontends(family, rules, port, choice, node, inside)
    sets: dict[SetKey, BackendSet] = {}
    for _, set_key in frontends:
        if set_key not in sets:
            sets[set_key] = _backend_set(set_key, choice, node_local)
    ranges = _admitted(family, rules, node)
    policy = (
        (_INTERNAL_LOCAL if rules.internal_local else 0)
        | (_EXTERNAL_LOCAL if rules.external_local else 0)
        | (_SOURCE_RANGES if ranges else 0)
    )
    return ServicePort(
        key, rules.service_type, tuple(sets.values()), frontends, rules.affinity_seconds, policy, ranges
    )


def _node_local(family: Family, rules: Rules, port: PortSpec, node: ThisNode) -> tuple[Backend, ...]:
    """Who serves the ClusterIP on this node itself: the annotated address, while an interface here has it.

    A DNS cache takes its address off the node when it ends, and the endpoints serve again.
    """
    address = rules.node_local.get(family)
    if address is None or not (address in node.interface_addresses or address in node.link_local_addresses):
        return ()
    state = READY | SERVING | LOCAL | ON_NODE_ADDRESS
    return (Backend(address, port.port, state, node.name, node.zone, ""),)


def _admitted(family: Family, rules: Rules, node: ThisNode) -> tuple[Network, ...]:
    """The source ranges; where they contain this node, also the load-balancer IPs (as kube-proxy does)."""
    ranges = rules.source_ranges.ranges.get(family, ())
    if not any(address in network for address in node.own_addresses for network in ranges):
        return ranges
    balancers = [e for e in rules.externals if e.kind is FrontendKind.LOAD_BALANCER_IP and e.family is family]
    return (*ranges, *(Network(external.address, 128) for external in balancers))


def _frontends(
    family: Family, rules: Rules, port: PortSpec, choice: Choice, node: ThisNode, inside: SetKey
) -> Claimed:
    cluster_ip = cluster_ip_frontend(family, port.protocol, port.port, rules.cluster_ips[family])
    frontends = [(cluster_ip, inside)]
    for external in rules.externals:
        if external.family is not family or external.address in rules.cluster_ips.values():
            continue
        if external.kind is FrontendKind.LOAD_BALANCER_IP and family in rules.source_ranges.broken:
            continue  # who may dial it is unknown: left to the load balancer, which checks by itself
        frontend = Frontend(external.kind, family, port.protocol, port.port, external.address)
        restricted = external.kind is FrontendKind.LOAD_BALANCER_IP and family in rules.source_ranges.ranges
        frontends.append((frontend, RESTRICTED_SET if restricted else CLUSTER_SET))
    if port.node_port:
        frontends += node_port_frontends(
            family,
            port.protocol,
            port.node_port,
            rules.external_local,
            node.remote_node_ports,
            choice.of_other_nodes,
        )
    if rules.external_local:
        frontends += tuple(from_outside(frontends))
    return tuple(frontends)


def _backend_set(key: SetKey, choice: Choice, node_local: tuple[Backend, ...]) -> BackendSet:
    if key == NODE_LOCAL_SET:
        return BackendSet(key, node_local)
    if key in (CLUSTER_SET, RESTRICTED_SET):
        return BackendSet(key, choice.cluster)
    here = key in (LOCAL_SET, RESTRICTED_LOCAL_SET)
    backends = choice.local if here else choice.of_other_nodes.get(key.node, ())
    if not backends and choice.usable_anywhere:
        return BackendSet(key, (), Outcome.REFUSED_NO_LOCAL_ENDPOINTS)
    return BackendSet(key, backends)


def _mark_node_addresses(endpoints: Endpoints, node: ThisNode) -> Endpoints:
    """A socket bound to loopback can reach the node's own addresses, and no other endpoint."""
    own = node.interface_addresses
    here = [b for b in endpoints.backends if b.state & LOCAL or not b.node]  # nobody else can have them
    if own.isdisjoint([b.address for b in here]):
        return endpoints
    return Endpoints(tuple([_on_node(b, own) for b in endpoints.backends]), endpoints.hints)


def _on_node(backend: Backend, own: frozenset[bytes]) -> Backend:
    if backend.address not in own:
        return backend
    state = backend.state | ON_NODE_ADDRESS
    return Backend(backend.address, backend.port, state, backend.node, backend.zone, backend.target)


def _local_ready(slices: Sequence[SliceEndpoints]) -> int:
    """Distinct addresses of ready endpoints here; a dual-stack pod counts once."""
    wanted = LOCAL | READY
    ready: dict[Family, set[bytes]] = {family: set() for family in Family}
    for piece in slices:
        backends = piece.endpoints.backends
        ready[piece.family].update(b.address for b in backends if b.state & wanted == wanted)
    return max(len(addresses) for addresses in ready.values())
