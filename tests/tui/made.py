"""A node for the screen, made up: the same at every run, with something to see in every view."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from pyagent.kernel.connections import Connection
from pyagent.kernel.namespace_owners import NetnsOwner, SocketKey
from pyagent.model.address import Protocol, format_endpoint
from pyagent.model.outcome import Outcome
from pyagent.model.service import BackendStateBit, PolicyBit, ServiceType, View
from pyagent.view.backend_table import backend_rows
from pyagent.view.event_table import EMPTY, time_text
from pyagent.view.explain import answering_port, explain
from pyagent.view.explain_facts import EndpointFacts, NodeFacts, PortFacts, ServiceFacts
from pyagent.view.explain_lookup import look_up
from pyagent.view.explain_maps import decode_client_maps
from pyagent.view.explain_question import ANYBODY, AddressTarget, dials_of, parse_target
from pyagent.view.explain_text import explanation_text
from pyagent.view.fill import entries_in_use
from pyagent.view.live import AgentFacts, LiveMaps, MapFacts
from pyagent.view.node_status import HookStatus
from pyagent.view.socket_walk import counted
from pyagent.view.tables import Row
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.remembered import Remembered
from pyagent.view.terminal.sample import Answer, Events, HookRuns, Needs, Sample
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.view_kinds import Request
from tests.unit.view.maps_made import DRAINING, READY, B, S, endpoint, live

NOW = 5000.0
NODES = {1: "worker-1\0zone-a", 2: "worker-2\0zone-b", 3: "worker-3\0zone-b"}
LOCAL = READY | BackendStateBit.LOCAL
TABLE_SECONDS = 0.4


def backends(subnet: int, port: int, rates: tuple[int, ...], look: int, draining: int = 0) -> tuple[B, ...]:
    """Backends on the nodes in turn, each chosen `rate` times a look."""
    found = []
    for number, rate in enumerate(rates):
        state = DRAINING if number >= len(rates) - draining else LOCAL if number % 3 == 0 else READY
        found.append(B(f"10.244.{subnet}.{10 + number}:{port}", state, 1 + number % 3, 40 + rate * look))
    return tuple(found)


def services(look: int) -> list[S]:
    """What the maps hold at the look of this number."""
    wave = (look % 7) * 3

    def one(text: str, address: str, port: int, rates: tuple[int, ...], draining: int = 0, **more: Any) -> S:
        subnet = int(address.split(".")[-1]) % 50
        held = backends(subnet, 8080, rates, look, draining)
        return S(text, (f"{address}:{port}",), ((View.CLUSTER, 0, held),), **more)

    return [
        one("default/kubernetes:https", "10.96.0.1", 443, (2,)),
        one("kube-system/kube-dns:dns", "10.96.0.10", 53, (31, 28), protocol=Protocol.UDP),
        one("kube-system/kube-dns:dns-tcp", "10.96.0.11", 53, (0, 0)),
        one("monitoring/grafana:http", "10.96.40.3", 80, (0,), service_type=ServiceType.NODE_PORT,
            node_ports=((0, 31300),)),
        one("shop/cart:http", "10.96.114.32", 80, (9, 8, 9), affinity=10800),
        one("shop/catalog:grpc", "10.96.201.5", 9090, (40 + wave, 38 + wave)),
        one("shop/checkout:http", "10.96.66.141", 80, (14, 12, 3), draining=1,
            policy=int(PolicyBit.EXTERNAL_LOCAL), service_type=ServiceType.LOAD_BALANCER),
        S("shop/payment:https", ("10.96.30.219:443",), ((View.CLUSTER, 0, ()),), refused=12 + 2 * look),
        one("shop/search:http", "10.96.77.7", 80, (0, 1)),
        one("shop/web:http", "10.96.14.7", 80, (55, 61, 48)),
        S("shop/web:http", ("[fd00:10:96::7]:80",),
          ((View.CLUSTER, 0, backends(99, 8080, (4, 5), look)),)),
    ]  # fmt: skip


def live_maps(look: int, agent: bool = True) -> LiveMaps:
    """All maps with their facts."""
    found = live(
        services(look),
        NODES,
        agent=AgentFacts(agent, 4711 if agent else 0, 900.0),
        outcomes=dict.fromkeys(Outcome, 0) | {Outcome.TRANSLATED: 5000 + 300 * look},
        meta={"layout": 1, "program_tag": 0xFEED, "agent_started": 1},
        now=NOW + look,
    )
    used = entries_in_use(found)
    sizes = {"frontends": 16, "sets": 512, "slots": 4096, "backends": 30, "names": 18}
    facts = [
        MapFacts(name, _kind(name), 8, 32, entries, sizes.get(name, 1024), 40_000 + 7_000 * len(name) ** 2)
        for name, entries in used.items()
    ]
    facts.append(MapFacts("origin", "sk_storage", 4, 64, None, 0, 480))
    return found._replace(maps=tuple(facts))


def _kind(name: str) -> str:
    return "array" if name in ("sets", "slots", "backends", "chosen") else "hash"


def sockets(maps: LiveMaps) -> list[Connection]:
    """Some clients of some Services; two of them on a backend that is gone."""
    found = []
    rows = [row for row in backend_rows(maps) if row["namespace"] == "shop" and row["family"] == "IPv4"]
    frontends = {one.text: one.frontends[0] for one in services(0) if "[" not in one.frontends[0]}
    for number, row in enumerate(rows):
        dialled, chosen = frontends[f"shop/{row['name']}:{row['port']}"], row["backend"]
        port = next(i for i, one in enumerate(services(0), 1) if one.frontends == (dialled,))
        gone = number in (1, 6)
        found.append(
            Connection(
                9000 + number, 4026532000 + number % 3, socket.AF_INET, 1, Protocol.TCP,
                *endpoint(f"10.244.7.{4 + number % 3}:{40000 + number}"), *endpoint(chosen),
                *endpoint(dialled), port, 100 + port, row["id"], 1 if gone else 1000 + row["id"],
                int((NOW - 7 * number**3) * 1e9),
            )
        )  # fmt: skip
    return found


OWNERS = {
    4026532000: NetnsOwner("shop/web-6f7c9-x2x8p", "cni-1", (4242,)),
    4026532001: NetnsOwner("shop/checkout-5d9b-qqzt1", "cni-2", (4300,)),
    4026532002: NetnsOwner("", "node", (1,)),
}
COMMANDS = {4026532000: "4242/nginx", 4026532001: "4300/checkout", 4026532002: "811/kubelet"}


def happened(seconds: float, event: str, service: str, **more: Any) -> Row:
    """A row of the events view."""
    namespace, _, rest = service.rpartition("/")[0].partition("/")
    name, _, port = rest.partition(":")
    made = {"service": service, "namespace": namespace, "name": name, "port": port, "protocol": "TCP"}
    return {
        **EMPTY,
        "time": time_text(1767225600.25 + seconds),
        "event": event,
        **made,
        "family": "IPv4",
        **more,
    }


def dialled(seconds: float, event: str, service: str, address: str, client: int, **more: Any) -> Row:
    """A row of what a hook reported."""
    who = (("shop/web-6f7c9-x2x8p", 4242, "nginx"), ("shop/checkout-5d9b-qqzt1", 4300, "checkout"))[client]
    return happened(
        seconds, event, service, dialled=address, pod=who[0], netns=f"cni-{client + 1}", pid=who[1],
        command=who[2], hook="connect4", cookie=7000 + int(seconds), **more,
    )  # fmt: skip


REFUSED = {"errno": "ECONNREFUSED", "what": "no endpoint is ready"}
CART, PAYMENT = "shop/cart:http/TCP", "shop/payment:https/TCP"
EVENTS = (
    happened(0, "change", "shop/web:http/TCP", what="new: Cluster has 10.244.7.10:8080 10.244.7.11:8080",
             resourceVersion="1200"),
    happened(61, "change", "shop/checkout:http/TCP", what="Cluster +10.244.41.12:8080",
             resourceVersion="1201"),
    happened(122, "change", PAYMENT, resourceVersion="1203",
             what="Cluster -10.244.19.10:8443; Cluster answers refused_no_endpoints"),
    dialled(122.41, "refused_no_endpoints", PAYMENT, "10.96.30.219:443", 1, **REFUSED),
    dialled(123.02, "translated", CART, "10.96.114.32:80", 1, chosen="10.244.32.11:8080",
            previous="10.244.32.10:8080", what="was on 10.244.32.10:8080, which takes no more"),
    dialled(123.4, "translated_by_affinity", CART, "10.96.114.32:80", 1, chosen="10.244.32.11:8080",
            what="stays by session affinity"),
    dialled(123.8, "translated", "shop/catalog:grpc/TCP", "10.96.201.5:9090", 0, chosen="10.244.5.10:9090"),
    dialled(124.1, "refused_undefined_port", "shop/web", "10.96.14.7:81", 0, errno="ECONNREFUSED",
            what="no Service has this port"),
    happened(124.5, "socket_ended", "kube-system/kube-dns:dns/UDP", protocol="UDP", dialled="10.96.0.10:53",
             chosen="10.244.10.11:53", pod="shop/web-6f7c9-x2x8p", netns="cni-1", cookie=99,
             what="the socket 10.244.7.4:41234 was ended: its backend takes no more"),
    happened(125.1, "notice", "", what="Repaired: connect4: it was detached"),
    dialled(126.3, "refused_no_endpoints", PAYMENT, "10.96.30.219:443", 1, **REFUSED),
    dialled(127.0, "translated", "shop/web:http/TCP", "10.96.14.7:80", 1, chosen="10.244.7.10:8080"),
)  # fmt: skip
SYNC: dict[str, Any] = {
    "ready": True,
    "healthy": True,
    "startedSecondsAgo": 905.0,
    "sources": [
        {"kind": "Service", "state": "watching", "ageSeconds": 0.0, "resourceVersion": "1203",
         "disconnects": 0, "error": ""},
        {"kind": "EndpointSlice", "state": "waiting", "ageSeconds": 41.0, "resourceVersion": "1199",
         "disconnects": 3, "error": "429 Too Many Requests, again in 8 s"},
    ],
    "lastPlan": {"secondsAgo": 12.5, "writes": 204, "failures": 0, "error": "", "waitingSeconds": 0.0,
                 "serviceChanges": 12, "endpointChanges": 31},
    "latency": {"changes": 42, "halfWithinSeconds": 0.002, "mostWithinSeconds": 0.008},
    "problems": ["EndpointSlice shop/web-k2x: address '10.244.7.300': not an IP address; skipped"],
    "noRoom": [],
}  # fmt: skip
ANSWERS = {"/v1/sync": SYNC}


def hooks(look: int) -> tuple[HookRuns, ...]:
    """Six that run, one that does not, one that is not attached."""
    names = ("connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4")
    found = [
        HookRuns(
            HookStatus(name, True, name != "recvmsg6", 70 + i, 30 + i, "/sys/fs/cgroup"),
            5000 + 90 * look * (7 - i),
            (5000 + 90 * look * (7 - i)) * (90 + 13 * i),
        )
        for i, name in enumerate(names)
    ]
    return (*found, HookRuns(HookStatus("getpeername6", False, False, 0, 0, ""), 0, 0))


class MadeReader:
    """Each look is a second later. `fail` makes the next ones raise."""

    def __init__(self, agent: bool = True, answers: bool = True) -> None:
        self.agent = agent
        self.answers = answers
        self.looks = 0
        self.closed = False
        self.fail: BaseException | None = None
        self.change: Callable[[Sample], Sample] = lambda sample: sample

    def look(self, needs: Needs) -> Sample:
        if self.fail is not None:
            raise self.fail
        self.looks += 1
        maps = live_maps(self.looks, self.agent)
        sample = Sample(
            maps, NOW + self.looks, counted(sockets(maps), needs.sockets, NOW + self.looks), OWNERS
        )
        sample = sample._replace(
            processes={
                netns: {
                    SocketKey(one.protocol, one.source, one.source_port, one.peer, one.peer_port): (text,)
                    for one in sockets(maps)
                    if one.netns == netns
                }
                for netns, text in COMMANDS.items()
            },
            hooks=hooks(self.looks) if needs.hooks else (),
        )
        if needs.page:
            silent = Answer(error="no agent answers at /var/lib/kubesock/agent.sock (Connection refused)")
            answer = Answer(json.loads(json.dumps(ANSWERS[needs.page]))) if self.answers else silent
            sample = sample._replace(answer=answer)
        if needs.events:
            heard = Events(tuple(reversed(EVENTS)), len(EVENTS), self.agent)
            sample = sample._replace(events=heard)
        return self.change(sample)

    def close(self) -> None:
        self.closed = True

    def clock(self) -> float:
        """A moment after the last look."""
        return NOW + self.looks + TABLE_SECONDS


def explained(target: str, client: str, width: int) -> str:
    """Stands for `kubesock explain`."""
    return f"{target} from {client or 'anywhere'}: goes to 10.244.7.10:8080 in 34.0% of the dials\n"


LEFT_OUT = {"10.244.41.13:8080": "not ready", "10.244.41.14:8080": "terminating, and no longer serving"}


def explained_by_the_maps(target: str, client: str, width: int) -> str:
    """The explanation of a Service of the made-up node, with two endpoints that are out."""
    maps = live_maps(3)
    wanted = parse_target(target)
    assert not isinstance(wanted, AddressTarget)
    dial = dials_of(wanted, maps.raw)[0]
    found = look_up(maps, decode_client_maps({}, {}, {}), dial, ANYBODY)
    pods = {format_endpoint(one.address, one.port): f"shop/{wanted.name}-{number}" for number, one in
            enumerate(found.answer.candidates, 10)}  # fmt: skip
    view = "Cluster"
    of_slice = partial(EndpointFacts, slice="checkout-k2x9p", zone="zone-b")
    chosen = [
        of_slice(
            one, ready=True, serving=True, terminating=False, node="worker-2", pod=pod, chosen={view: "ready"}
        )
        for one, pod in pods.items()
    ]
    out = [
        of_slice(one, ready=False, serving=False, terminating=False, node="worker-3", left_out={view: why})
        for one, why in LEFT_OUT.items()
    ]
    port = answering_port(maps, found)
    assert port is not None
    told = PortFacts(port.service, port.family, (), (*chosen, *out))
    facts = ServiceFacts(port.namespace, port.name, ports=(told,))
    row = explain(maps, found, NodeFacts("worker-1", "zone-a", (facts,)))
    return explanation_text(row, color=True, width=width)


def settings(reader: MadeReader, **more: Any) -> Settings:
    """A screen that looks only when it is told to."""
    values: dict[str, Any] = {
        "node": "worker-1",
        "kernel": "6.18.0",
        "explain": explained,
        "chosen": Remembered(),
        "interval": 60.0,
        "clock": reader.clock,
        "marks": Marks(True),
        "first": Request("services"),
    }
    return Settings(reader, **{**values, **more})
