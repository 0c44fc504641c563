"""What the losers of a conflict over an address are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyagent.desired.claims import Claim, Dialled
from pyagent.model.address import format_address
from pyagent.model.service import FrontendKind, ServicePortKey, ServiceView
from pyagent.model.source_events import Problem

ServiceName = tuple[str, str]

_YOUNGEST = "~"  # sorts after every creation time
_FIELD = {
    FrontendKind.CLUSTER_IP: "spec.clusterIP",
    FrontendKind.EXTERNAL_IP: "spec.externalIPs",
    FrontendKind.LOAD_BALANCER_IP: "status.loadBalancer.ingress",
    FrontendKind.NODE_PORT: "spec.ports[].nodePort",
}


def age(view: ServiceView) -> tuple[str, str, str]:
    """Orders Services from the oldest; those without a creation time come last, then names decide."""
    return view.created or _YOUNGEST, view.namespace, view.name


def frontend_rank(dialled: Dialled, key: ServicePortKey, view: ServiceView) -> tuple[object, ...]:
    """Orders the claimants of a frontend.

    Whose ClusterIP it is comes first: those are allocated by the API server, while anybody who may create
    a Service chooses its external IPs, and age is no protection for a younger victim (CVE-2020-8554).
    """
    return dialled[3] not in view.cluster_ips, age(view), key


def lost_frontends(
    dialled: Dialled, owner: Claim, waiting: Iterable[Claim], views: Mapping[ServiceName, ServiceView]
) -> tuple[Problem, ...]:
    """Problems of those who claim a frontend that another service port owns.

    A nodePort lost on several nodes or in both families is one and the same problem.
    """
    _, protocol, port, address, _ = dialled
    winner = views[owner[0][:2]]
    problems = []
    for key, _ in waiting:
        loser = views[key[:2]]
        kind = _kind(dialled, loser)
        if kind is FrontendKind.CLUSTER_IP and address in winner.cluster_ips:
            continue  # told once for the address, see doubled_cluster_ip
        what = f"{format_address(address)} port {port}" if address else f"nodePort {port}"
        reason = f"{what}/{protocol.name} already belongs to Service {winner.namespace}/{winner.name}"
        remedy = "which has precedence (a ClusterIP, then the older Service); choose another"
        problems.append(Problem("Service", key.namespace, key.name, _FIELD[kind], f"{reason}, {remedy}"))
    return tuple(problems)


def doubled_cluster_ip(address: bytes, holders: Iterable[ServiceView]) -> tuple[Problem, ...]:
    """Problems of all but the oldest Service with one and the same ClusterIP."""
    first, *rest = sorted(holders, key=age)
    reason = f"{format_address(address)} is also the ClusterIP of Service {first.namespace}/{first.name}"
    remedy = "which is older and keeps the ports that both define; choose another address"
    return tuple(
        Problem("Service", view.namespace, view.name, "spec.clusterIP", f"{reason}, {remedy}")
        for view in rest
    )


def _kind(dialled: Dialled, view: ServiceView) -> FrontendKind:
    kinds = (f.kind for port in view.ports for f, _ in port.frontends if f.dialled == dialled)
    return next(kinds)
