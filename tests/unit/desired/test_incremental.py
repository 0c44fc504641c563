"""After any sequence of edits the state is what a state made from scratch would be."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import settings as run
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.address import parse_address, parse_network
from pyagent.model.kube_objects import STRUCT_OF, KubeObject
from pyagent.model.source_events import Problem
from tests.unit.desired.objects import (
    NODE,
    NODE_IP,
    OTHER_IP,
    Cluster,
    endpoint,
    endpoint_slice,
    kind_of,
    node,
    service,
    service_cidr,
)

# Few values, so that edits meet: shared addresses, moved slices, changed winners.
names = st.sampled_from(["a", "b", "c"])
cluster_ips = st.sampled_from(["10.96.0.1", "10.96.0.2", "fd10::1", "None", "bad", None])
times = st.sampled_from([None, "2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z", "then"])
externals = st.lists(st.sampled_from(["198.51.100.9", "10.96.0.2", NODE_IP, OTHER_IP, "bad"]), max_size=2)
policies = st.sampled_from([None, "Cluster", "Local", "bad"])
flags = st.sampled_from([None, True, False])
ports = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["http", "dns"]),
            "port": st.sampled_from([80, 81, 0]),
            "protocol": st.sampled_from(["TCP", "UDP", "SCTP", "bad"]),
            "nodePort": st.sampled_from([None, 30080, 30081, 70000]),
        }
    ),
    max_size=3,
)
specs = st.fixed_dictionaries(
    {
        "ports": ports,
        "type": st.sampled_from([None, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "bad"]),
        "created": times,
        "externalIPs": externals,
        "ingress": externals,
        "internalTrafficPolicy": policies,
        "externalTrafficPolicy": policies,
        "clusterIPs": st.sampled_from([None, None, ["10.96.0.3", "fd10::3"]]),
        "sessionAffinity": st.sampled_from(["None", "ClientIP", "bad"]),
        "loadBalancerSourceRanges": st.sampled_from([None, ["10.0.0.0/8"], ["bad"]]),
        "labels": st.sampled_from([None, {"service.kubernetes.io/service-proxy-name": "x"}]),
    }
)
endpoints = st.builds(
    lambda address, flags, node, zones: endpoint(address, *flags, node=node, zones=zones),
    st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3", NODE_IP, "127.0.0.1", "bad"]),
    st.tuples(flags, flags, flags),
    st.sampled_from([None, NODE, "node-b", "node-c"]),
    st.sampled_from([None, None, ["zone-a"], ["zone-b"]]),
)
slice_ports = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["http", "dns"]),
            "port": st.sampled_from([8080, 8081, None]),
            "protocol": st.sampled_from(["TCP", "UDP", None]),
        }
    ),
    max_size=2,
)
services = st.builds(lambda name, ip, spec: service(name, ip, **spec), names, cluster_ips, specs)
slices = st.builds(
    lambda name, owner, ports, listed: endpoint_slice(*listed, name=name, service=owner, ports=ports),
    st.sampled_from(["s1", "s2", "s3", "s4"]),
    st.sampled_from(["a", "b", "c", None]),
    slice_ports,
    st.lists(endpoints, max_size=4),
)
nodes = st.builds(
    lambda name, addresses, zone: node(name, *addresses, zone=zone),
    st.sampled_from([NODE, "node-b", "node-c"]),
    st.lists(st.sampled_from([NODE_IP, OTHER_IP, "198.51.100.9", "bad"]), max_size=2),
    st.sampled_from([None, "zone-a", "zone-b"]),
)
cidrs = st.builds(
    lambda name, listed: service_cidr(name, *listed),
    st.sampled_from(["x", "y"]),
    st.lists(st.sampled_from(["10.96.0.0/16", "10.96.0.1/32", "192.168.0.0/16", "bad"]), max_size=2),
)
objects: st.SearchStrategy[KubeObject] = st.one_of(services, slices, nodes, cidrs)
interfaces = st.frozensets(st.sampled_from([parse_address(a) for a in (NODE_IP, "10.1.0.1", "::1")]))


class Edits(RuleBasedStateMachine):
    """Edits in any order, looked at now and then; `held` is what a source would list."""

    @initialize(remote=st.booleans())
    def start(self, remote: bool) -> None:
        self.cluster = Cluster(remote_node_ports=remote)
        self.held: dict[tuple[str, str], KubeObject] = {}
        self.rejected: dict[str, Problem] = {}

    @rule(obj=objects)
    def put(self, obj: KubeObject) -> None:
        self.cluster.snapshot.put(kind_of(obj), obj)
        self.note(obj)

    @rule(obj=objects)
    def delete(self, obj: KubeObject) -> None:
        kind, name = kind_of(obj), obj.metadata.name
        self.cluster.snapshot.delete(kind, obj.metadata.namespace, name)
        self.forget(kind, name)

    @rule(listed=st.lists(objects, max_size=3), kind=st.sampled_from(list(STRUCT_OF)))
    def replace(self, listed: list[KubeObject], kind: Any) -> None:
        chosen = {obj.metadata.name: obj for obj in listed if kind_of(obj) == kind}
        self.cluster.snapshot.replace(kind, chosen.values())
        for known, name in list(self.held):
            if known == kind:
                self.forget(kind, name)
        if kind == "Service":
            self.rejected.clear()
        for obj in chosen.values():
            self.note(obj)

    @rule(name=names)
    def reject(self, name: str) -> None:
        problem = Problem("Service", "shop", name, "spec", "want an object")
        self.cluster.snapshot.reject("Service", problem)
        self.forget("Service", name)
        self.rejected[name] = problem

    @rule(addresses=interfaces, ranges=st.sampled_from([None, ("198.51.100.0/24",)]))
    def configure(self, addresses: frozenset[bytes], ranges: tuple[str, ...] | None) -> None:
        allowed = None if ranges is None else tuple(map(parse_network, ranges))
        self.cluster.settings = msgspec.structs.replace(
            self.cluster.settings, interface_addresses=addresses, external_ip_cidrs=allowed
        )
        self.cluster.state.configure(self.cluster.settings)

    @rule()
    def look(self) -> None:
        self.cluster.update()
        mine, anew = self.cluster, Cluster()
        anew.node_addresses.clear()
        snapshot = Snapshot(NODE)
        for obj in reversed(self.held.values()):
            snapshot.put(kind_of(obj), obj)
        for problem in self.rejected.values():
            snapshot.reject("Service", problem)
        state = DesiredState(mine.settings)
        anew.follow(state.update(snapshot, snapshot.take_dirty()))
        assert mine.ports == anew.ports
        assert mine.frontends == anew.frontends
        assert mine.service_addresses == anew.service_addresses
        assert mine.node_addresses == anew.node_addresses
        assert mine.problems == anew.problems
        assert set(mine.state.problems) == mine.problems

    def note(self, obj: KubeObject) -> None:
        self.forget(kind_of(obj), obj.metadata.name, for_good=False)
        self.held[kind_of(obj), obj.metadata.name] = obj

    def forget(self, kind: str, name: str, *, for_good: bool = True) -> None:
        if kind == "Service":
            self.rejected.pop(name, None)
        if not for_good or (kind, name) != ("Node", NODE):  # the own Node outlives its deletion
            self.held.pop((kind, name), None)

    @invariant()
    def every_frontend_leads_to_a_set(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for key, set_key in self.cluster.frontends.values():
            assert [s.key for s in self.cluster.ports[key].sets].count(set_key) == 1


TestEdits = Edits.TestCase
TestEdits.settings = run(max_examples=60, stateful_step_count=25, deadline=None)
