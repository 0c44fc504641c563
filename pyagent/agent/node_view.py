"""What follows from each plan beside the maps: node eligibility, health check ports, counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pyagent.agent.facts import Facts
from pyagent.agent.health_check_ports import HealthCheckPorts
from pyagent.desired.endpoint_choice import usable
from pyagent.desired.endpoints import LOCAL, PortIndex, SliceEndpoints, index_ports, merge
from pyagent.desired.snapshot import ServiceName, Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.address import Family
from pyagent.model.outcome import Outcome
from pyagent.model.service import CLUSTER_SET, LOCAL_SET, DesiredChange, PolicyBit, ServiceView
from pyagent.model.source_events import Problem


class NodeView:
    """Called by the loop after each plan; see `loop.Applied`.

    Args:
        need_clients: called when there are source ranges; may be called again.
        of_cluster: every node has a Node object; else a machine may do without any.
    """

    def __init__(
        self,
        facts: Facts,
        health_check_ports: HealthCheckPorts,
        need_clients: Callable[[], None],
        *,
        of_cluster: bool,
    ) -> None:
        self._facts = facts
        self._ports = health_check_ports
        self._need_clients = need_clients
        self._of_cluster = of_cluster
        self._failing: frozenset[Problem] = frozenset()
        self._health: dict[ServiceName, tuple[int, int]] = {}
        self._without_local: dict[ServiceName, tuple[tuple[str, Family], ...]] = {}

    def __call__(self, change: DesiredChange, desired: DesiredState, snapshot: Snapshot) -> None:
        self._tell_node(snapshot)
        for name in change.services:
            self._follow(name, desired.views.get(name), snapshot)
        failing = frozenset(self._ports.sync(self._health, desired.node_port_addresses))
        self._facts.problems_changed(failing - self._failing, self._failing - failing)
        self._failing = failing
        if any(port is not None and port.source_ranges for port in change.service_ports.values()):
            self._need_clients()
        self._facts.local_endpoints(self._count_without_local())

    def _tell_node(self, snapshot: Snapshot) -> None:
        """Load balancers must not send to a node on its way out (KEP-3836), nor to one that is unknown."""
        own = snapshot.nodes.get(snapshot.node_name)
        if own is None:
            wanted = self._of_cluster or bool(snapshot.nodes)
            self._facts.node(not wanted, "its Node object is unknown" if wanted else "")
        elif own.deleted:
            self._facts.node(False, "its Node object is being deleted")
        elif own.to_be_deleted:
            self._facts.node(False, "the cluster autoscaler is about to delete it")
        else:
            self._facts.node(True)

    def _follow(self, name: ServiceName, view: ServiceView | None, snapshot: Snapshot) -> None:
        self._health.pop(name, None)
        self._without_local.pop(name, None)
        if view is None:
            return
        if view.health_check_port:
            self._health[name] = (view.health_check_port, view.local_ready)
        lacking = tuple(_policies_without_local(view, snapshot.slices_of(name)))
        if lacking:
            self._without_local[name] = lacking

    def _count_without_local(self) -> Mapping[tuple[str, Family], int]:
        counts: dict[tuple[str, Family], int] = {}
        for lacking in self._without_local.values():
            for kind in lacking:
                counts[kind] = counts.get(kind, 0) + 1
        return counts


def _policies_without_local(
    view: ServiceView, slices: Sequence[SliceEndpoints]
) -> Iterator[tuple[str, Family]]:
    """(internal | external, family) for each service port whose Local policy finds no endpoint here, though
    there are some elsewhere.

    Externally that concerns traffic from outside: clients here are not bound to their node's endpoints, so
    no set says it.
    """
    index: PortIndex | None = None
    for port in view.ports:
        sets = {found.key: found for found in port.sets}
        internal = sets.get(LOCAL_SET)
        if internal is not None and internal.when_empty is Outcome.REFUSED_NO_LOCAL_ENDPOINTS:
            yield "internal", port.key.family
        anywhere = sets.get(CLUSTER_SET)
        if port.policy & PolicyBit.EXTERNAL_LOCAL and anywhere is not None and anywhere.backends:
            index = index_ports(slices) if index is None else index
            pieces = index.get((port.key.family, port.key.port_name, port.key.protocol), [])
            if not usable([b for b in merge(pieces).backends if b.state & LOCAL]):
                yield "external", port.key.family
