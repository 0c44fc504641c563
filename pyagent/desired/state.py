"""What this node should serve, kept up to date Service by Service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from pyagent.desired.claims import Claim, Dialled, FrontendClaims
from pyagent.desired.conflicts import doubled_cluster_ip, frontend_rank, lost_frontends
from pyagent.desired.merged import Merger
from pyagent.desired.nodes import Settings, ThisNode, answering_addresses, this_node
from pyagent.desired.problems import ProblemLedger
from pyagent.desired.service_addresses import ServiceAddresses, why_not_service_range
from pyagent.desired.service_ports import service_view
from pyagent.desired.snapshot import Dirty, ServiceName, Snapshot
from pyagent.model.address import Network
from pyagent.model.kube_objects import Service
from pyagent.model.service import DesiredChange, ServicePort, ServicePortKey, ServiceView
from pyagent.model.source_events import Problem


class DesiredState:
    """The desired state of this node, and what an update changes in it.

    Only Services that changed are computed again; what comes out equal is not part of the change and keeps
    the objects it had. Not thread-safe: one loop owns it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._applied: Settings | None = None
        self._node = ThisNode(settings.node_name)
        self._zones: dict[str, str] = {}
        self._views: dict[ServiceName, ServiceView] = {}
        self._claims = FrontendClaims(self._rank)
        self._addresses = ServiceAddresses()
        self._node_addresses: dict[bytes, str] = {}
        self._ledger = ProblemLedger()
        self._merger = Merger()

    @property
    def node(self) -> ThisNode:
        """From where the last update looked at Services."""
        return self._node

    @property
    def node_port_addresses(self) -> frozenset[bytes] | None:
        """This node's addresses in the ranges that the operator named for nodePorts; None without any."""
        if self._settings.node_port_ranges is None:
            return None
        return frozenset(address for address, node in self._node_addresses.items() if not node)

    @property
    def views(self) -> Mapping[ServiceName, ServiceView]:
        """Every Service that has addresses to serve, as of the last update."""
        return self._views

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything in the input that cannot be used now, each once."""
        return self._ledger.current

    def owner(self, dialled: Dialled) -> Claim | None:
        """The service port that a frontend belongs to, and the set it chooses from."""
        return self._claims.owner(dialled)

    def configure(self, settings: Settings) -> None:
        """Use other settings from the next update on (interface addresses change while we run)."""
        self._settings = settings

    def update(self, snapshot: Snapshot, dirty: Dirty) -> DesiredChange:
        """Follow the snapshot; the answer holds only what came out different.

        Args:
            dirty: what the snapshot marked since the last update; for a new state `snapshot.everything()`.
        """
        change = DesiredChange({}, {}, {}, {}, {})
        for source, problems in dirty.problems.items():
            self._ledger.hold(source, problems)
        for name in dirty.services | dict.fromkeys(self._look_around(snapshot, dirty, change)):
            self._update_service(snapshot, name, change)
        change.frontends, contested = self._claims.take_changes()
        for dialled in contested:
            self._ledger.hold(dialled, self._lost(dialled))
        change.service_addresses, shared = self._addresses.take_changes()
        for address in shared:
            self._ledger.hold(address, self._doubled(address))
        change.new_problems, change.cleared_problems = self._ledger.take_changes()
        return change

    def full(self) -> DesiredChange:
        """All of the desired state, as if nothing of it were known yet."""
        change = DesiredChange({}, {}, {}, {}, {}, self._ledger.current)
        change.frontends.update(self._claims.owners())
        change.service_addresses.update(self._addresses.rules())
        change.node_addresses.update(self._node_addresses)
        for view in self._views.values():
            for port in view.ports:
                self._report(port, change)
        self._name_nodes(change, self._zones)
        return change

    def _look_around(self, snapshot: Snapshot, dirty: Dirty, change: DesiredChange) -> list[ServiceName]:
        """Take in Nodes, service ranges and settings; which Services must be computed again for them."""
        settings, old = self._settings, self._node
        reconfigured = self._applied != settings
        if not (reconfigured or dirty.nodes or dirty.service_cidrs):
            return []
        self._applied = settings
        self._zones = {name: facts.zone for name, facts in snapshot.nodes.items()}
        self._node = new = this_node(settings, snapshot.nodes)
        self._name_nodes(change, dirty.nodes & self._zones.keys())
        fresh, doubled = answering_addresses(settings, snapshot.nodes)
        self._ledger.hold("node addresses", doubled)
        held, self._node_addresses = self._node_addresses, fresh
        change.node_addresses.update(
            {a: fresh.get(a) for a in held.keys() | fresh.keys() if held.get(a) != fresh.get(a)}
        )
        self._addresses.set_ranges(self._service_ranges(snapshot))
        return list(affected_services(old, new, snapshot))

    def _name_nodes(self, change: DesiredChange, names: set[str] | Mapping[str, str]) -> None:
        change.nodes.update({name: self._zones[name] for name in names})
        if self._node.name:
            change.nodes[self._node.name] = self._node.zone

    def _service_ranges(self, snapshot: Snapshot) -> list[Network]:
        """Ranges of ServiceCIDR objects and of the settings, without those that cover this node itself."""
        wanted = [("ServiceCIDR", name, n) for name, r in snapshot.service_cidrs.items() for n in r.networks]
        wanted += [("--service-cidr", str(network), network) for network in self._settings.service_cidrs]
        own = sorted(self._node.own_addresses)
        reasons = [(kind, name, n, why_not_service_range(n, own)) for kind, name, n in wanted]
        self._ledger.hold(
            "service ranges",
            [Problem(kind, "", name, "", f"{n}: {reason}") for kind, name, n, reason in reasons if reason],
        )
        return [network for _, _, network, reason in reasons if not reason]

    def _update_service(self, snapshot: Snapshot, name: ServiceName, change: DesiredChange) -> None:
        service = snapshot.services.get(name)
        old = self._views.get(name)
        new = service_view(service, snapshot.slices_of(name), self._node, self._merger) if service else None
        old_ports = {port.key: port for port in old.ports} if old else {}
        if new and old_ports:
            new = msgspec.structs.replace(
                new, ports=tuple([_shared(old_ports.get(p.key), p) for p in new.ports])
            )
        new_ports = {port.key: port for port in new.ports} if new else {}
        changed = {key: port for key, port in new_ports.items() if old_ports.get(key) is not port}
        change.service_ports.update({key: None for key in old_ports if key not in new_ports})
        for port in changed.values():
            self._report(port, change)
        anew = old is not None and new is not None and _ranks_differently(old, new)
        for key, port in old_ports.items():
            kept = () if anew or key not in new_ports else new_ports[key].frontends
            self._withdraw(port, kept)
        change.services.add(name)
        if new:
            self._views[name] = new
        else:
            self._views.pop(name, None)
        for key, port in (new_ports if anew else changed).items():
            before = () if anew or key not in old_ports else old_ports[key].frontends
            self._claim(port, before)
        self._addresses.exchange(name, old, new)
        self._ledger.hold(name, new.problems if new else ())

    def _report(self, port: ServicePort, change: DesiredChange) -> None:
        change.service_ports[port.key] = port
        nodes = change.nodes
        for backend_set in port.sets:
            named = {backend.node: backend.zone for backend in backend_set.backends}
            nodes.update({n: self._zones.get(n) or z for n, z in named.items() if n and n not in nodes})

    def _withdraw(self, port: ServicePort, kept: tuple[object, ...]) -> None:
        if port.frontends == kept:
            return
        still = frozenset(kept)
        for entry in port.frontends:
            if entry not in still:
                self._claims.withdraw(entry[0].dialled, port.key)

    def _claim(self, port: ServicePort, before: tuple[object, ...]) -> None:
        if port.frontends == before:
            return
        already = frozenset(before)
        for entry in port.frontends:
            if entry not in already:
                self._claims.claim(entry[0].dialled, (port.key, entry[1]))

    def _rank(self, dialled: Dialled, key: ServicePortKey) -> tuple[object, ...]:
        return frontend_rank(dialled, key, self._views[key[:2]])

    def _lost(self, dialled: Dialled) -> tuple[Problem, ...]:
        owner = self._claims.owner(dialled)
        waiting = self._claims.waiting(dialled)
        return lost_frontends(dialled, owner, waiting, self._views) if owner and waiting else ()

    def _doubled(self, address: bytes) -> tuple[Problem, ...]:
        holders = self._addresses.holders(address)
        return (
            doubled_cluster_ip(address, [self._views[name] for name in holders]) if len(holders) > 1 else ()
        )


def affected_services(old: ThisNode, new: ThisNode, snapshot: Snapshot) -> Iterator[ServiceName]:
    """Services whose result may differ when looked at from `new` instead of from `old`."""
    if old == new:
        return
    if (old.external_ip_cidrs, old.remote_node_ports) != (new.external_ip_cidrs, new.remote_node_ports):
        yield from snapshot.services
        return
    moved = old.interface_addresses ^ new.interface_addresses
    rehoused = bool(moved or old.link_local_addresses != new.link_local_addresses)
    guarded = (old.node_addresses, old.protected_addresses) != (new.node_addresses, new.protected_addresses)
    for name, service in snapshot.services.items():
        if ((moved or guarded) and _has_externals(service)) or (rehoused and service.metadata.annotations):
            yield name
            continue
        for piece in snapshot.slices_of(name):
            backends, hints = piece.endpoints
            if (hints and old.zone != new.zone) or (moved and any(b.address in moved for b in backends)):
                yield name
                break


def _has_externals(service: Service) -> bool:
    balancer = service.status.loadBalancer if service.status else None
    return bool(service.spec.externalIPs) or bool(balancer and balancer.ingress)


def _ranks_differently(old: ServiceView, new: ServiceView) -> bool:
    return (old.created, old.cluster_ips) != (new.created, new.cluster_ips)


def _shared(old: ServicePort | None, new: ServicePort) -> ServicePort:
    """`new`, but made of the objects of `old` wherever they are equal."""
    if old is None or old == new:
        return old or new
    held = {backend_set.key: backend_set for backend_set in old.sets}
    sets = tuple([held[s.key] if held.get(s.key) == s else s for s in new.sets])
    return msgspec.structs.replace(new, sets=sets)
