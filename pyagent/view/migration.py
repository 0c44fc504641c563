"""What changes when kube-proxy goes, and what stands against it, from a cluster's objects alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pyagent.view.tables import Column, Row, Table

Object = dict[str, Any]

STOPS, CHANGES, NOTE = "stands against it", "changes", "note"
SHOWN = 5
"""Names of one finding; more are counted."""

SANDBOXES = ("runsc", "gvisor", "kata", "kvm", "firecracker", "sysbox-vm")
"""Parts of the names of RuntimeClass handlers whose pods have a network stack of their own."""

MESH_CONTAINERS = ("istio-proxy", "linkerd-proxy", "envoy-sidecar", "kuma-sidecar", "consul-dataplane")
MESH_LABELS = ("istio-injection", "istio.io/rev", "linkerd.io/inject", "kuma.io/sidecar-injection")


class Cluster(NamedTuple):
    """Objects of a cluster, as the API gives them. `config` is a KubeProxyConfiguration, None: not found."""

    services: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    namespaces: tuple[Object, ...] = ()
    runtime_classes: tuple[Object, ...] = ()
    config: Object | None = None


def findings(cluster: Cluster, mode: str, notes: Iterable[str] = ()) -> list[Row]:
    """Rows of what to know before the move, what stands against it first.

    Args:
        mode: of the running kube-proxy; empty: not known.
        notes: settings of kube-proxy's that have no effect on kubesock.
    """
    found = [
        *_of_kube_proxy(cluster, mode, notes),
        *_of_services(cluster.services),
        *_of_pods(cluster),
    ]
    order = {STOPS: 0, CHANGES: 1, NOTE: 2}
    return sorted(found, key=lambda row: order[row["weight"]])


def _row(weight: str, subject: str, finding: str, remedy: str, names: Iterable[str] = ()) -> Row:
    listed = sorted(set(names))
    return {
        "weight": weight,
        "subject": subject,
        "finding": finding,
        "remedy": remedy,
        "count": len(listed),
        "names": listed,
    }


def _of_kube_proxy(cluster: Cluster, mode: str, notes: Iterable[str]) -> Iterator[Row]:
    if cluster.config is None:
        yield _row(
            NOTE,
            "kube-proxy",
            "its ConfigMap was not found: its settings are not known",
            "give --kube-proxy-config FILE; distributions that build kube-proxy in have it as flags",
        )
    yield _row(NOTE, "kube-proxy", f"mode {mode or 'not known'}", "run kubesock with --config and that file")
    if mode == "ipvs":
        scheduler = (cluster.config or {}).get("ipvs", {}).get("scheduler") or "rr"
        yield _row(
            CHANGES,
            "ipvs",
            f"the scheduler {scheduler} gives way to a random choice",
            "none is needed; `kube-proxy --cleanup` removes its virtual servers, kubesock cleanup does not",
        )
    for note in notes:
        yield _row(NOTE, "settings", note, "none is needed: they concern packets and conntrack")


def _of_services(services: Iterable[Object]) -> Iterator[Row]:
    sctp, sticky, ranges = [], [], []
    for service in services:
        spec, name = service.get("spec") or {}, _name(service)
        if "service.kubernetes.io/service-proxy-name" in _labels(service):
            continue  # another proxy's, now and then
        if any(port.get("protocol") == "SCTP" for port in spec.get("ports") or ()):
            sctp.append(name)
        if spec.get("sessionAffinity") == "ClientIP":
            sticky.append(name)
        if spec.get("loadBalancerSourceRanges"):
            ranges.append(name)
    if sctp:
        yield _row(
            STOPS, "SCTP", "the kernel has no hook for SCTP sockets", "keep kube-proxy for these", sctp
        )
    if sticky:
        yield _row(
            CHANGES,
            "session affinity",
            "a client is a pod (a network namespace), not a source address: a node's host processes are one",
            "none is needed, as a rule",
            sticky,
        )
    if ranges:
        yield _row(
            CHANGES,
            "source ranges",
            "a client on a node is known by its namespace's address, before it has one of its own choice",
            "see operations.md, source ranges",
            ranges,
        )


def _of_pods(cluster: Cluster) -> Iterator[Row]:
    handlers = {_meta(one).get("name", ""): str(one.get("handler", "")) for one in cluster.runtime_classes}
    sandboxed, machines, mesh, dns = [], [], [], []
    for pod in cluster.pods:
        spec, name = pod.get("spec") or {}, _name(pod)
        handler = handlers.get(spec.get("runtimeClassName", ""), spec.get("runtimeClassName") or "")
        if any(part in handler.lower() for part in SANDBOXES):
            sandboxed.append(name)
        if _labels(pod).get("kubevirt.io") == "virt-launcher":
            machines.append(name)
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        if any(container.get("name") in MESH_CONTAINERS for container in containers):
            mesh.append(name)
        if _labels(pod).get("k8s-app") == "node-local-dns":
            dns.append(name)
    if sandboxed or machines:
        yield _row(
            STOPS,
            "sandboxed pods",
            "their sockets are in a network stack of their own, which hooks do not see",
            "name their devices, --outside=auto,pods:DEVICE, or keep kube-proxy on their nodes",
            [*sandboxed, *machines],
        )
    injected = [_name(one) for one in cluster.namespaces if any(key in _labels(one) for key in MESH_LABELS)]
    if mesh or injected:
        yield _row(
            CHANGES,
            "service mesh",
            "a sidecar that redirects by ClusterIP sees pod addresses",
            'run with --opt-out=on and set kubesock.io/translate: "false" on these namespaces or pods',
            [*mesh, *injected],
        )
    if dns:
        yield _row(
            CHANGES,
            "NodeLocal DNSCache",
            "where it answers at the cluster DNS address, clients are translated past it",
            "let kubelet give pods its own address (169.254.20.10), or opt its namespace out",
            dns,
        )


def _meta(obj: Object) -> Object:
    return obj.get("metadata") or {}


def _labels(obj: Object) -> dict[str, str]:
    return _meta(obj).get("labels") or {}


def _name(obj: Object) -> str:
    meta = _meta(obj)
    return (
        f"{meta['namespace']}/{meta.get('name', '')}" if meta.get("namespace") else str(meta.get("name", ""))
    )


def some(row: Row) -> str:
    """The first names of a finding."""
    names = row["names"]
    more = f" + {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (",".join(names[:SHOWN]) or "-") + more


FINDINGS = Table(
    kind="MigrationFindingList",
    columns=(
        Column("WEIGHT", "weight", alarm=lambda row: {STOPS: 2, CHANGES: 1}.get(row["weight"], 0)),
        Column("SUBJECT", "subject"),
        Column("COUNT", "count", lambda row: str(row["count"]) if row["count"] else "-"),
        Column("WHICH", "names", some),
        Column("FINDING", "finding"),
    ),
    identity=("subject", "finding"),
    name=lambda row: str(row["subject"]),
)
