"""Which endpoints of a service port may be chosen from here: the one place where policies meet endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from pyagent.desired.endpoints import READY, SERVING, TERMINATING, Endpoints
from pyagent.model.service import Backend

_SERVING_TO_THE_END = SERVING | TERMINATING
_NOWHERE: Mapping[str, tuple[Backend, ...]] = MappingProxyType({})


class Choice(NamedTuple):
    """The sets that the frontends of a service port choose from.

    `cluster` is empty only if no endpoint anywhere is usable.
    """

    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]
    of_other_nodes: Mapping[str, tuple[Backend, ...]]  # only nodes that have a usable endpoint

    @property
    def usable_anywhere(self) -> bool:
        return bool(self.cluster)


def choose(
    endpoints: Endpoints, node: str, zone: str, *, local: bool = True, other_nodes: bool = False
) -> Choice:
    """The endpoints that clients on this node may be sent to, as kube-proxy's `CategorizeEndpoints` has it.

    cluster: the ready endpoints that pass the topology hints; if none is ready, all that serve while they
    terminate, wherever they are. local: the same among this node's endpoints, whatever their hints. The
    two fall back independently of each other (KEP-1669). An endpoint that is neither ready nor terminating
    is never used, even if it serves.

    Args:
        endpoints: all endpoints of the service port.
        node: this node's name; "" has no local endpoints and no node hints.
        zone: this node's zone; "" has no zone hints.
        local: work out the local set (else it is empty: most Services never ask for it).
        other_nodes: work out the local set of each other node.
    """
    backends = endpoints.backends
    ready = tuple([b for b in backends if b.state & READY])
    if len(ready) == len(backends):
        ready = backends  # the same object: memory is shared with the slice
    if not ready:
        cluster = _serving_to_the_end(backends)
    elif endpoints.hints:
        cluster = _by_topology(endpoints, ready, node, zone)
    else:
        cluster = ready
    here = usable([b for b in backends if b.node == node]) if local and node else ()
    return Choice(cluster, here, _of_other_nodes(backends, node) if other_nodes else _NOWHERE)


def usable(backends: Sequence[Backend]) -> tuple[Backend, ...]:
    """The ready ones, else those that serve while they terminate."""
    return tuple([b for b in backends if b.state & READY]) or _serving_to_the_end(backends)


def _serving_to_the_end(backends: Sequence[Backend]) -> tuple[Backend, ...]:
    return tuple([b for b in backends if b.state & _SERVING_TO_THE_END == _SERVING_TO_THE_END])


def _by_topology(
    endpoints: Endpoints, ready: tuple[Backend, ...], node: str, zone: str
) -> tuple[Backend, ...]:
    """Hints count all or nothing: a single ready endpoint without one switches that level off."""
    hinted = [
        (backend, hint)
        for backend, hint in zip(endpoints.backends, endpoints.hints, strict=True)
        if backend.state & READY
    ]
    by_node = _meant_for(node, [(backend, hint.nodes) for backend, hint in hinted])
    return by_node or _meant_for(zone, [(backend, hint.zones) for backend, hint in hinted]) or ready


def _meant_for(place: str, hinted: Sequence[tuple[Backend, tuple[str, ...]]]) -> tuple[Backend, ...]:
    if not place or not all(places for _, places in hinted):
        return ()
    return tuple([backend for backend, places in hinted if place in places])


def _of_other_nodes(backends: Sequence[Backend], node: str) -> Mapping[str, tuple[Backend, ...]]:
    by_node: dict[str, list[Backend]] = {}
    for backend in backends:
        if backend.node and backend.node != node:
            by_node.setdefault(backend.node, []).append(backend)
    chosen = {name: usable(by_node[name]) for name in sorted(by_node)}
    return {name: backends for name, backends in chosen.items() if backends}
