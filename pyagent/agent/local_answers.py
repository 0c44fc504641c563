"""What the agent tells on its socket: values made of what the loop, the facts and the settings say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isinf
from typing import Any

from pyagent.agent.facts_view import View
from pyagent.agent.inbox import Standing
from pyagent.desired.endpoints import SliceEndpoints
from pyagent.desired.frontends import is_headless
from pyagent.desired.snapshot import ServiceName
from pyagent.model.kube_objects import LABEL_SERVICE_PROXY_NAME, Service
from pyagent.model.service import ServicePort
from pyagent.view.explain_endpoints import Place, endpoint_facts
from pyagent.view.explain_facts import FrontendFacts, NodeFacts, PortFacts, ServiceFacts, view_of


def service_facts(standing: Standing, names: Iterable[ServiceName]) -> NodeFacts:
    """What is known of some Services; unknown ones are left out."""
    node = standing.desired.node
    found = [_service(standing, name) for name in names]
    return NodeFacts(node.name, node.zone, tuple(one for one in found if one is not None))


def services_at(standing: Standing, address: bytes) -> list[ServiceName]:
    """The Services that have an address, as ClusterIP or other frontend (all their ports have the same)."""
    return [
        name
        for name, view in standing.desired.views.items()
        if address in view.cluster_ips
        or any(frontend.address == address for port in view.ports[:2] for frontend, _ in port.frontends)
    ]


def _service(standing: Standing, name: ServiceName) -> ServiceFacts | None:
    service = standing.snapshot.services.get(name)
    slices = standing.snapshot.slices_of(name)
    if service is None:
        return None
    view = standing.desired.views.get(name)
    ports = tuple(_port(standing, port, slices) for port in view.ports) if view is not None else ()
    return ServiceFacts(
        name[0],
        name[1],
        "" if ports else _why_not_served(service, standing.planned),
        ports,
        tuple(_problems(standing, name, slices)),
    )


def _why_not_served(service: Service, planned: bool) -> str:
    if not planned:
        return "nothing is planned yet"
    if service.spec.type == "ExternalName":
        return "it is of type ExternalName, which is a matter of DNS alone"
    if is_headless(service.spec):
        return "it is headless: clients get its pods' addresses from DNS"
    if LABEL_SERVICE_PROXY_NAME in (service.metadata.labels or {}):
        return f"its label {LABEL_SERVICE_PROXY_NAME} gives it to another proxy"
    return "it has no address or no port that can be served"


def _port(standing: Standing, port: ServicePort, slices: Sequence[SliceEndpoints]) -> PortFacts:
    node = standing.desired.node
    key = port.key
    frontends = []
    for frontend, set_key in port.frontends:
        owner = standing.desired.owner(frontend.dialled)
        lost_to = str(owner[0]) if owner is not None and owner[0] != key else ""
        frontends.append(FrontendFacts(str(frontend), frontend.kind.label, view_of(set_key), lost_to))
    sets = [one.key for one in port.sets]
    endpoints = endpoint_facts(slices, key, sets, Place(node.name, node.zone))
    no_room = key in standing.held.waiting.service_ports
    return PortFacts(str(key), key.family.label, tuple(frontends), endpoints, no_room)


def _problems(standing: Standing, name: ServiceName, slices: Sequence[SliceEndpoints]) -> Iterable[str]:
    for problem in standing.desired.problems:
        if problem.kind == "Service" and (problem.namespace, problem.name) == name:
            yield str(problem)
    for piece in slices:
        yield from map(str, piece.problems)


def sync(view: View) -> dict[str, Any]:
    """How sources, plans and hooks stand. Ages in seconds."""
    return {
        "ready": view.ready,
        "observing": view.observing,
        "notReadyBecause": list(view.not_ready_because),
        "healthy": view.healthy,
        "startedSecondsAgo": round(view.now - view.started, 3),
        "sources": [
            {
                "kind": kind,
                "state": watch.state,
                "ageSeconds": round(watch.age, 3),
                "resourceVersion": watch.resource_version,
                "disconnects": watch.disconnects,
                "error": watch.error,
            }
            for kind, watch in view.watches.items()
        ],
        "lastPlan": {
            "secondsAgo": round(view.now - view.last_updated, 3) if view.planned else None,
            "writes": view.writes,
            "failures": view.failures,
            "error": view.last_error,
            "waitingSeconds": round(view.queued_for, 3),
            "serviceChanges": view.service_changes,
            "endpointChanges": view.endpoint_changes,
        },
        "latency": {
            "changes": view.changes.count,
            "halfWithinSeconds": _finite(view.changes.below(0.5)),
            "mostWithinSeconds": _finite(view.changes.below(0.99)),
        },
        "problems": [str(problem) for problem in view.problems],
        "noRoom": list(view.unfit),
        "repairs": view.repairs,
    }


def _finite(seconds: float | None) -> float | None:
    """JSON knows no infinity, which is the last bound of a histogram."""
    return None if seconds is None or isinf(seconds) else seconds
