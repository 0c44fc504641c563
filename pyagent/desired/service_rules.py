"""The fields of one Service, read once: what holds for all its ports, and which ports can be served."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

from pyagent.desired.endpoints import MAX_PORT, PROTOCOL_OF_NAME
from pyagent.desired.frontends import External, SourceRanges, read_externals, read_source_ranges
from pyagent.desired.names import is_label
from pyagent.desired.nodes import ThisNode
from pyagent.desired.problems import Findings
from pyagent.model.address import (
    Family,
    Protocol,
    family_of,
    is_loopback,
    is_multicast,
    is_unspecified,
    parse_address,
)
from pyagent.model.failures import InvalidField, sanitized
from pyagent.model.kube_objects import ANNOTATION_NODE_LOCAL, Metadata, Service, ServicePortSpec, ServiceSpec
from pyagent.model.service import ServiceType

DEFAULT_AFFINITY_SECONDS = 10_800
MAX_AFFINITY_SECONDS = 86_400

_TYPES = {None: ServiceType.CLUSTER_IP, "": ServiceType.CLUSTER_IP} | {t.label: t for t in ServiceType}
_UTC_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class PortSpec(NamedTuple):
    """A usable entry of `spec.ports`."""

    entry: int  # its index there
    name: str
    protocol: Protocol
    port: int
    node_port: int  # 0: none


class Rules(NamedTuple):
    """What holds for all ports of a Service."""

    service_type: ServiceType
    internal_local: bool
    external_local: bool
    affinity_seconds: int
    cluster_ips: dict[Family, bytes]
    externals: list[External]
    source_ranges: SourceRanges
    node_local: dict[Family, bytes]


def read_rules(
    service: Service, cluster_ips: dict[Family, bytes], node: ThisNode, findings: Findings
) -> Rules:
    """Type, policies, affinity and addresses; unknown values count as the API's defaults."""
    spec = service.spec
    service_type = _TYPES.get(spec.type)
    if service_type is None:
        findings.add("spec.type", f"unknown: {sanitized(spec.type)}; ClusterIP is assumed")
        service_type = ServiceType.CLUSTER_IP
    external_local = _is_local(spec.externalTrafficPolicy, "spec.externalTrafficPolicy", findings)
    reachable = service_type is not ServiceType.CLUSTER_IP or bool(spec.externalIPs)
    return Rules(
        service_type,
        _is_local(spec.internalTrafficPolicy, "spec.internalTrafficPolicy", findings),
        external_local and reachable,
        _affinity_seconds(spec, findings),
        cluster_ips,
        read_externals(service, service_type, node, findings),
        read_source_ranges(spec, findings),
        read_node_local(service.metadata, findings),
    )


def read_node_local(metadata: Metadata, findings: Findings) -> dict[Family, bytes]:
    """The addresses of the annotation, one of each family; what cannot be one is left out."""
    text = (metadata.annotations or {}).get(ANNOTATION_NODE_LOCAL, "")
    found: dict[Family, bytes] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        field = f"metadata.annotations[{ANNOTATION_NODE_LOCAL}]"
        try:
            address = parse_address(part)
        except InvalidField as error:
            findings.add(field, error)
            continue
        if is_loopback(address) or is_unspecified(address) or is_multicast(address):
            findings.add(field, f"{sanitized(part)} cannot be dialled from a pod; name one of the node")
        elif family_of(address) in found:
            findings.add(field, f"{sanitized(part)} is a second one of its family; the first counts")
        else:
            found[family_of(address)] = address
    return found


def _is_local(policy: str | None, field: str, findings: Findings) -> bool:
    if policy not in (None, "", "Cluster", "Local"):
        findings.add(field, f"unknown: {sanitized(policy)}; Cluster is assumed")
    return policy == "Local"


def _affinity_seconds(spec: ServiceSpec, findings: Findings) -> int:
    if spec.sessionAffinity in (None, "", "None"):
        return 0
    if spec.sessionAffinity != "ClientIP":
        findings.add("spec.sessionAffinity", f"unknown: {sanitized(spec.sessionAffinity)}; None is assumed")
        return 0
    config = spec.sessionAffinityConfig
    seconds = config.clientIP.timeoutSeconds if config and config.clientIP else None
    if seconds is None:
        return DEFAULT_AFFINITY_SECONDS
    if not 1 <= seconds <= MAX_AFFINITY_SECONDS:
        reason = (
            f"{sanitized(seconds)} is not in 1 to {MAX_AFFINITY_SECONDS}; {DEFAULT_AFFINITY_SECONDS} is used"
        )
        findings.add("spec.sessionAffinityConfig.clientIP.timeoutSeconds", reason)
        return DEFAULT_AFFINITY_SECONDS
    return seconds


