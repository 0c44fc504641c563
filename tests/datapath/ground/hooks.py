"""The programs on one cgroup for a whole session, without an agent: a test says what they should serve.

Compiling takes a second, so it happens once; filling the maps takes milliseconds, by the agent's own planner.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.layout import BACKEND, CHOSEN_SHARDS, CONFIG, WORD, Capacities
from pyagent.datapath.plan import plan
from pyagent.datapath.writes import Store, Write
from pyagent.demo.calls import call
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.map_readings import outcome_counts
from pyagent.kernel.program_cache import ProgramCache
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.address import format_endpoint, parse_address
from pyagent.model.kube_objects import EndpointSlice, Node, Service, ServiceCIDR
from pyagent.model.outcome import Outcome
from tests.datapath.ground.cluster import InClient, SmallCluster
from tests.datapath.ground.manifests import Object

NODE_NAME = "n"
KINDS = {"Service": Service, "EndpointSlice": EndpointSlice, "Node": Node, "ServiceCIDR": ServiceCIDR}
SMALL = Capacities(
    frontends=4096,
    sets=4096,
    slots=65_536,
    backends=8192,
    service_ports=4096,
    service_addresses=1024,
    node_addresses=256,
    affinity=4096,
    overflow=2048,
    source_ranges=256,
    clients=256,
    event_bytes=65_536,
)
T = TypeVar("T")


class Counts(NamedTuple):
    """What the programs counted. Backends as `ADDRESS:PORT`, service ports as `default/web:http/TCP`."""

    outcomes: dict[Outcome, int]
    chosen: dict[str, int]
    refused: dict[str, int]


class Measured(NamedTuple, Generic[T]):
    """An answer, and what the counters gained meanwhile; zeros left out."""

    answer: T
    outcomes: dict[Outcome, int]
    chosen: dict[str, int]
    refused: dict[str, int]


class Hooks:
    """`datapath` is attached to `cgroup`; nobody else's sockets are in there."""

    def __init__(self, cluster: SmallCluster, cgroup: Path, bpffs: Path, cache: ProgramCache) -> None:
        self.cluster = cluster
        self.cgroup = cgroup
        self.cache = cache
        self.datapath = Datapath(bpffs, cgroup, SMALL, cache=cache)
        self.datapath.open()
        self.datapath.load_programs()
        self.held = HeldState(self.datapath.capacities)
        self._freed: list[Freed] = []
        node_cookie = call(netns_cookie, netns=cluster.node.netns)
        self.store(Store("config", CONFIG.offsets["node_netns"], struct.pack("=Q", node_cookie)))
        self.serve([])
        self.datapath.attach()

    @property
    def client(self) -> InClient:
        """Runs callables in a pod, hooked. `.of(pod)` is another pod."""
        return InClient(self.cluster.client.netns, self.cgroup)

    def writes(self, objects: Iterable[Object], **settings: object) -> Sequence[Write]:
        """The plan that makes exactly these objects served. It must be carried out, by `store`."""
        loopback = {parse_address("127.0.0.1"), parse_address("::1")}
        own = {parse_address(self.cluster.node.ipv4), parse_address(self.cluster.node.ipv6)}
        chosen = Settings(NODE_NAME, interface_addresses=frozenset(loopback | own), **settings)  # type: ignore[arg-type]
        snapshot = Snapshot(NODE_NAME)
        given = list(objects)
        for kind, decoded in KINDS.items():
            found = [msgspec.convert(obj, decoded) for obj in given if obj["kind"] == kind]
            snapshot.replace(kind, found)  # type: ignore[arg-type]
        desired = DesiredState(chosen)
        desired.update(snapshot, snapshot.everything())
        made = plan(self.held, desired.full(), complete=True)
        assert not made.unfit
        self.will_free(made.freed)
        return made.writes

    def store(self, *writes: Write) -> None:
        self.datapath.maps.apply(writes)

    def serve(self, objects: Iterable[Object], **settings: object) -> None:
        """Make the programs serve exactly these objects; `settings` are those of `Settings`."""
        self.store(*self.writes(objects, **settings))
        self.reclaim()

    def will_free(self, freed: Freed) -> None:
        """What a plan gave up, to be reclaimed."""
        if freed:
            self._freed.append(freed)

    def reclaim(self) -> None:
        """Wait until no program can see what the plans so far gave up, and use it again."""
        if self._freed:
            self.datapath.grace.wait()
        for freed in self._freed:
            self.held.reclaim(freed)
        self._freed.clear()

    def counts(self) -> Counts:
        maps = self.datapath.maps
        outcomes = outcome_counts(maps)
        capacity = self.datapath.capacities.backends
        backends = maps.memory("backends")[: capacity * BACKEND.size]
        chosen: Counter[str] = Counter()
        for at, (count,) in enumerate(
            WORD.iter_unpack(maps.memory("chosen")[: 8 * CHOSEN_SHARDS * capacity])
        ):
            if count:
                address, port = BACKEND.unpack(backends, at % capacity * BACKEND.size)[:2]
                chosen[format_endpoint(bytes(address), int(port))] += count
        refused: Counter[str] = Counter()
        for identifier, key in self.held.service_port_keys.items():
            refused[str(key)] += WORD.unpack_from(maps.memory("refused"), identifier * 8)[0]
        return Counts(outcomes, dict(chosen), dict(refused))

    def measure(self, work: Callable[[], T], client: InClient | None = None) -> Measured[T]:
        """Run `work` in a hooked client, and tell what it moved."""
        before = self.counts()
        answer = (client or self.client)(work)
        after = self.counts()
        return Measured(
            answer,
            _gained(before.outcomes, after.outcomes),
            _gained(before.chosen, after.chosen),
            _gained(before.refused, after.refused),
        )

    def close(self) -> None:
        self.datapath.close()


K = TypeVar("K")


def _gained(old: dict[K, int], new: dict[K, int]) -> dict[K, int]:
    return {key: value - old.get(key, 0) for key, value in new.items() if value != old.get(key, 0)}
