"""From objects to what a dial gets, through the agent's own turns: faults, crashes, restarts, larger maps.

As test_plan.py, one floor higher: Services, EndpointSlices, Nodes and ServiceCIDRs come, change and go; the
agent's `Programmer` makes plans of them and carries them out; after every single change of a map each dial of
each client gets what it got before the plan or what it gets after it. In the end the maps say what those of a
node that was just made for these objects say.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pyagent.agent.audit import STEPS
from pyagent.agent.facts import Facts
from pyagent.agent.programmer import Programmer
from pyagent.datapath.decoded import RawMaps
from pyagent.datapath.held import Freed
from pyagent.datapath.layout import Capacities
from pyagent.datapath.writes import Store, Write
from pyagent.desired.nodes import Settings
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.map_set import Portion
from pyagent.model.address import Protocol, parse_address
from pyagent.model.failures import KernelRefused
from pyagent.model.kube_objects import SERVICE_KINDS, STRUCT_OF, Kind
from pyagent.model.service import ServicePortKey
from tests.unit.datapath_plan.fake_maps import FakeMaps
from tests.unit.datapath_plan.node import Node, WriteFailed

Object = dict[str, Any]
Identity = tuple[ServicePortKey, bytes, int]
NAMES = ["a", "b", "c"]
CLUSTER_IPS = [["10.96.0.1"], ["10.96.0.2"], ["10.96.0.3", "fd00:10::3"], ["None"]]
EXTERNAL = ["203.0.113.7", "203.0.113.8"]
PODS = ["10.8.0.1", "10.8.0.2", "10.8.0.3", "192.168.0.1"]
PODS6 = ["fd00:8::1", "fd00:8::2"]
NODES = ["n", "n1", "n2"]
OWN_NODE = ("Node", "n")  # outlives its deletion, which a node made afresh cannot know
NODE_IPS = ["192.168.0.1", "192.168.0.2", "192.168.0.3"]
RANGES = ["198.51.100.0/24", "198.51.100.16/28", "0.0.0.0/0"]
CLIENTS = [parse_address(a) for a in ("198.51.100.1", "198.51.100.17", "192.0.2.1")]
DIALS = [
    *((parse_address(a), 80, Protocol.TCP) for a in ("10.96.0.1", "10.96.0.2", "10.96.0.3", "fd00:10::3")),
    *((parse_address(a), 80, Protocol.TCP) for a in (*EXTERNAL, "10.96.0.99")),
    (parse_address("10.96.0.1"), 81, Protocol.TCP),
    *((parse_address(a), port, Protocol.TCP) for a in NODE_IPS for port in (30001, 30002)),
]
ROOM = Capacities(
    frontends=96, sets=64, slots=512, backends=96, service_ports=24, service_addresses=32, node_addresses=16,
    source_ranges=24,
)  # fmt: skip
TIGHT = Capacities(
    frontends=12, sets=7, slots=96, backends=12, service_ports=5, service_addresses=4, node_addresses=4,
    source_ranges=2,
)  # fmt: skip


@st.composite
def services(draw: st.DrawFn) -> Object:
    spec: Object = {
        "type": draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])),
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        "sessionAffinity": draw(st.sampled_from(["None", "ClientIP"])),
        "internalTrafficPolicy": draw(st.sampled_from(["Cluster", "Cluster", "Local"])),
        "externalIPs": draw(st.lists(st.sampled_from(EXTERNAL), max_size=1)),
    }
    spec["clusterIPs"] = draw(st.sampled_from(CLUSTER_IPS))
    spec["clusterIP"] = spec["clusterIPs"][0]
    spec["ipFamilies"] = ["IPv6" if ":" in ip else "IPv4" for ip in spec["clusterIPs"]]
    status: Object = {}
    if spec["type"] != "ClusterIP" and spec["clusterIP"] != "None":
        spec["externalTrafficPolicy"] = draw(st.sampled_from(["Cluster", "Local"]))
        spec["ports"][0]["nodePort"] = draw(st.sampled_from([30001, 30002]))
        if spec["type"] == "LoadBalancer":
            spec["loadBalancerSourceRanges"] = draw(st.lists(st.sampled_from(RANGES), max_size=2))
            status = {"loadBalancer": {"ingress": [{"ip": draw(st.sampled_from(EXTERNAL))}]}}
    other = draw(st.sampled_from([{}, {}, {}, {"service.kubernetes.io/service-proxy-name": "x"}]))
    metadata = {"name": draw(st.sampled_from(NAMES)), "namespace": "shop", "labels": other}
    return {"kind": "Service", "metadata": metadata, "spec": spec, "status": status}


@st.composite
def slices(draw: st.DrawFn) -> Object:
    owner, part = draw(st.sampled_from(NAMES)), draw(st.sampled_from(["1", "2", "v6"]))
    pool = PODS6 if part == "v6" else PODS
    condition = st.sampled_from([(True, True, False), (False, True, True), (False, False, False)])

    def endpoint(address: str) -> Object:
        ready, serving, terminating = draw(condition)
        return {
            "addresses": [address],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "nodeName": draw(st.sampled_from(NODES)),
        }

    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{owner}-{part}",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": owner},
        },
        "addressType": "IPv6" if part == "v6" else "IPv4",
        "endpoints": [endpoint(a) for a in draw(st.lists(st.sampled_from(pool), max_size=4, unique=True))],
        "ports": [{"name": "http", "port": draw(st.sampled_from([8080, 9090])), "protocol": "TCP"}],
    }


nodes = st.builds(
    lambda name, ips: {
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": ip} for ip in ips]},
    },
    st.sampled_from(NODES),
    st.lists(st.sampled_from(NODE_IPS), max_size=2, unique=True),
)
cidrs = st.builds(
    lambda cidr: {"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [cidr]}},
    st.sampled_from(["10.96.0.0/16", "10.96.0.0/12"]),
)

SMALL_CLUSTER: list[Object] = [
    {
        "kind": "Service",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "http", "port": 80, "nodePort": 30001}],
        },
    },
    {
        "kind": "Node",
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.2"}]},
    },
    {"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}},
]


class Maps:
    """A `MapSet` of the node's maps: every write is looked at, and may fail."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.fail_at: int | None = None

    def apply(self, writes: Iterable[Write]) -> int:
        wanted = list(writes)
        fail_at, self.fail_at = self.fail_at, None
        try:
            self.node.carry_out(wanted, fail_at)
        except WriteFailed:
            raise KernelRefused("the injected fault") from None
        return len(wanted)

    def items(self, name: str) -> list[tuple[bytes, bytes]]:
        return list(self.node.maps.hashes[name].items())

    def portion(self, name: str, _cursor: bytes | None, _count: int) -> Portion:
        items = self.items(name)
        keys, values = b"".join(k for k, _ in items), b"".join(v for _, v in items)
        sizes = (len(items[0][0]), len(items[0][1])) if items else (1, 1)
        return Portion(keys, values, *sizes, None)

    def get(self, name: str, key: bytes) -> bytes | None:
        return self.node.maps.hashes[name].get(key)

    def window(self, name: str, _end: int) -> bytearray:
        return self.node.maps.arrays[name]


