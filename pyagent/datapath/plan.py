"""From what the maps hold and what changed in the desired state to the writes in between.

After every single write each dial gets the answer it had before the plan or the one it has after it: never
an empty set that neither has, a mixture, another service port's backends, or a place that was given up.
`draft.py` has the order and why. Two dials cannot be promised that, since three maps decide on them and
the kernel offers no store over several: a nodePort on an address that moves between nodes in the same
plan as the nodePort's set changes sees both changes one after the other, and so does a dial to a service
address that at the same time becomes, or stops being, an address of a node.
"""

from __future__ import annotations

from array import array

from pyagent.datapath.address_plan import (
    forget_names,
    forget_nodes,
    plan_bounds,
    plan_node_addresses,
    plan_nodes,
    plan_service_addresses,
)
from pyagent.datapath.draft import Draft, Plan, Unfit
from pyagent.datapath.encoded import PROBE_SET
from pyagent.datapath.frontend_plan import FrontendPlan, frontend_targets, joins_of, reserved_room
from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.layout import BLOCK_HEADER_WORDS, header_word, loopback_word, pair_word
from pyagent.datapath.places import Full
from pyagent.datapath.service_port_plan import give_up_set, plan_service_port, remove_service_port
from pyagent.model.outcome import Outcome
from pyagent.model.service import DesiredChange, ServicePort, ServicePortKey, View

__all__ = ["Plan", "Unfit", "no_change", "plan"]

PROBE_BLOCK = (pair_word(0, 0), header_word(0, View.CLUSTER, Outcome.PROBED, 0), loopback_word(None))
"""The reserved set's block: no service port, no backends, the self-probe's answer."""


def no_change() -> DesiredChange:
    """For a plan that only takes up what waits for room."""
    return DesiredChange({}, {}, {}, {}, {})


def plan(held: HeldState, change: DesiredChange, *, complete: bool = False) -> Plan:
    """The writes that turn `held` into what is desired; `held` becomes what the maps hold after them.

    What does not fit stays as it is, is named in the plan's `unfit`, and is tried again by each later plan.
    After `HeldState.reclaim` plan again, with `no_change()`, if `held.waiting` is true.

    Args:
        held: the state to start from. If carrying out the writes fails, it must not be used any more:
            wait for a grace period, dump the maps and `restore`.
        change: what changed; final values, conflicts resolved.
        complete: `change` is all there is; what it does not name is removed. Needed once after a start or
            `restore`; it also repairs what makes no sense in the maps, and adds the self-probe's frontends.
    """
    draft = Draft()
    waiting = held.waiting
    if complete:
        waiting.service_ports, waiting.service_addresses, waiting.node_addresses = {}, {}, {}
    ports: dict[ServicePortKey, ServicePort | None] = {**waiting.service_ports, **change.service_ports}
    rules = {**waiting.service_addresses, **change.service_addresses}
    node_addresses = {**waiting.node_addresses, **change.node_addresses}
    waiting.service_ports, waiting.service_addresses, waiting.node_addresses = {}, {}, {}
    if complete:
        ports.update((key, None) for key in held.service_ports if key not in ports)

    plan_nodes(held, draft, change.nodes)
    _plan_service_ports(held, draft, ports, change, complete)
    plan_service_addresses(held, draft, rules, complete)
    plan_node_addresses(held, draft, node_addresses, complete)
    if complete:
        forget_nodes(held, draft, change.nodes)
        forget_names(held, draft)
        _free_strays(held, draft)
    plan_bounds(held, draft)
    return draft.finished(held)


def _plan_service_ports(
    held: HeldState,
    draft: Draft,
    ports: dict[ServicePortKey, ServicePort | None],
    change: DesiredChange,
    complete: bool,
) -> None:
    unfit: set[ServicePortKey] = set()
    frontends = FrontendPlan(held, draft, unfit)
    if complete:
        _write_probe_set(held, draft)
        frontends.put_probe()
    targets = frontend_targets(held, draft, change.frontends, unfit, complete)
    joins = joins_of(held, targets)
    room = reserved_room(held, targets)
    free = held.capacities.frontends - len(held.frontends)
    suspects: list[bytes] = []

    for key, wanted in ports.items():
        if wanted is None:
            continue
        needed = room.pop(key, 0)
        try:
            if key in unfit:
                raise Full("names")
            if needed > free:
                raise Full("frontends")
            replaced = plan_service_port(held, draft, wanted, joins)
        except Full as full:
            if key not in unfit:
                draft.unfit.append(Unfit(key, full.map_name))
            unfit.add(key)
            held.waiting.service_ports[key] = wanted
            continue
        free -= needed
        port = held.service_ports[key]
        suspects.extend(port.frontends)
        for frontend in port.frontends if replaced else ():
            set_key = replaced.get(held.frontends[frontend])
            if set_key is not None:
                targets.setdefault(frontend, (key, set_key))
    for key, needed in room.items():
        if needed > free and key not in unfit:
            unfit.add(key)
            draft.unfit.append(Unfit(key, "frontends"))
        elif key not in unfit:
            free -= needed
    for key, wanted in ports.items():
        port_gone = held.service_ports.get(key) if wanted is None else None
        if port_gone is not None:
            suspects.extend(port_gone.frontends)
            remove_service_port(held, draft, port_gone)

    frontends.settle({k: t for k, t in targets.items() if t is None or ports.get(t[0], t) is not None})
    if draft.freed_sets:
        frontends.drop_dangling(suspects, set(draft.freed_sets))
    if complete:
        frontends.drop_strays()
    frontends.finish()


def _write_probe_set(held: HeldState, draft: Draft) -> None:
    if tuple(held.slots[:BLOCK_HEADER_WORDS]) != PROBE_BLOCK:
        for slot, word in enumerate(PROBE_BLOCK):
            held.slots[slot : slot + 1] = array("Q", [word])
        draft.new_blocks.append((0, BLOCK_HEADER_WORDS))
    if len(held.sets) > PROBE_SET and held.sets[PROBE_SET]:
        held.sets[PROBE_SET] = 0
        draft.new_sets.append(PROBE_SET)


def _free_strays(held: HeldState, draft: Draft) -> None:
    """A full plan left nothing that refers to them."""
    owned = {PROBE_SET}.union(*(port.set_ids for port in held.service_ports.values()))
    for set_id in held.abandoned_sets:
        if set_id not in owned:
            give_up_set(held, draft, set_id)
    held.abandoned_sets = []
    strays, held.strays = held.strays, Freed(held)
    draft.freed_sets.extend(strays.sets)
    draft.freed_backends.extend(strays.backends)
    draft.freed_nodes.extend(strays.nodes)
    draft.freed_blocks.extend(strays.blocks)
