"""How full the maps are."""

from __future__ import annotations

from pyagent.datapath.blocks import block_words
from pyagent.datapath.layout import CHOSEN_SHARDS
from pyagent.view.live import GENERATION_MASK, LiveMaps, backend_columns, live_sets, words
from pyagent.view.names import service_port_names

NEARLY_FULL_PERCENT = 80.0

EVICTING = frozenset({"affinity", "origin_overflow", "fragments"})
"""LRU maps: being full is how they work, and nothing is refused then."""


def entries_in_use(live: LiveMaps) -> dict[str, int]:
    """Map name -> entries; maps without a notion of fill are left out. Needs every map to be read."""
    raw = live.raw
    ports = service_port_names(raw.names)
    sets = live_sets(raw, {port.identifier: port.incarnation for port in ports})
    columns = backend_columns(live)
    backends = len({word for live_set in sets for word in live_set.members if columns.is_alive(word)})
    return {
        "frontends": len(raw.frontends),
        "sets": sum(1 for word in words(raw.sets) if word & GENERATION_MASK),
        "slots": sum(block_words(len(live_set.members)) for live_set in sets),
        "backends": backends,
        "chosen": backends * CHOSEN_SHARDS,
        "refused": len(ports),
        "names": len(raw.names),
        "service_addresses": len(raw.service_addresses),
        "node_addresses": len(raw.node_addresses),
        "source_ranges": len(live.source_ranges),
        "client_addresses": len(live.client_addresses),
        "opted_out": len(live.opted_out),
        "affinity": len(live.affinity),
        "origin_overflow": len(live.overflow),
        "flows": len(live.flows),
        "outside_devices": len(live.devices),
    }