class Agent:
    """A node's agent without a kernel below it."""

    def __init__(self, node: Node, maps: Maps, *, reused: bool) -> None:
        self.freed: list[Freed] = []
        datapath = SimpleNamespace(
            maps=maps,
            capacities=node.maps.capacities,
            grace=SimpleNamespace(wait=node.begin_reading),
            raw=lambda: copied(node.maps.raw),
        )
        self.datapath = datapath
        self.programmer = Programmer(
            cast("Datapath", datapath),
            Settings("n", remote_node_ports=True),
            Facts(),
            reused=reused,
            free=self.freed.append,
            clock=lambda: 0.0,
        )

    def reclaim(self) -> None:
        freed, self.freed = tuple(self.freed), []
        self.programmer.reclaim(freed)


def copied(raw: RawMaps) -> RawMaps:
    return copy.deepcopy(raw)


def put(agent: Agent, obj: Object) -> None:
    kind = cast("Kind", obj["kind"])
    agent.programmer.snapshot.put(kind, msgspec.convert(obj, STRUCT_OF[kind]))


def replace(agent: Agent, kind: Kind, objects: Iterable[Object]) -> None:
    listed = [msgspec.convert(obj, STRUCT_OF[kind]) for obj in objects if obj["kind"] == kind]
    agent.programmer.snapshot.replace(kind, listed)