def read_ports(
    spec: ServiceSpec, service_type: ServiceType, findings: Findings
) -> tuple[list[PortSpec], int]:
    """(usable ports, how many are SCTP). Ports that collide with an earlier one are left out."""
    usable: list[PortSpec] = []
    numbers: set[tuple[int, Protocol]] = set()
    names: set[tuple[str, Protocol]] = set()
    node_ports: set[tuple[int, Protocol]] = set()
    sctp_ports = 0
    for i, entry in enumerate(spec.ports or ()):
        protocol = PROTOCOL_OF_NAME.get(entry.protocol)
        if protocol is None:
            reason = f"unknown: {sanitized(entry.protocol)}; want TCP, UDP or SCTP"
            findings.add(f"spec.ports[{i}].protocol", reason)
        elif fault := _why_no_port(entry, protocol, numbers, names):
            findings.add(f"spec.ports[{i}].{fault[0]}", fault[1])
        elif protocol is Protocol.SCTP:
            sctp_ports += 1
        else:
            name = entry.name or ""
            numbers.add((entry.port, protocol))
            names.add((name, protocol))
            node_port = _node_port(entry.nodePort, protocol, service_type, node_ports, i, findings)
            usable.append(PortSpec(i, name, protocol, entry.port, node_port))
    return usable, sctp_ports


def _why_no_port(
    entry: ServicePortSpec,
    protocol: Protocol,
    numbers: set[tuple[int, Protocol]],
    names: set[tuple[str, Protocol]],
) -> tuple[str, str] | None:
    """(field, reason) if an entry cannot be served beside the earlier ones."""
    name = entry.name or ""
    if not 0 < entry.port <= MAX_PORT:
        return "port", f"out of range: {sanitized(entry.port)}; want 1 to {MAX_PORT}"
    if name and not is_label(name):
        return "name", f"not a port name: {sanitized(name)}; the port is left out"
    if (entry.port, protocol) in numbers:
        return "port", f"{entry.port}/{protocol.name} is listed twice; the first one is served"
    if (name, protocol) in names:
        return "name", f"{sanitized(name)} is listed twice; the first one is served"
    return None


def _node_port(
    node_port: int | None,
    protocol: Protocol,
    service_type: ServiceType,
    taken: set[tuple[int, Protocol]],
    i: int,
    findings: Findings,
) -> int:
    if not node_port:
        return 0
    if not 0 < node_port <= MAX_PORT:
        reason = f"out of range: {sanitized(node_port)}; want 1 to {MAX_PORT}"
    elif service_type is ServiceType.CLUSTER_IP:
        reason = "not used by a Service of type ClusterIP; set type NodePort or LoadBalancer"
    elif (node_port, protocol) in taken:
        reason = f"{node_port}/{protocol.name} is listed twice; the first port keeps it"
    else:
        taken.add((node_port, protocol))
        return node_port
    findings.add(f"spec.ports[{i}].nodePort", reason)
    return 0


def read_health_check_port(spec: ServiceSpec, rules: Rules, findings: Findings) -> int:
    """Where the load balancer asks for this node's local endpoints; 0: nowhere."""
    port = spec.healthCheckNodePort or 0
    if not port or rules.service_type is not ServiceType.LOAD_BALANCER or not rules.external_local:
        return 0
    if not 0 < port <= MAX_PORT:
        reason = f"out of range: {sanitized(port)}; want 1 to {MAX_PORT}. There is no health check"
        findings.add("spec.healthCheckNodePort", reason)
        return 0
    return port


def read_created(metadata: Metadata, findings: Findings) -> str:
    """The creation time in one notation, so that texts compare as times; "" if there is none."""
    text = metadata.creationTimestamp or ""
    if not text or _UTC_SECONDS.fullmatch(text):
        return text
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        reason = f"not a time: {sanitized(text)}; the Service counts as the youngest"
        findings.add("metadata.creationTimestamp", reason)
        return ""
