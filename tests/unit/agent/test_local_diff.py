"""Differences between maps and what they should hold: none after a plan; each change of meaning is one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.agent.local_diff import Difference, Meant, differences, meant
from pyagent.datapath.decoded import RawMaps
from pyagent.datapath.encoded import (
    PROBE_FRONTENDS,
    address_frontend_key,
    name_key,
    node_port_frontend_key,
    service_address_key,
)
from pyagent.datapath.evaluate import evaluate
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import BACKEND, CONFIG, NameKind, NodeId, frontend_word
from pyagent.datapath.plan import plan
from pyagent.datapath.source_range_plan import ADMITTED
from pyagent.model.address import Family, Network, Protocol, parse_address
from pyagent.model.service import ANY_OTHER_NODE
from tests.unit.datapath_plan.fake_maps import SMALL, FakeMaps
from tests.unit.desired.objects import (
    Cluster,
    endpoint_slice,
    node,
    ready,
    service,
    service_cidr,
    terminating,
)

CLUSTER_IP = parse_address("10.96.0.10")
WEB = "shop/web:http/TCP (IPv4), set Cluster"


def cluster() -> Cluster:
    return Cluster(
        node("node-a", "192.168.0.1"),
        node("node-b", "192.168.0.2"),
        service_cidr("all", "10.96.0.0/16"),
        service(
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            ports=[{"name": "http", "port": 80, "nodePort": 30080}],
            ingress=["198.51.100.1"],
            loadBalancerSourceRanges=["10.0.0.0/8"],
            sessionAffinity="ClientIP",
        ),
        endpoint_slice(
            ready("10.1.0.1", node="node-a"), ready("10.1.0.2", node="node-b"), terminating("10.1.0.3")
        ),
        service("empty", "10.96.0.11"),
        remote_node_ports=True,
    )


class Filled:
    """Maps as a plan leaves them."""

    def __init__(self) -> None:
        self.held = HeldState(SMALL)
        self.maps = FakeMaps()
        desired = cluster().state.full()
        made = plan(self.held, desired, complete=True)
        assert not made.unfit
        for write in made.writes:
            self.maps.apply(write)
        self.meant: Meant = meant(desired, self.held)
        web = next(h for key, h in self.meant.ids.items() if key.name == "web")
        self.web = web.identifier
        self.range = struct.pack("=II", 32 + 96 + 8, web.identifier) + parse_address("10.0.0.0")
        self.ranges = {self.range: ADMITTED}

    def differences(self, raw: RawMaps | None = None) -> list[Difference]:
        return list(differences(self.meant, raw or self.maps.raw, self.ranges))


@pytest.fixture
def filled() -> Filled:
    return Filled()


def only(found: list[Difference]) -> tuple[str, str, str]:
    (one,) = found
    return one.subject, one.kernel, one.desired


def test_after_a_plan_there_is_no_difference(filled: Filled) -> None:
    assert filled.differences() == []


def test_a_lost_frontend_and_a_foreign_one(filled: Filled) -> None:
    frontends = filled.maps.hashes["frontends"]
    key = address_frontend_key(CLUSTER_IP, 80, Protocol.TCP)
    held = frontends.pop(key)
    assert only(filled.differences()) == ("frontend 10.96.0.10:80/TCP", "nothing", WEB)
    foreign = address_frontend_key(CLUSTER_IP, 81, Protocol.TCP)
    frontends |= {key: held, foreign: struct.pack("=Q", frontend_word(1, foreign))}
    subject, _, desired = only(filled.differences())
    assert (subject, desired) == ("frontend 10.96.0.10:81/TCP", "nothing")


def test_a_frontend_that_leads_elsewhere(filled: Filled) -> None:
    frontends = filled.maps.hashes["frontends"]
    key = address_frontend_key(CLUSTER_IP, 80, Protocol.TCP)
    for word, kernel in (
        (frontend_word(40, key), "set 40, which is nobody's"),
        (frontend_word(1, key) ^ 1, "a word that is not its own"),
    ):
        frontends[key] = struct.pack("=Q", word)
        assert only(filled.differences()) == ("frontend 10.96.0.10:80/TCP", kernel, WEB)


def test_a_node_port_of_other_nodes(filled: Filled) -> None:
    key = node_port_frontend_key(Family.IPV4, NodeId.ANY_OTHER, 30080, Protocol.TCP)
    del filled.maps.hashes["frontends"][key]
    subject, kernel, desired = only(filled.differences())
    assert subject == f"frontend {ANY_OTHER_NODE}:30080 (IPv4)/TCP"
    assert (kernel, desired) == ("nothing", "shop/web:http/TCP (IPv4), set Local on other nodes")


def test_a_lost_frontend_of_the_self_probe(filled: Filled) -> None:
    del filled.maps.hashes["frontends"][PROBE_FRONTENDS[0]]
    subject, kernel, desired = only(filled.differences())
    assert subject.startswith("the self-probe's frontend 192.0.0.8:1/")
    assert (kernel, desired) == ("nothing", "probed")


def test_a_backend_that_changed(filled: Filled) -> None:
    backends = filled.maps.arrays["backends"]
    at = next(i for i in range(1, 20) if bytes(backends[i * BACKEND.size :][12:16]) == bytes((10, 1, 0, 1)))
    before = bytes(backends)
    state = at * BACKEND.size + BACKEND.offsets["state"]
    backends[state] = 4
    found = filled.differences()
    assert found
    assert {one.kernel for one in found} == {"state 4"}
    assert all(one.subject.endswith(", 10.1.0.1:8080") for one in found)
    backends[:] = before
    backends[at * BACKEND.size + 15] = 99
    kernels = {(one.kernel, one.desired) for one in filled.differences() if one.subject == WEB}
    assert kernels == {("10.1.0.99:8080", "no such backend"), ("no such backend", "10.1.0.1:8080")}
    backends[:] = before
    backends[at * BACKEND.size + BACKEND.offsets["incarnation"]] ^= 1
    assert {one.kernel for one in filled.differences()} == {"1 slots whose backend is another's"}


def test_names_rules_node_addresses_ranges_and_bounds(filled: Filled) -> None:
    maps = filled.maps.hashes
    name = maps["names"].pop(name_key(NameKind.SERVICE_PORT, filled.web))
    assert only(filled.differences()) == (
        f"name of service port {filled.web}",
        "nothing",
        "shop/web:http/TCP",
    )
    maps["names"] |= {
        name_key(NameKind.SERVICE_PORT, filled.web): name,
        name_key(NameKind.SERVICE_PORT, 20): name,
    }
    assert only(filled.differences()) == ("name of service port 20", "shop/web:http/TCP", "nothing")
    del maps["names"][name_key(NameKind.SERVICE_PORT, 20)]

    rule = service_address_key(Network(CLUSTER_IP, 128))
    held = maps["service_addresses"].pop(rule)
    assert only(filled.differences()) == ("service address 10.96.0.10/32", "nothing", "refuse_undefined_port")
    maps["service_addresses"][rule] = held

    other = parse_address("192.168.0.2")
    held = maps["node_addresses"][other]
    maps["node_addresses"][other] = bytes(4)
    assert only(filled.differences()) == ("node address 192.168.0.2", "this node", "node-b")
    maps["node_addresses"][other] = held

    filled.ranges = {}
    assert only(filled.differences()) == ("source range of shop/web:http/TCP", "nothing", "10.0.0.0/8")
    filled.ranges = Filled().ranges

    struct.pack_into("=H", filled.maps.arrays["config"], CONFIG.offsets["node_port_high"], 1)
    assert only(filled.differences())[0] == "config, bounds of node_port"


def test_what_no_plan_writes_differs_when_it_is_told(filled: Filled) -> None:
    (one,) = differences(filled.meant, filled.maps.raw, filled.ranges, ["map meta"])
    assert str(one).startswith("map meta: the kernel has what somebody else did")


def test_a_source_range_with_another_value_differs(filled: Filled) -> None:
    filled.ranges = {filled.range: bytes(4)}
    subject, kernel, desired = only(filled.differences())
    assert subject == "source range of shop/web:http/TCP"
    assert (kernel, desired) == ("10.0.0.0/8 with another value", "10.0.0.0/8")


def test_what_has_no_room_differs(filled: Filled) -> None:
    held = HeldState(SMALL._replace(frontends=6))
    desired = cluster().state.full()
    maps = FakeMaps(SMALL._replace(frontends=6))
    made = plan(held, desired, complete=True)
    assert made.unfit
    for write in made.writes:
        maps.apply(write)
    assert list(differences(meant(desired, held), maps.raw, {}))


DIALS = [
    (CLUSTER_IP, 80),
    (parse_address("10.96.0.11"), 80),
    (CLUSTER_IP, 81),
    (parse_address("10.96.9.9"), 80),
    (parse_address("198.51.100.1"), 80),
    *((parse_address(f"192.168.0.{i}"), 30080) for i in (1, 2, 3)),
]
BASE = Filled()


@given(st.sampled_from(["sets", "slots", "backends", "config"]), st.data())
def test_no_change_of_an_answer_goes_unnoticed(name: str, data: st.DataObject) -> None:
    """Whatever byte somebody changes: if any dial is answered differently, there is a difference."""
    raw = BASE.maps.raw
    arrays = {field: bytearray(getattr(raw, field)) for field in ("sets", "slots", "backends", "config")}
    used = len(bytes(arrays[name]).rstrip(b"\0")) + 8
    at = data.draw(st.integers(0, min(used, len(arrays[name])) - 1))
    arrays[name][at] ^= data.draw(st.integers(1, 255))
    spoilt = raw._replace(
        sets=arrays["sets"], slots=arrays["slots"], backends=arrays["backends"], config=arrays["config"]
    )
    before = [evaluate(raw, *dial, Protocol.TCP) for dial in DIALS]
    after = [evaluate(spoilt, *dial, Protocol.TCP) for dial in DIALS]
    found = BASE.differences(spoilt)
    if [one.decision for one in before] != [one.decision for one in after]:
        assert found
    assert all(str(one).isprintable() for one in found)
