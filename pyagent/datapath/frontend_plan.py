"""Which frontends come, move and go, and what that means for the order in which sets switch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pyagent.datapath.draft import Draft, Unfit
from pyagent.datapath.encoded import (
    PROBE_FRONTENDS,
    PROBE_SET,
    address_frontend_key,
    any_other_node,
    inside_key,
    is_node_port,
    is_outside,
    node_port_frontend_key,
    node_port_node,
    outside_key,
    port_of,
)
from pyagent.datapath.held import Dialled, FrontendTarget, HeldState
from pyagent.datapath.layout import NodeId
from pyagent.datapath.member_plan import Joins
from pyagent.datapath.naming import node_identifier
from pyagent.datapath.places import Full
from pyagent.datapath.served_prefixes import prefixes_of_frontend
from pyagent.model.address import Family
from pyagent.model.service import ANY_OTHER_NODE, OUTSIDE, ServicePortKey

Targets = dict[bytes, FrontendTarget | None]


def frontend_targets(
    held: HeldState,
    draft: Draft,
    wanted: Mapping[Dialled, FrontendTarget | None],
    unfit: set[ServicePortKey],
    complete: bool,
) -> Targets:
    """What the frontends of a change should lead to, by key; with `complete`, all others lead nowhere.

    What waited for room is taken up again unless the change says otherwise. The reserved frontends of the
    self-probe belong to no Service: the desired state claims none, see `read_externals`. Service ports whose
    nodePort belongs to a node that finds no id are added to `unfit`.
    """
    waiting = held.waiting
    targets: Targets = {} if complete else dict(waiting.frontends)
    unnamed = {} if complete else dict(waiting.unnamed)
    waiting.frontends.clear()
    waiting.unnamed.clear()
    for dialled, target in {**unnamed, **wanted}.items():
        try:
            key = _key(held, draft, dialled, target is not None)
        except Full as full:
            if target is not None:
                unfit.add(target[0])
                waiting.unnamed[dialled] = target
                draft.unfit.append(Unfit(target[0], full.map_name))
            continue
        if key is not None:
            targets[key] = target
    if complete:
        targets.update((key, None) for key in held.frontends if key not in targets)
    for key in PROBE_FRONTENDS:
        targets.pop(key, None)
    return targets


def _key(held: HeldState, draft: Draft, dialled: Dialled, wanted: bool) -> bytes | None:
    """The key of a frontend; None for one of an unknown node that is not wanted: nobody holds it."""
    family, protocol, port, address, node = dialled
    if node == OUTSIDE:
        inside = _key(held, draft, (family, protocol, port, address, ""), wanted)
        return outside_key(inside) if inside is not None else None
    if address:
        return address_frontend_key(address, port, protocol)
    if not wanted and node not in ("", ANY_OTHER_NODE) and node not in held.nodes:
        return None
    return node_port_frontend_key(family, node_identifier(held, draft, node), port, protocol)


def joins_of(held: HeldState, targets: Targets) -> Joins:
    """The held sets that dials come to, and those that dials leave.

    A dial also leaves what stood behind a frontend that comes in front of it, and falls back to it when
    that goes: a nodePort behind an address of that node, ANY_OTHER behind a certain node.
    """
    joins = Joins(set(), set())
    for key, target in targets.items():
        before = held.frontends.get(key)
        after = _held_set(held, target)
        if target is None:
            if before is None:
                continue
            joins.left.add(before)
            for behind in _behind(held, key):
                joins.joined.update(s for s in _set_before_and_after(held, targets, behind) if s is not None)
        elif before is None or before != after:
            if after is not None:
                joins.joined.add(after)
            if before is not None:
                joins.left.add(before)
            else:
                joins.left.update(held.frontends[k] for k in _behind(held, key) if k in held.frontends)
    return joins


def _held_set(held: HeldState, target: FrontendTarget | None) -> int | None:
    port = held.service_ports.get(target[0]) if target is not None else None
    return port.set_id(target[1]) if port is not None and target is not None else None


def _set_before_and_after(held: HeldState, targets: Targets, key: bytes) -> tuple[int | None, int | None]:
    before = held.frontends.get(key)
    return before, _held_set(held, targets[key]) if key in targets else before


def _behind(held: HeldState, key: bytes) -> Iterator[bytes]:
    """Keys that the kernel would look up next if this one were missing."""
    if is_outside(key):
        yield inside_key(key)
        return
    if is_node_port(key):
        if node_port_node(key) not in (NodeId.OWN, NodeId.ANY_OTHER):
            yield any_other_node(key)
        return
    node_id = held.node_addresses.get(key[:16])
    if node_id is None:
        return
    family = Family.IPV4 if key[:12] == bytes(10) + b"\xff\xff" else Family.IPV6
    node_port = node_port_frontend_key(family, node_id, port_of(key), key[18])
    yield node_port
    if node_id != NodeId.OWN:
        yield any_other_node(node_port)


def reserved_room(held: HeldState, targets: Targets) -> dict[ServicePortKey, int]:
    """How many entries of `frontends` each service port adds."""
    added: dict[ServicePortKey, int] = {}
    for key, target in targets.items():
        if target is not None and key not in held.frontends:
            added[target[0]] = added.get(target[0], 0) + 1
    return added


class FrontendPlan:
    """Puts and removes frontends once it is known which service ports fit."""

    def __init__(self, held: HeldState, draft: Draft, unfit: set[ServicePortKey]) -> None:
        """`unfit` may still grow until `settle`."""
        self.held = held
        self.draft = draft
        self.unfit = unfit
        self._gained: dict[ServicePortKey, list[bytes]] = {}
        self._lost: dict[ServicePortKey, set[bytes]] = {}

    def settle(self, targets: Targets) -> None:
        for key, target in targets.items():
            if target is not None:
                self._lead(key, target)
        for key, target in targets.items():
            if target is None:
                self._drop(key)

    def put_probe(self) -> None:
        """The self-probe's own frontends lead to the reserved set."""
        for key in PROBE_FRONTENDS:
            if self.held.frontends.get(key) != PROBE_SET:
                self._put(key, PROBE_SET)

    def drop_dangling(self, suspects: Iterable[bytes], freed_sets: set[int]) -> None:
        """A frontend must not stay behind on a set that is gone, whatever the change says of it."""
        for key in suspects:
            if self.held.frontends.get(key) in freed_sets:
                self._remove(key)

    def drop_strays(self) -> None:
        """Remove every frontend whose set no service port holds."""
        living = {PROBE_SET}.union(*(port.set_ids for port in self.held.service_ports.values()))
        for key in [key for key, set_id in self.held.frontends.items() if set_id not in living]:
            self._remove(key)

    def finish(self) -> None:
        """Tell the service ports which frontends are theirs now."""
        for owner in self._gained.keys() | self._lost.keys():
            port = self.held.service_ports.get(owner)
            if port is not None:
                lost, gained = self._lost.get(owner), self._gained.get(owner, [])
                if lost:
                    gained = [key for key in gained if key in self.held.frontends]
                    gained[:0] = [key for key in port.frontends if key not in lost]
                    port.frontends = tuple(gained)
                else:
                    port.frontends += tuple(gained)

    def _lead(self, key: bytes, target: FrontendTarget) -> None:
        held = self.held
        before, after = held.frontends.get(key), _held_set(held, target)
        if target[0] in self.unfit or after is None:
            if before is None or before != after:
                held.waiting.frontends[key] = target
            return
        if before == after:
            return
        self._disown(key)
        self._gained.setdefault(target[0], []).append(key)
        self._put(key, after)

    def _drop(self, key: bytes) -> None:
        before = self.held.frontends.get(key)
        if before is None:
            return
        owner = self.held.owner(before)
        if owner is not None and owner.key in self.unfit and not self._lacks_only_entries(owner.key):
            self.held.waiting.frontends[key] = None
            return
        self._remove(key)

    def _lacks_only_entries(self, key: ServicePortKey) -> bool:
        """It waits for room in this very map: what it gives up there must not wait for it in turn."""
        return Unfit(key, "frontends") in self.draft.unfit

    def _disown(self, key: bytes) -> None:
        before = self.held.frontends.get(key)
        owner = self.held.owner(before) if before is not None else None
        if owner is not None:
            self._lost.setdefault(owner.key, set()).add(key)

    def _put(self, key: bytes, set_id: int) -> None:
        held = self.held
        if key not in held.frontends:
            held.prefixes.add(prefixes_of_frontend(key))
            if is_node_port(key):
                held.node_ports[port_of(key)] = held.node_ports.get(port_of(key), 0) + 1
        held.frontends[key] = self.draft.frontends[key] = set_id

    def _remove(self, key: bytes) -> None:
        held = self.held
        self._disown(key)
        del held.frontends[key]
        self.draft.frontends.pop(key, None)
        self.draft.frontends_removed.append(key)
        held.prefixes.remove(prefixes_of_frontend(key))
        if is_node_port(key):
            left = held.node_ports[port_of(key)] - 1
            if left:
                held.node_ports[port_of(key)] = left
            else:
                del held.node_ports[port_of(key)]
