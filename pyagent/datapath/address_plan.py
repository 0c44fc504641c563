"""Service addresses, node addresses, names of nodes, and the bounds that follow from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from pyagent.datapath.bounds import PORT_BITS, Bounds, Range, nothing, service_bounds
from pyagent.datapath.decoded import decode_name
from pyagent.datapath.draft import Draft, Unfit
from pyagent.datapath.encoded import (
    NODE,
    RULE,
    is_node_port,
    name_key,
    node_name,
    node_port_node,
    port_of,
    service_address_key,
)
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import BACKEND, NameKind
from pyagent.datapath.naming import node_identifier, put_name
from pyagent.datapath.places import Full
from pyagent.datapath.served_prefixes import prefixes_of_rule
from pyagent.datapath.writes import Store, Write
from pyagent.model.address import Network
from pyagent.model.service import AddressRule


def plan_nodes(held: HeldState, draft: Draft, zones: Mapping[str, str]) -> None:
    """Names and zones of nodes; one for which there is no room stays unnamed until something needs it."""
    for name, zone in zones.items():
        if held.zones.get(name) == zone and name in held.nodes:
            continue
        try:
            identifier = node_identifier(held, draft, name, zone)
            if not name or identifier != held.nodes.get(name):
                continue
            key = name_key(NameKind.NODE, identifier)
            before = decode_name(key, held.names.get(key, b""))
            value = node_name(name, zone, before.incarnation if before is not None else held.incarnation)
            if value is not None:
                put_name(held, draft, key, value)
                held.zones[name] = zone
        except Full:
            return


def forget_nodes(held: HeldState, draft: Draft, wanted: Mapping[str, str]) -> None:
    """Free the ids of nodes that are neither wanted nor mentioned by anything that the maps hold."""
    if held.nodes.keys() <= wanted.keys():
        return
    mentioned = set(held.node_addresses.values())
    mentioned.update(node_port_node(key) for key in held.frontends if is_node_port(key))
    mentioned.update(node_port_node(key) for key in held.waiting.frontends if is_node_port(key))
    stride = BACKEND.size // 4
    nodes = memoryview(held.backends).cast("I")[BACKEND.offsets["node"] // 4 :: stride]
    for port in held.service_ports.values():
        for key, set_id in zip(port.set_keys, port.set_ids, strict=True):
            mentioned.update(nodes[word >> 32] for word in held.slot_words(set_id))
            if key.node:
                mentioned.add(held.nodes.get(key.node, 0))
    for name in [n for n, i in held.nodes.items() if n not in wanted and i not in mentioned]:
        draft.freed_nodes.append(held.nodes.pop(name))
        held.zones.pop(name, None)


def forget_names(held: HeldState, draft: Draft) -> None:
    """Remove the names of ids that nobody has."""
    living = {name_key(NameKind.NODE, i) for i in held.nodes.values()}
    living.update(name_key(NameKind.SERVICE_PORT, i) for i in held.service_port_keys)
    for key in [key for key in held.names if key not in living]:
        del held.names[key]
        draft.names_removed.append(key)


def plan_service_addresses(
    held: HeldState, draft: Draft, wanted: Mapping[Network, AddressRule | None], complete: bool
) -> None:
    """Put and remove rules; with `complete`, remove all others too."""
    keys = {service_address_key(network): rule for network, rule in wanted.items()}
    for network, (key, rule) in zip(wanted, keys.items(), strict=True):
        if rule is None or held.service_addresses.get(key) == rule:
            continue
        if key not in held.service_addresses and (
            len(held.service_addresses) >= held.capacities.service_addresses
        ):
            draft.unfit.append(Unfit(network, "service_addresses"))
            held.waiting.service_addresses[network] = rule
            continue
        if key not in held.service_addresses:
            held.prefixes.add(prefixes_of_rule(key))
        held.service_addresses[key] = rule
        draft.rules[key] = RULE.pack(rule)
    candidates = held.service_addresses if complete else keys
    draft.rules_removed = [k for k in candidates if keys.get(k) is None and k in held.service_addresses]
    for key in draft.rules_removed:
        del held.service_addresses[key]
        held.prefixes.remove(prefixes_of_rule(key))


def plan_node_addresses(
    held: HeldState, draft: Draft, wanted: Mapping[bytes, str | None], complete: bool
) -> None:
    """Put and remove the addresses of nodes; with `complete`, remove all others too."""
    candidates = held.node_addresses if complete else wanted
    removed = [a for a in candidates if wanted.get(a) is None and a in held.node_addresses]
    for address in removed:
        del held.node_addresses[address]
    draft.node_addresses_removed = removed
    for address, name in wanted.items():
        if name is None:
            continue
        try:
            node_id = node_identifier(held, draft, name)
            if held.node_addresses.get(address) == node_id:
                continue
            if address not in held.node_addresses and (
                len(held.node_addresses) >= held.capacities.node_addresses
            ):
                raise Full("node_addresses")
        except Full as full:
            draft.unfit.append(Unfit(address, full.map_name))
            held.waiting.node_addresses[address] = name
            continue
        held.node_addresses[address] = node_id
        draft.node_addresses[address] = NODE.pack(node_id)


def plan_bounds(held: HeldState, draft: Draft) -> None:
    """Widen the bounds for what comes, narrow them for what went. Call when all else is planned."""
    before = held.bounds
    added_rules = service_bounds(draft.rules)
    added_ports = [port_of(key) for key in draft.frontends if is_node_port(key)]
    added = Bounds(*added_rules, _range(added_ports), held.prefixes.bits)
    widened = before.widened(added)
    v6, v4 = widened.service_ipv6, widened.service_ipv4
    if not held.bounds_known or _touch(draft.rules_removed, before):
        all_new = len(draft.rules) == len(held.service_addresses)
        v6, v4 = added_rules if all_new else service_bounds(held.service_addresses)
    ports = widened.node_port
    if not held.bounds_known or any(is_node_port(key) for key in draft.frontends_removed):
        ports = _range(held.node_ports)
    after = Bounds(v6, v4, ports, held.prefixes.bits)
    held.bounds_known = True
    draft.widening = _difference(held, widened)
    draft.narrowing = _difference(held, after)


def _range(ports: Collection[int]) -> Range:
    return Range(min(ports), max(ports)) if ports else nothing(PORT_BITS)


def _touch(removed: Iterable[bytes], bounds: Bounds) -> bool:
    """Whether one of these rules reaches to the edge of the bounds, which may thus be too wide now."""
    for key in removed:
        v6, v4 = service_bounds([key])
        for gone, held in ((v6, bounds.service_ipv6), (v4, bounds.service_ipv4)):
            if gone.low <= gone.high and (gone.low <= held.low or gone.high >= held.high):
                return True
    return False


def _difference(held: HeldState, bounds: Bounds) -> list[Write]:
    stores: list[Write] = []
    for offset, data in bounds.encoded():
        if held.config[offset : offset + len(data)] != data:
            held.config[offset : offset + len(data)] = data
            stores.append(Store("config", offset, data))
    return stores
