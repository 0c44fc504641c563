"""Any sequence of changes, faults, restarts and grace periods: no dial ever sees anything in between."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from pyagent.datapath.encoded import PROBE_PORT
from pyagent.datapath.layout import Capacities, NameKind
from pyagent.datapath.plan import no_change
from pyagent.datapath.writes import Remove, Write
from pyagent.model.address import PROBE_ADDRESSES, Family, Protocol, parse_address, parse_network
from pyagent.model.outcome import Outcome
from pyagent.model.service import (
    ANY_OTHER_NODE,
    CLUSTER_SET,
    LOCAL_SET,
    AddressRule,
    Backend,
    BackendSet,
    ServicePort,
    ServiceType,
    SetKey,
    View,
)
from tests.unit.datapath_plan.desires import Desired, backend, dialled, node_port, port_key
from tests.unit.datapath_plan.fake_maps import SMALL
from tests.unit.datapath_plan.node import Node, Words, WriteFailed

KEYS = [port_key(name) for name in ("a", "b", "c", "d")] + [port_key("a", family=Family.IPV6)]
SET_KEYS = [CLUSTER_SET, LOCAL_SET, SetKey(View.NODE, "n1"), SetKey(View.NODE, "n2")]
NODES = ["", "n1", "n2", "n3"]
NODE_ADDRESSES = [parse_address(a) for a in ("192.168.0.1", "192.168.0.2", "fd00:9::1")]
FRONTENDS = [
    *(dialled(a) for a in ("10.96.0.1", "10.96.0.2", "10.97.3.4", "203.0.113.7", "fd00:10::1")),
    dialled("192.168.0.1", 30001),
    dialled("fd00:9::1", 30001),
    *(node_port(p, n) for p in (30001, 30002) for n in ("", "n1", "n2", ANY_OTHER_NODE)),
    node_port(30001, family=Family.IPV6),
    node_port(30001, ANY_OTHER_NODE, Family.IPV6),
]
NETWORKS = [
    parse_network(n)
    for n in (
        "10.96.0.1/32",
        "10.96.0.2/32",
        "10.96.0.0/16",
        "10.96.0.0/12",
        "fd00:10::1/128",
        "fd00:10::/64",
    )
]
DIALS = [
    *((parse_address(a), 80, Protocol.TCP) for a in ("10.96.0.1", "10.96.0.2", "10.97.3.4", "203.0.113.7")),
    *((parse_address(a), 80, Protocol.TCP) for a in ("10.96.0.99", "fd00:10::1", "fd00:10::99")),
    *((a, p, Protocol.TCP) for a in NODE_ADDRESSES for p in (30001, 30002)),
    *((a, PROBE_PORT, Protocol.UDP) for a in PROBE_ADDRESSES),
]

NODE_KIND = struct.pack("=I", NameKind.NODE)

backends = st.builds(
    backend,
    st.sampled_from(["10.8.0.1", "10.8.0.2", "10.8.0.3", "10.8.0.4", "192.168.0.1", "127.0.0.1"]),
    st.sampled_from([8080, 9090]),
    st.sampled_from([0, 3, 6, 19]),
    st.sampled_from(NODES),
)


def is_node_name(write: Write) -> bool:
    """Names of nodes that nothing mentions any more go with the next full plan."""
    return isinstance(write, Remove) and write.map == "names" and write.key[:4] == NODE_KIND


def distinct(found: list[Backend]) -> tuple[Backend, ...]:
    return tuple({(b.address, b.port): b for b in found}.values())


@st.composite
def service_ports(draw: st.DrawFn) -> ServicePort:
    key = draw(st.sampled_from(KEYS))
    pool = {(b.address, b.port): b for b in draw(st.lists(backends, max_size=7))}
    members = st.lists(st.sampled_from(list(pool.values())), max_size=7) if pool else st.just([])
    bsets = tuple(
        BackendSet(
            set_key,
            distinct(draw(members)),
            draw(st.sampled_from([Outcome.REFUSED_NO_ENDPOINTS, Outcome.REFUSED_NO_LOCAL_ENDPOINTS])),
        )
        for set_key in draw(st.lists(st.sampled_from(SET_KEYS), min_size=1, max_size=3, unique=True))
    )
    affinity = draw(st.sampled_from([0, 10800]))
    service_type = draw(st.sampled_from(list(ServiceType)))
    return ServicePort(key, service_type, bsets, (), affinity, draw(st.integers(0, 3)))


class PlanMachine(RuleBasedStateMachine):
    """Edits gather in `wanted`; a plan carries them out, or a part of them until a fault."""

    capacities = SMALL

    @initialize()
    def start(self) -> None:
        self.node = Node(DIALS, self.capacities)
        self.desired = Desired()
        self.wanted = Desired()
        self.broken = False
        self.living: Words = {}
        self.node.change(self.desired.full(), complete=True)

    @rule(port=service_ports(), data=st.data())
    def put_service_port(self, port: ServicePort, data: st.DataObject) -> None:
        self.wanted.service_ports[port.key] = port
        keys = [s.key for s in port.sets]
        for frontend, (owner, set_key) in list(self.wanted.frontends.items()):
            if owner == port.key and set_key not in keys:
                self.wanted.frontends[frontend] = (owner, data.draw(st.sampled_from(keys)))
        for frontend in data.draw(st.lists(st.sampled_from(FRONTENDS), max_size=3)):
            self.wanted.frontends[frontend] = (port.key, data.draw(st.sampled_from(keys)))

    @precondition(lambda self: self.wanted.service_ports)
    @rule(data=st.data())
    def change_backends(self, data: st.DataObject) -> None:
        """What happens most: a few backends come, go or change their state."""
        key = data.draw(st.sampled_from(list(self.wanted.service_ports)))
        port = self.wanted.service_ports[key]
        fresh = data.draw(st.lists(backends, max_size=2))
        by_identity = {(b.address, b.port): b for s in port.sets for b in s.backends}
        by_identity.update({(b.address, b.port): b for b in fresh})
        bsets = []
        for bset in port.sets:
            kept = [by_identity[b.address, b.port] for b in bset.backends]
            gone = data.draw(st.integers(0, len(kept)))
            bsets.append(
                BackendSet(bset.key, distinct(kept[:gone] + kept[gone + 1 :] + fresh), bset.when_empty)
            )
        self.wanted.service_ports[key] = ServicePort(
            key, port.service_type, tuple(bsets), (), port.affinity_seconds, port.policy
        )

    @precondition(lambda self: self.wanted.service_ports)
    @rule(data=st.data())
    def remove_service_port(self, data: st.DataObject) -> None:
        self.wanted.remove(data.draw(st.sampled_from(list(self.wanted.service_ports))))

    @precondition(lambda self: self.wanted.service_ports)
    @rule(data=st.data())
    def lead_frontends(self, data: st.DataObject) -> None:
        for frontend in data.draw(st.lists(st.sampled_from(FRONTENDS), min_size=1, max_size=4)):
            port = self.wanted.service_ports[data.draw(st.sampled_from(list(self.wanted.service_ports)))]
            self.wanted.frontends[frontend] = (port.key, data.draw(st.sampled_from(port.sets)).key)

    @rule(gone=st.lists(st.sampled_from(FRONTENDS), max_size=4))
    def drop_frontends(self, gone: list[Any]) -> None:
        for frontend in gone:
            self.wanted.frontends.pop(frontend, None)

    @rule(
        networks=st.dictionaries(
            st.sampled_from(NETWORKS), st.none() | st.sampled_from(list(AddressRule)), max_size=4
        )
    )
    def set_rules(self, networks: dict[Any, AddressRule | None]) -> None:
        for network, address_rule in networks.items():
            if address_rule is None:
                self.wanted.service_addresses.pop(network, None)
            else:
                self.wanted.service_addresses[network] = address_rule

    @rule(nodes=st.dictionaries(st.sampled_from(NODE_ADDRESSES), st.none() | st.sampled_from(NODES)))
    def set_nodes(self, nodes: dict[bytes, str | None]) -> None:
        for address, name in nodes.items():
            if name is None:
                self.wanted.node_addresses.pop(address, None)
            else:
                self.wanted.node_addresses[address] = name

    @rule(fail_at=st.none() | st.integers(0, 60), complete=st.booleans())
    def carry_out(self, fail_at: int | None, complete: bool) -> None:
        complete = complete or self.broken
        if self.broken:
            self.node.restart()
        change = self.wanted.full() if complete else self.wanted.since(self.desired)
        self.desire_what_is_wanted()
        try:
            self.node.change(change, complete=complete, fail_at=fail_at)
        except WriteFailed:
            self.broken = True
            return
        self.broken = False
        self.settled()

    def desire_what_is_wanted(self) -> None:
        self.desired, self.wanted = self.wanted, self.wanted.copy()
        self.remember(self.living)

    def remember(self, words: Words) -> None:
        """From now on these must keep their ids, as far as they are desired."""
        staying = self.desired.identities()
        self.living = {identity: word for identity, word in words.items() if identity in staying}

    def settled(self) -> None:
        """What must hold after a plan that was carried out."""
        now = self.node.words()
        if not self.node.held.waiting:
            self.node.assert_answers(self.desired)
            tidied = self.node.change(self.desired.full(), complete=True)
            assert all(is_node_name(write) for write in tidied.writes), tidied.writes
            again = self.node.change(self.desired.full(), complete=True)
            assert not again.writes, again.writes
            assert not again.freed
        assert len(set(now.values())) == len(now), "two backends share an id"
        assert self.living.items() <= now.items(), "a living backend got another id"
        self.remember(now)

    @rule()
    def end_grace_period(self) -> None:
        if not self.broken:
            self.node.end_grace_period()
            self.node.change(no_change())

    @precondition(lambda self: not self.broken)
    @rule()
    def restart(self) -> None:
        waiting = bool(self.node.held.waiting)
        before = self.node.words()
        self.node.restart()
        made = self.node.change(self.desired.full(), complete=True)
        if not waiting:
            assert self.node.words() == before
            assert all(is_node_name(write) for write in made.writes), made.writes
        self.settled()

    def teardown(self) -> None:
        """Whatever happened: once faults end and there is room, held is what is desired."""
        if not hasattr(self, "node"):
            return
        if self.broken:
            self.node.restart()
        while True:
            self.desire_what_is_wanted()
            self.node.change(self.desired.full(), complete=True)
            for _ in range(3):
                self.node.end_grace_period()
                self.node.change(no_change())
            if not self.node.held.waiting:
                break
            self.shrink()
        self.node.assert_answers(self.desired)
        self.node.end_grace_period()
        self.settled()

    def shrink(self) -> None:
        assert self.capacities is not SMALL, "SMALL has room for everything that is wanted here"
        if self.wanted.service_ports:
            self.wanted.remove(next(iter(self.wanted.service_ports)))
        elif self.wanted.service_addresses:
            self.wanted.service_addresses.popitem()
        else:
            self.wanted.node_addresses.popitem()


class CrampedPlanMachine(PlanMachine):
    """The same with maps that are too small for it."""

    capacities = Capacities(
        frontends=9, sets=7, slots=96, backends=14, service_ports=5, service_addresses=3, node_addresses=2
    )


TestPlan = PlanMachine.TestCase
TestPlan.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCrampedPlan = CrampedPlanMachine.TestCase
TestCrampedPlan.settings = TestPlan.settings
