"""Services as the snapshot keeps them: only what rules read, and words that many share only once."""

from __future__ import annotations

from sys import intern

import msgspec

from pyagent.model.kube_objects import (
    ANNOTATION_NODE_LOCAL,
    LABEL_SERVICE_PROXY_NAME,
    Metadata,
    Service,
    ServicePortSpec,
    ServiceSpec,
)


class SlimService(Service, frozen=True, gc=False):
    """A Service without what no rule reads."""


def slim_service(service: Service) -> SlimService:
    """The same Service to every rule; two that differ only in what no rule reads become equal."""
    if isinstance(service, SlimService):
        return service
    metadata, spec = service.metadata, service.spec
    labels, annotations = metadata.labels or {}, metadata.annotations or {}
    node_local = annotations.get(ANNOTATION_NODE_LOCAL)
    balancer = service.status.loadBalancer if service.status else None
    return SlimService(
        Metadata(
            intern(metadata.name),
            intern(metadata.namespace),
            {LABEL_SERVICE_PROXY_NAME: ""} if LABEL_SERVICE_PROXY_NAME in labels else None,
            {ANNOTATION_NODE_LOCAL: node_local} if node_local else None,
            metadata.creationTimestamp,
        ),
        msgspec.structs.replace(
            spec,
            type=_word(spec.type),
            clusterIPs=_addresses(spec),
            ipFamilies=None if spec.ipFamilies is None else [intern(family) for family in spec.ipFamilies],
            ports=None if spec.ports is None else [_port(port) for port in spec.ports],
            sessionAffinity=_word(spec.sessionAffinity),
            internalTrafficPolicy=_word(spec.internalTrafficPolicy),
            externalTrafficPolicy=_word(spec.externalTrafficPolicy),
        ),
        service.status if balancer and balancer.ingress else None,
    )


def _addresses(spec: ServiceSpec) -> list[str] | None:
    if spec.clusterIP and spec.clusterIPs == [spec.clusterIP]:
        return [spec.clusterIP]
    return spec.clusterIPs


def _port(port: ServicePortSpec) -> ServicePortSpec:
    return ServicePortSpec(port.port, _word(port.name), _word(port.protocol), port.nodePort)


def _word(text: str | None) -> str | None:
    return text and intern(text)
