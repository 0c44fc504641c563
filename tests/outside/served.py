"""The programs on node-a's uplink for a session, without an agent: a test says what they should serve."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pyagent.datapath.flow_layout import FLOW, FLOW_KEY
from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.layout import CONFIG
from pyagent.datapath.plan import plan
from pyagent.datapath.source_range_plan import SourceRangePlan
from pyagent.datapath.writes import Remove, Store
from pyagent.desired.nodes import Settings
from pyagent.desired.outside import covered_devices, read_outside
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel import outside
from pyagent.kernel.devices import devices
from pyagent.kernel.grace import GracePeriod
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.outside import Outside
from pyagent.kernel.program_cache import ProgramCache
from pyagent.model.address import parse_address
from pyagent.model.outcome import OUTCOME_COUNT, Outcome
from tests.datapath.ground.hooks import KINDS, SMALL
from tests.datapath.ground.manifests import Object, endpoint_slice, node, service, service_cidr
from tests.outside.lan import BULK_PORT, CLUSTER_RANGE, PORTS, Host, Lan

import msgspec  # isort: skip

SOURCE_PORTS = (61_000, 61_999)
NODE_PORT, UDP_NODE_PORT, BULK_NODE_PORT = 30_080, 30_053, 30_900
CLUSTER_IP = ("10.96.0.10", "fd00:96::10")
BALANCER = ("198.51.100.10", "fd00:51::10")
EXTERNAL = ("198.51.100.20", "fd00:51::20")
SERVED = (("web", 80, "TCP"), ("dns", 53, "UDP"), ("bulk", 90, "TCP"))


class Served:
    """`objects` are what node-a serves; `outcomes` counts new flows."""

    def __init__(self, lan: Lan, folder: Path, programs: Path) -> None:
        self.lan = lan
        self.cache_folder = programs
        self.folder = folder
        folder.mkdir()
        self.maps = MapSet.create(folder / "v1-1", SMALL._replace(flows=2048, fragments=256))
        self.held = HeldState(SMALL)
        self.ranges = SourceRangePlan((), SMALL.source_ranges)
        self.grace = GracePeriod()
        self.programs = outside.load(self.maps, ProgramCache(programs))
        low, high = CONFIG.offsets["source_port_low"], CONFIG.offsets["source_port_high"]
        self.maps.apply([Store("config", low, struct.pack("=H", SOURCE_PORTS[0]))])
        self.maps.apply([Store("config", high, struct.pack("=H", SOURCE_PORTS[1]))])
        self.cover("auto")

    def cover(
        self, *items: str, tcx: bool | None = None, programs: outside.Programs | None = None
    ) -> list[str]:
        """As the agent does with `--outside`; returns what it tells."""
        return self.lan.node_a.do(partial(self._cover, items, tcx, programs or self.programs))

    def _cover(self, items: Sequence[str], tcx: bool | None, programs: outside.Programs) -> list[str]:
        made = Outside(self.folder, self.maps, tcx=tcx)
        made.use(programs)
        own = frozenset(map(parse_address, (self.lan.node_a.ipv4, self.lan.node_a.ipv6)))
        return made.cover(covered_devices(read_outside(items), devices(), own))

    def serve(self, objects: Iterable[Object], **settings: Any) -> None:
        """Make exactly these objects served, from now on."""
        own = {parse_address(self.lan.node_a.ipv4), parse_address(self.lan.node_a.ipv6)}
        snapshot = Snapshot("node-a")
        given = [*objects, *nodes(self.lan), service_cidr(*CLUSTER_RANGE)]
        for kind, decoded in KINDS.items():
            found = [msgspec.convert(obj, decoded) for obj in given if obj["kind"] == kind]
            snapshot.replace(kind, found)  # type: ignore[arg-type]
        interfaces = frozenset(own | {parse_address("127.0.0.1"), parse_address("::1")})
        desired = DesiredState(Settings("node-a", interface_addresses=interfaces, **settings))
        desired.update(snapshot, snapshot.everything())
        change = desired.full()
        made = plan(self.held, change, complete=True)
        assert not made.unfit
        ranges = self.ranges.plan(change.service_ports, self.held, complete=True)
        self.maps.apply([*ranges.before, *made.writes, *ranges.after])
        self._reclaim(made.freed)

    def _reclaim(self, freed: Freed) -> None:
        if freed:
            self.grace.wait()
            self.held.reclaim(freed)

    def outcomes(self) -> dict[Outcome, int]:
        found = {}
        for number in range(OUTCOME_COUNT):
            value = self.maps.get("outside_outcomes", struct.pack("=I", number)) or b""
            count = sum(struct.unpack(f"={len(value) // 8}Q", value))
            if count:
                found[Outcome(number)] = count
        return found

    def gained(self, work: Callable[[], object]) -> dict[Outcome, int]:
        """What `work` adds to `outcomes`."""
        before = self.outcomes()
        work()
        after = self.outcomes()
        return {o: n - before.get(o, 0) for o, n in after.items() if n != before.get(o, 0)}

    def flows(self) -> list[Flow]:
        return [Flow(FLOW_KEY.as_dict(key), FLOW.as_dict(value)) for key, value in self.maps.items("flows")]

    def forget_flows(self) -> None:
        self.maps.apply([Remove("flows", key) for key, _ in self.maps.items("flows")])

    def close(self) -> None:
        self.maps.close()
        self.grace.close()


def nodes(lan: Lan) -> list[Object]:
    return [node(host.name, [host.ipv4, host.ipv6]) for host in (lan.node_a, lan.node_b)]


class Flow(NamedTuple):
    key: dict[str, Any]
    value: dict[str, Any]


def exposed(
    *ends: tuple[Host, str], conditions: Object | None = None, name: str = "web", **spec: Any
) -> list[Object]:
    """A LoadBalancer Service that all kinds of frontends lead to; `ends` are (host, node name)."""
    made = service(
        name, CLUSTER_IP, SERVED, **{"type": "LoadBalancer", "externalIPs": list(EXTERNAL), **spec}
    )
    for port, number in zip(made["spec"]["ports"], (NODE_PORT, UDP_NODE_PORT, BULK_NODE_PORT), strict=True):
        port["nodePort"] = number
    made["status"] = {"loadBalancer": {"ingress": [{"ip": address} for address in BALANCER]}}
    targets = (("web", PORTS[0], "TCP"), ("dns", PORTS[1], "UDP"), ("bulk", BULK_PORT, "TCP"))
    slices = [
        endpoint_slice(name, [host.address(family)], targets, f"{host.name}-{family}", conditions, node_name)
        for host, node_name in ends
        for family in (4, 6)
    ]
    return [made, *slices]
