"""Pinned maps of two Services, as an agent leaves them: what list verbs show."""

from __future__ import annotations

from pathlib import Path

from pyagent.datapath.layout import Capacities
from pyagent.kernel.map_set import MapSet
from pyagent.model.service import View
from tests.unit.view.maps_made import B, S, made, shop, writes

CAPACITIES = Capacities(
    frontends=64, sets=64, slots=512, backends=64, service_ports=64, service_addresses=64,
    node_addresses=64, affinity=64, overflow=64, event_bytes=4096,
)  # fmt: skip
API = S("shop/api", ("10.96.0.2:443",), ((View.CLUSTER, 0, (B("10.1.0.9:443"),)),))


def pin_two_services(bpffs: Path) -> MapSet:
    """shop/web:http with three backends, refusals and affinity, and shop/api with one."""
    bpffs.mkdir()
    made_set = MapSet.create(bpffs / "v1-1", CAPACITIES)
    (bpffs / "current").symlink_to("v1-1")
    made_set.apply(writes(made([shop(refused=2, affinity=60), API], {1: "worker-1\0zone-a"}), CAPACITIES))
    return made_set
