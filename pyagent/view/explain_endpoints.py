"""Why each endpoint of a service port is in a set or not: `desired.endpoint_choice`, told in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pyagent.desired.endpoints import (
    NO_HINT,
    READY,
    SERVING,
    TERMINATING,
    Hint,
    SliceEndpoints,
    index_ports,
)
from pyagent.model.address import format_address, format_endpoint
from pyagent.model.kube_objects import ANNOTATION_NODE_LOCAL
from pyagent.model.service import MAX_SET_BACKENDS, Backend, ServicePortKey, SetKey, View
from pyagent.view.explain_facts import EndpointFacts, view_of

Verdict = tuple[bool, str]
"""Whether an endpoint is in a set, and why."""


class Listed(NamedTuple):
    """An endpoint as a slice lists it. `fault`: why it counts for no set at all."""

    piece: SliceEndpoints
    backend: Backend
    hint: Hint
    fault: str = ""


class Place(NamedTuple):
    """From where Services are looked at."""

    node: str
    zone: str


def endpoint_facts(
    slices: Sequence[SliceEndpoints], key: ServicePortKey, sets: Iterable[SetKey], here: Place
) -> tuple[EndpointFacts, ...]:
    """Every endpoint that the slices list for a service port.

    Args:
        slices: of the Service, in the order of their names.
        sets: those of the service port.
    """
    listed = listed_endpoints(slices, key)
    counted = [one for one in listed if not one.fault]
    judges = {view_of(set_key): _judge(set_key, counted, here) for set_key in sets}
    return tuple(_facts(one, judges) for one in listed)


def listed_endpoints(slices: Sequence[SliceEndpoints], key: ServicePortKey) -> list[Listed]:
    """The endpoints of a service port's slices; those that count for no set have a fault."""
    pieces = index_ports(slices).get((key.family, key.port_name, key.protocol), [])
    listed = [
        Listed(piece, _at(backend, port), hint)
        for piece, port in pieces
        for backend, hint in _with_hints(piece)
    ]
    owners: dict[tuple[bytes, int], int] = {}
    for number, (_, backend, _, _) in enumerate(listed):
        identity = (backend.address, backend.port)
        if identity not in owners or not backend.state & TERMINATING:
            owners[identity] = number
    served = set(sorted(owners)[:MAX_SET_BACKENDS])
    found = [_with_fault(one, number, owners, listed, served) for number, one in enumerate(listed)]
    carrying = {piece.name for piece, _ in pieces}
    what = f"{key.port_name or 'its only one'}/{key.protocol.name}"
    found += [
        Listed(piece, _at(backend, 0), hint, f"slice {piece.name} has no port {what}")
        for piece in slices
        if piece.family is key.family and piece.name not in carrying
        for backend, hint in _with_hints(piece)
    ]
    return sorted(found, key=lambda one: (one.backend.address, one.backend.port, one.piece.name))


def _with_fault(
    one: Listed,
    number: int,
    owners: dict[tuple[bytes, int], int],
    listed: Sequence[Listed],
    served: set[tuple[bytes, int]],
) -> Listed:
    identity = (one.backend.address, one.backend.port)
    if owners[identity] != number:
        winner = listed[owners[identity]].piece.name
        return one._replace(fault=f"a duplicate: slice {winner} lists the same address and port, and counts")
    if identity not in served:
        return one._replace(fault=f"beyond the first {MAX_SET_BACKENDS} endpoints")
    return one


def _with_hints(piece: SliceEndpoints) -> Iterable[tuple[Backend, Hint]]:
    backends, hints = piece.endpoints
    return zip(backends, hints or (NO_HINT,) * len(backends), strict=True)


def _at(backend: Backend, port: int) -> Backend:
    return Backend(backend.address, port, backend.state, backend.node, backend.zone, backend.target)


def _judge(key: SetKey, counted: Sequence[Listed], here: Place) -> Callable[[Listed], Verdict]:
    if key.view in (View.CLUSTER, View.RESTRICTED):
        return _cluster_judge(counted, here)
    if key.view is View.NODE_LOCAL:
        return lambda _one: (False, f"annotation {ANNOTATION_NODE_LOCAL}: this node serves it itself")
    return _local_judge(key.node if key.view is View.NODE else here.node, counted, key.view is not View.NODE)


def _cluster_judge(counted: Sequence[Listed], here: Place) -> Callable[[Listed], Verdict]:
    ready = [one for one in counted if one.backend.state & READY]
    by_node = _level(here.node, [one.hint.nodes for one in ready])
    by_zone = _level(here.zone, [one.hint.zones for one in ready])

    def judge(one: Listed) -> Verdict:
        if not one.backend.state & READY:
            return _last_resort(one, bool(ready), "")
        if by_node:
            return _by_hint("node", here.node, one.hint.nodes)
        if by_zone:
            return _by_hint("zone", here.zone, one.hint.zones)
        return True, "ready"

    return judge


def _level(place: str, hinted: Sequence[tuple[str, ...]]) -> bool:
    """Whether hints of this level count: every ready endpoint has one, and some are meant for us."""
    return bool(place) and all(hinted) and any(place in places for places in hinted)


def _by_hint(level: str, place: str, places: tuple[str, ...]) -> Verdict:
    if place in places:
        return True, f"ready, and hinted for this {level}, {place}"
    return False, f"hinted for {level} {', '.join(places)}, and this {level} is {place}"


def _local_judge(node: str, counted: Sequence[Listed], own: bool) -> Callable[[Listed], Verdict]:
    here = [one for one in counted if node and one.backend.node == node]
    anyone_ready = any(one.backend.state & READY for one in here)
    where = "this node" if own else f"node {node}"

    def judge(one: Listed) -> Verdict:
        if not node or one.backend.node != node:
            place = f"on node {one.backend.node}" if one.backend.node else "on no known node"
            return False, f"{place}, and the policy is Local"
        if one.backend.state & READY:
            return True, f"ready, on {where}"
        return _last_resort(one, anyone_ready, f" on {where}")

    return judge


def _last_resort(one: Listed, anyone_ready: bool, where: str) -> Verdict:
    """An endpoint that is not ready serves only while it terminates, and only if none is ready."""
    state = one.backend.state
    if not state & TERMINATING:
        return False, "not ready, though it serves" if state & SERVING else "not ready"
    if not state & SERVING:
        return False, "terminating, and no longer serving"
    if anyone_ready:
        return False, f"terminating, and others{where} are ready"
    return True, f"terminating but serving, and none{where} is ready"


def _facts(one: Listed, judges: dict[str, Callable[[Listed], Verdict]]) -> EndpointFacts:
    verdicts = {view: (False, one.fault) if one.fault else judge(one) for view, judge in judges.items()}
    backend = one.backend
    text = format_endpoint(backend.address, backend.port) if backend.port else format_address(backend.address)
    return EndpointFacts(
        text,
        one.piece.name,
        bool(backend.state & READY),
        bool(backend.state & SERVING),
        bool(backend.state & TERMINATING),
        backend.node,
        backend.zone,
        backend.target,
        one.hint.zones,
        one.hint.nodes,
        {view: why for view, (is_in, why) in verdicts.items() if is_in},
        {view: why for view, (is_in, why) in verdicts.items() if not is_in},
    )
