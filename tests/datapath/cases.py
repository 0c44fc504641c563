"""What a dial from this node leads to, by the rules of Kubernetes: a table for `explain` and for the kernel.

A world is a set of objects; its dials say who dials what, and what must come of it. Expectations are written
down here, from neither of the two. Endpoints are the servers `a`, `b`, `c` of `ground/cluster.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from pyagent.agent.inbox import Standing
from pyagent.datapath.held import HeldState
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.address import parse_address
from pyagent.model.kube_objects import EndpointSlice, Node, Service, ServiceCIDR
from pyagent.model.outcome import Outcome
from tests.datapath.ground.manifests import Object, Port, endpoint_slice, node, service, service_cidr

NODE_NAME, ZONE = "n", "zone-n"
NODE_ADDRESSES = ("172.30.0.10", "fd44:172:30::10")
OTHER_NODES = {"m": "198.18.0.20", "o": "198.18.0.21"}
"""No namespace has a route there."""

CLIENT_ADDRESS = "10.244.1.10"
SERVERS = {"a": 20, "b": 21, "c": 22}
PORTS: list[Port] = [("t", 80, "TCP"), ("u", 80, "UDP")]
TARGETS: list[Port] = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
KINDS = {"Service": Service, "EndpointSlice": EndpointSlice, "Node": Node, "ServiceCIDR": ServiceCIDR}

POD, HOST = "pod", "host"


class Dialled(NamedTuple):
    """One dial.

    Attributes:
        target: as `explain` takes it.
        servers: names of the servers that must be reachable, and no others; each may have `:PORT`.
        client: POD or HOST.
    """

    target: str
    outcome: Outcome
    servers: tuple[str, ...] = ()
    client: str = POD


class World(NamedTuple):
    objects: list[Object]
    dials: list[Dialled]
    settings: Mapping[str, Any] = MappingProxyType({})


def address(server: str, family: int = 4) -> str:
    """The address of `a`, `b` or `c`."""
    number = SERVERS[server]
    return f"10.244.1.{number}" if family == 4 else f"fd44:10:244::1:{number}"


def backend(server: str, family: int) -> str:
    """`ADDRESS:PORT` of a server as a table names it."""
    name, _, port = server.partition(":")
    host = address(name, family)
    return f"[{host}]:{port or 8080}" if family == 6 else f"{host}:{port or 8080}"


def to(target: str, *servers: str, client: str = POD) -> Dialled:
    """A dial that is translated."""
    return Dialled(target, Outcome.TRANSLATED, servers, client)


def refused(target: str, outcome: Outcome, client: str = POD) -> Dialled:
    return Dialled(target, outcome, (), client)


def passed(target: str, outcome: Outcome = Outcome.NOT_A_SERVICE, client: str = POD) -> Dialled:
    """A dial that is left as it is."""
    return Dialled(target, outcome, (), client)


class At(NamedTuple):
    """An endpoint: a server, where it is said to run, its conditions and hints."""

    server: str
    node: str | None = NODE_NAME
    ready: bool = True
    serving: bool | None = None  # as ready
    terminating: bool = False
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def endpoint(self, family: int) -> Object:
        hints = {
            "forZones": [{"name": zone} for zone in self.zones],
            "forNodes": [{"name": name} for name in self.nodes],
        }
        made: Object = {
            "addresses": [address(self.server, family)],
            "conditions": {
                "ready": self.ready,
                "serving": self.ready if self.serving is None else self.serving,
                "terminating": self.terminating,
            },
            "targetRef": {"kind": "Pod", "name": self.server},
        }
        if self.node is not None:
            made["nodeName"] = self.node
        return made | ({"hints": hints} if self.zones or self.nodes else {})


def draining(server: str, **changes: Any) -> At:
    return At(server, ready=False, serving=True, terminating=True)._replace(**changes)


def backed(
    name: str, *endpoints: At, family: int = 4, targets: list[Port] = TARGETS, suffix: str = "1"
) -> Object:
    """A slice of a Service."""
    made = endpoint_slice(name, [address("a", family)], targets, suffix=f"{suffix}-v{family}")
    made["endpoints"] = [one.endpoint(family) for one in endpoints]
    return made


def web(number: int, name: str = "web", both: bool = False, **spec: Any) -> Object:
    """A Service on 10.96.7.NUMBER, TCP and UDP 80."""
    addresses = [f"10.96.7.{number}"] + ([f"fd44:10:96::7:{number:x}"] if both else [])
    return service(name, addresses, PORTS, **spec)


def with_node_port(made: Object, node_port: int) -> Object:
    for port in made["spec"]["ports"]:
        port["nodePort"] = node_port
    return made


def balanced(number: int, name: str, ingress: list[Object], **spec: Any) -> Object:
    """A Service of type LoadBalancer with these ingress entries."""
    made = web(number, name, type="LoadBalancer", **spec)
    return {**made, "status": {"loadBalancer": {"ingress": ingress}}}


def other_proxy(made: Object) -> Object:
    made["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "another"}
    return made


def created(made: Object, when: str) -> Object:
    made["metadata"]["creationTimestamp"] = when
    return made


NODES = [
    node(NODE_NAME, NODE_ADDRESSES, {"topology.kubernetes.io/zone": ZONE}),
    *(node(name, [text]) for name, text in OTHER_NODES.items()),
]
CIDRS = service_cidr("10.96.0.0/16", "fd44:10:96::/112")

WORLDS: dict[str, World] = {
    "ClusterIPs": World(
        [
            CIDRS,
            web(1, both=True),
            backed("web", At("a"), At("b"), At("c", ready=False)),
            backed("web", At("a"), At("c"), family=6),
            web(2, "empty"),
            web(3, "unready"),
            backed("unready", At("a", ready=False), At("b", ready=False, serving=True)),
            other_proxy(web(4, "other")),
            backed("other", At("a")),
        ],
        [
            to("10.96.7.1:80/TCP", "a", "b"),
            to("10.96.7.1:80/UDP", "a", "b"),
            to("10.96.7.1:80/TCP", "a", "b", client=HOST),
            to("[fd44:10:96::7:1]:80/TCP", "a", "c"),
            to("[::ffff:10.96.7.1]:80/TCP", "a", "b"),
            refused("10.96.7.1:81/TCP", Outcome.REFUSED_UNDEFINED_PORT),
            refused("10.96.7.2:80/TCP", Outcome.REFUSED_NO_ENDPOINTS),
            refused("10.96.7.2:80/UDP", Outcome.REFUSED_NO_ENDPOINTS),
            refused("10.96.7.3:80/TCP", Outcome.REFUSED_NO_ENDPOINTS),
            refused("10.96.200.9:80/TCP", Outcome.REFUSED_UNALLOCATED_ADDRESS),
            refused("[fd44:10:96::99]:80/UDP", Outcome.REFUSED_UNALLOCATED_ADDRESS),
            passed("10.96.7.4:80/TCP", Outcome.PASSED_OTHER_PROXY),
            passed("10.96.7.4:9999/TCP", Outcome.PASSED_OTHER_PROXY),
            passed("10.97.0.1:80/TCP"),
            passed("10.244.1.20:8080/TCP"),
        ],
    ),
    "endpoints that terminate": World(
        [
            CIDRS,
            web(1),
            backed("web", draining("a"), draining("b"), At("c", ready=False, terminating=True)),
            web(2, "one-ready"),
            backed("one-ready", draining("a"), At("b")),
            web(3, "published"),  # publishNotReadyAddresses: ready although it terminates
            backed("published", At("c", ready=True, serving=True, terminating=True), draining("a")),
        ],
        [
            to("10.96.7.1:80/TCP", "a", "b"),
            to("10.96.7.2:80/TCP", "b"),
            to("10.96.7.3:80/TCP", "c"),
        ],
    ),
    "internalTrafficPolicy Local": World(
        [
            CIDRS,
            *(
                web(i, name, internalTrafficPolicy="Local")
                for i, name in enumerate(("here", "far", "none", "old"), 1)
            ),
            backed("here", At("a"), At("b", "m")),
            backed("far", At("a", "m"), At("b", None)),
            backed("none", At("a", ready=False)),
            backed("old", draining("a"), At("b", "m")),
        ],
        [
            to("10.96.7.1:80/TCP", "a"),
            refused("10.96.7.2:80/TCP", Outcome.REFUSED_NO_LOCAL_ENDPOINTS),
            refused("10.96.7.2:80/UDP", Outcome.REFUSED_NO_LOCAL_ENDPOINTS),
            refused("10.96.7.3:80/TCP", Outcome.REFUSED_NO_ENDPOINTS),
            to("10.96.7.4:80/TCP", "a"),
        ],
    ),
    "topology hints": World(
        [
            *NODES,
            CIDRS,
            *(web(i, name) for i, name in enumerate(("zone", "node", "partial", "elsewhere", "both"), 1)),
            backed("zone", At("a", zones=(ZONE,)), At("b", zones=("zone-x",)), At("c", ready=False)),
            backed("node", At("a", nodes=("m",)), At("b", nodes=(NODE_NAME, "m")), At("c", nodes=("o",))),
            backed("partial", At("a", zones=(ZONE,)), At("b")),
            backed("elsewhere", At("a", zones=("zone-x",)), At("b", zones=("zone-y",))),
            backed(
                "both", At("a", zones=(ZONE,), nodes=("m",)), At("b", zones=("zone-x",), nodes=("o",))
            ),
        ],
        [
            to("10.96.7.1:80/TCP", "a"),
            to("10.96.7.2:80/TCP", "b"),
            to("10.96.7.3:80/TCP", "a", "b"),
            to("10.96.7.4:80/TCP", "a", "b"),
            to("10.96.7.5:80/TCP", "a"),
        ],
    ),
    "nodePorts": World(
        [
            *NODES,
            CIDRS,
            with_node_port(web(1, type="NodePort", both=True), 30080),
            backed("web", At("a"), At("b", "m")),
            with_node_port(web(2, "local", type="NodePort", externalTrafficPolicy="Local"), 30081),
            backed("local", At("a"), At("b", "m")),
            with_node_port(web(3, "empty", type="NodePort"), 30082),
        ],
        [
            to(f"{NODE_ADDRESSES[0]}:30080/TCP", "a", "b"),
            to(f"{NODE_ADDRESSES[0]}:30080/UDP", "a", "b", client=HOST),
            to("127.0.0.1:30080/TCP", "a", "b", client=HOST),
            passed("127.0.0.1:30080/TCP", client=POD),
            refused(f"[{NODE_ADDRESSES[1]}]:30080/TCP", Outcome.REFUSED_NO_ENDPOINTS),
            to(f"{NODE_ADDRESSES[0]}:30081/TCP", "a", "b"),  # the short-circuit for clients in the cluster
            refused(f"{NODE_ADDRESSES[0]}:30082/TCP", Outcome.REFUSED_NO_ENDPOINTS),
            to("198.18.0.20:30080/TCP", "a", "b"),
            to("198.18.0.20:30081/TCP", "b"),
            refused("198.18.0.21:30081/TCP", Outcome.REFUSED_NO_LOCAL_ENDPOINTS),
            passed("10.244.1.20:30080/TCP"),
            passed(f"{NODE_ADDRESSES[0]}:30090/TCP"),
        ],
        {"remote_node_ports": True},
    ),
    "nodePorts of this node alone": World(
        [*NODES, CIDRS, with_node_port(web(1, type="NodePort"), 30080), backed("web", At("a"))],
        [to(f"{NODE_ADDRESSES[0]}:30080/TCP", "a"), passed("198.18.0.20:30080/TCP")],
    ),
    "external and load-balancer addresses": World(
        [
            *NODES,
            CIDRS,
            web(1, externalIPs=["198.51.100.1"]),
            backed("web", At("a")),
            balanced(2, "vip", [{"ip": "198.51.100.2"}], externalTrafficPolicy="Local"),
            backed("vip", At("b", "m")),
            balanced(3, "hairpin", [{"ip": "198.51.100.3", "ipMode": "Proxy"}]),
            backed("hairpin", At("c")),
            created(web(4, "older", externalIPs=["198.51.100.4"]), "2020-01-01T00:00:00Z"),
            backed("older", At("a")),
            created(web(5, "younger", externalIPs=["198.51.100.4"]), "2024-01-01T00:00:00Z"),
            backed("younger", At("b")),
            balanced(6, "ours", [{"ip": "198.51.100.6"}], loadBalancerSourceRanges=["10.244.0.0/16"]),
            backed("ours", At("a")),
            balanced(7, "theirs", [{"ip": "198.51.100.7"}], loadBalancerSourceRanges=["203.0.113.0/24"]),
            backed("theirs", At("a")),
        ],
        [
            to("198.51.100.1:80/TCP", "a"),
            to("198.51.100.2:80/TCP", "b"),
            passed("198.51.100.3:80/TCP"),
            passed("198.51.100.1:81/TCP"),
            to("198.51.100.4:80/TCP", "a"),
            to("10.96.7.5:80/TCP", "b"),
            to("198.51.100.6:80/TCP", "a"),
            refused("198.51.100.6:80/TCP", Outcome.REFUSED_UNKNOWN_SOURCE, client=HOST),
            refused("198.51.100.7:80/TCP", Outcome.REFUSED_SOURCE_RANGE),
            to("10.96.7.7:80/TCP", "a"),  # the ranges are about the load balancer's address alone
        ],
    ),
    "several slices": World(
        [
            CIDRS,
            web(1),  # a pod's address used again while the pod before still terminates
            backed("web", draining("a"), suffix="1"),
            backed("web", At("a"), At("b"), suffix="2"),
            web(2, "named"),  # pods that give the port's name different numbers
            backed("named", At("a"), suffix="1"),
            backed("named", At("b"), suffix="2", targets=[("t", 8081, "TCP"), ("u", 8081, "UDP")]),
            web(3, "half"),  # a slice without one of the ports
            backed("half", At("a"), suffix="1"),
            backed("half", At("b"), suffix="2", targets=[("u", 8080, "UDP")]),
        ],
        [
            to("10.96.7.1:80/TCP", "a", "b"),
            to("10.96.7.2:80/TCP", "a", "b:8081"),
            to("10.96.7.3:80/TCP", "a"),
            to("10.96.7.3:80/UDP", "a", "b"),
        ],
    ),
}  # fmt: skip


def settings_of(world: World) -> Settings:
    own = {parse_address(text) for text in (*NODE_ADDRESSES, "127.0.0.1", "::1")}
    return Settings(NODE_NAME, interface_addresses=frozenset(own), **world.settings)


def standing_of(world: World, held: HeldState) -> Standing:
    """What an agent would know of these objects; `held` is where a plan for it will be kept."""
    snapshot = Snapshot(NODE_NAME)
    for kind, decoded in KINDS.items():
        found = [msgspec.convert(obj, decoded) for obj in world.objects if obj["kind"] == kind]
        snapshot.replace(kind, found)  # type: ignore[arg-type]
    desired = DesiredState(settings_of(world))
    desired.update(snapshot, snapshot.everything())
    return Standing(snapshot, desired, held, True)


def each_dial() -> list[tuple[str, Dialled]]:
    """(world, dial) of the whole table, for parametrize."""
    return [(name, dial) for name, world in WORLDS.items() for dial in world.dials]


def name_of(value: object) -> str:
    """A test's name for a parameter."""
    if isinstance(value, Dialled):
        return f"{value.target}-{value.client}-{value.outcome.label}"
    return str(value)