class ObjectsMachine(RuleBasedStateMachine):
    """What the agent's loop does in whatever order; `dirty` says that a turn is due."""

    capacities = ROOM

    @initialize(some=st.booleans())
    def begin(self, some: bool) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.late: frozenset[Kind] = frozenset()  # not listed since the last restart
        self.living: dict[Identity, tuple[int, int]] = {}
        self.node = Node(DIALS, self.capacities, CLIENTS)
        self.maps = Maps(self.node)
        self.agent = Agent(self.node, self.maps, reused=False)
        for obj in SMALL_CLUSTER if some else ():
            self.put(obj)
        self.turn()

    @rule(obj=st.one_of(services(), slices(), slices(), slices(), nodes, cidrs))
    def put(self, obj: Object) -> None:
        self.objects[obj["kind"], obj["metadata"]["name"]] = obj
        if obj["kind"] not in self.late:
            put(self.agent, obj)

    @precondition(lambda self: self.objects.keys() - {OWN_NODE})
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        kind, name = data.draw(st.sampled_from(sorted(self.objects.keys() - {OWN_NODE})))
        obj = self.objects.pop((kind, name))
        if kind in self.late:
            return
        self.agent.programmer.snapshot.delete(kind, obj["metadata"].get("namespace", ""), name)

    @rule(fail_at=st.none() | st.integers(0, 60))
    def turn(self, fail_at: int | None = None) -> None:
        programmer = self.agent.programmer
        self.maps.fail_at = fail_at
        with mock.patch("pyagent.agent.programmer.gc"):
            done = programmer.turn()
        self.maps.fail_at = None
        wanted = self.wanted_backends()
        self.living = {one: word for one, word in self.living.items() if one in wanted}
        if done is None:
            return
        words = self.words()
        for one, word in self.living.items():
            assert words.get(one, word) == word, "a living backend got another id"
        self.living = words
        programmer.snapshot.take_dirty()
        assert not programmer.desired.update(programmer.snapshot, programmer.snapshot.take_dirty()).services
        assert not self.altered(), "held and the maps differ"

    @rule()
    def end_grace_period(self) -> None:
        self.node.begin_reading()
        programmer = self.agent.programmer
        if programmer.held_is_true:
            self.agent.reclaim()
            ranges = (len(self.node.maps.hashes["source_ranges"]), self.node.maps.capacities.source_ranges)
            assert programmer.usage == {**programmer.held.usage(), "source_ranges": ranges}

    @rule(meanwhile=st.none() | services() | slices())
    def crash(self, meanwhile: Object | None) -> None:
        """Or an upgrade: another process takes up what is pinned. Something may have changed meanwhile."""
        if meanwhile is not None:
            self.objects[meanwhile["kind"], meanwhile["metadata"]["name"]] = meanwhile
        self.restart(frozenset())
        self.turn()

    @rule(late=st.sampled_from([{"Node"}, {"ServiceCIDR"}, {"Node", "ServiceCIDR"}]))
    def restart_before_all_is_listed(self, late: set[Kind]) -> None:
        """What only these kinds decide stays as it was: no dial gets another answer."""
        self.turn()
        before, found_room = list(self.answers(self.node)), self.all_fits
        self.restart(self.late | late)
        self.turn()
        if found_room and self.all_fits:
            assert list(self.answers(self.node)) == before

    @property
    def all_fits(self) -> bool:
        return not (self.agent.programmer.unfit or self.agent.programmer.held.waiting)

    def restart(self, late: frozenset[Kind]) -> None:
        self.late = late
        self.agent = Agent(self.node, self.maps, reused=True)
        for kind in sorted(SERVICE_KINDS - late):
            replace(self.agent, kind, self.objects.values())

    @rule()
    def list_the_rest(self) -> None:
        for kind in self.late:
            replace(self.agent, kind, self.objects.values())
        self.late = frozenset()

    @precondition(lambda self: self.agent.programmer.planned and self.agent.programmer.held_is_true)
    @rule(data=st.data())
    def somebody_removes_an_entry(self, data: st.DataObject) -> None:
        """It is missed by the audit, and the next turn puts it back."""
        name = data.draw(
            st.sampled_from(["frontends", "service_addresses", "node_addresses", "source_ranges"])
        )
        entries = self.node.maps.hashes[name]
        if not entries:
            return
        entries.pop(data.draw(st.sampled_from(sorted(entries))))
        assert self.altered()
        self.turn()

    @rule(field=st.sampled_from(["frontends", "sets", "slots", "backends", "service_ports", "source_ranges"]))
    def grow(self, field: str) -> None:
        """Larger maps with the same contents at the same places, as datapath.grow() makes them."""
        old = self.node.maps
        if getattr(old.capacities, field) > 600:
            return
        larger = FakeMaps(old.capacities._replace(**{field: getattr(old.capacities, field) * 2}))
        for name, content in old.arrays.items():
            if name != "chosen":
                larger.arrays[name][: len(content)] = content
        for name, entries in old.hashes.items():
            larger.hashes[name].update(entries)
        self.node.exchange(larger)
        self.agent.datapath.capacities = larger.capacities
        self.agent.programmer.maps_were_exchanged()
        self.turn()

    def altered(self) -> bool:
        """Within one round."""
        programmer = self.agent.programmer
        for _ in STEPS:
            programmer.audit()
        return not programmer.held_is_true

    def words(self) -> dict[Identity, tuple[int, int]]:
        held = self.agent.programmer.held
        return {
            (key, *backend): word
            for key in held.service_ports
            for backend, word in held.backend_words(key).items()
        }

    def wanted_backends(self) -> set[Identity]:
        ports = self.agent.programmer.desired.full().service_ports
        return {
            (key, backend.address, backend.port)
            for key, port in ports.items()
            if port is not None
            for one in port.sets
            for backend in one.backends
        }

    def answers(self, node: Node) -> Iterator[tuple[object, ...]]:
        for dial in node.dials:
            outcome, candidates = node.decision(dial)
            yield dial, outcome, sorted((c[0], c[1]) for c in candidates), node.admitted(dial)

    def teardown(self) -> None:
        """Whatever happened: in the end a dial gets what it gets from a node made for these objects."""
        if not hasattr(self, "agent"):
            return
        self.list_the_rest()
        for _ in range(4):
            self.turn()
            self.end_grace_period()
        self.turn()
        fresh = Node(DIALS, ROOM, CLIENTS)
        other = Agent(fresh, Maps(fresh), reused=False)
        for obj in self.objects.values():
            put(other, obj)
        with mock.patch("pyagent.agent.programmer.gc"):
            assert other.programmer.turn()
        assert not other.programmer.unfit
        if not self.agent.programmer.held.waiting and not self.agent.programmer.unfit:
            assert list(self.answers(self.node)) == list(self.answers(fresh))
        written = [w for w in self.writes_of_a_full_plan() if not isinstance(w, Store) or w.map != "meta"]
        if not self.agent.programmer.held.waiting:
            assert not written, written

    def writes_of_a_full_plan(self) -> list[Write]:
        """Applied twice, a plan writes nothing the second time."""
        seen: list[Write] = []
        self.agent.programmer.maps_were_exchanged()
        self.turn()
        self.agent.programmer.maps_were_exchanged()
        with mock.patch.object(self.maps, "apply", seen.extend), mock.patch("pyagent.agent.programmer.gc"):
            self.agent.programmer.turn()
        return seen


class CrampedObjectsMachine(ObjectsMachine):
    """The same in maps that are too small at first."""

    capacities = TIGHT


TestObjects = ObjectsMachine.TestCase
TestObjects.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCrampedObjects = CrampedObjectsMachine.TestCase
TestCrampedObjects.settings = TestObjects.settings
