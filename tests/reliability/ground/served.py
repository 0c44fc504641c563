"""Services that move from set to set, and what a client must know to judge where a call led."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.datapath.ground import endpoint_slice, service

PORTS = (("t", 80, "TCP"), ("u", 80, "UDP"))
BACKEND_PORTS = (("t", 8080, "TCP"), ("u", 8080, "UDP"))
NODE_PORT = 30080
Object = dict[str, Any]


class Served(NamedTuple):
    """A dual-stack Service with `sets` disjoint sets of endpoints; with none, client affinity and one set.

    Attributes:
        number: last part of its addresses.
        first: number of its first set, in the endpoints' addresses (tests/reliability/c/dials.c).
        hosts: endpoints of the first set; each next one has one more, up to three more.
        nodes: addresses of a node other than the client's, where the Service's nodePort is dialled too.
    """

    name: str
    number: int
    first: int
    sets: int
    hosts: int = 1
    nodes: tuple[str, ...] = ()

    @property
    def frontends(self) -> tuple[str, str]:
        return f"10.96.6.{self.number}", f"fd44:10:96::6:{self.number}"

    def service(self) -> Object:
        affinity = {"sessionAffinity": "ClientIP"} if not self.sets else {}
        made = _in_default(service(self.name, self.frontends, PORTS, **affinity))
        if self.nodes:
            made["spec"]["type"] = "NodePort"
            made["spec"]["ports"][0]["nodePort"] = NODE_PORT
        return made

    def slices(self, generation: int) -> list[Object]:
        """The EndpointSlices of one generation."""
        which = generation % self.sets if self.sets else 0
        third, hosts = self.first + which, range(1, self.hosts + which % 4 + 1)
        ipv4 = [f"10.244.{third}.{host}" for host in hosts]
        ipv6 = [f"fd44:10:244::{third:x}:{host:x}" for host in hosts]
        return [_in_default(endpoint_slice(self.name, one, BACKEND_PORTS)) for one in (ipv4, ipv6)]

    def targets(self) -> list[str]:
        """The client's arguments: each way to dial the Service."""
        kinds = ("tcp", "udp", "datagram") if self.sets else ("tcp",)
        dialled = [(kind, frontend, 80) for kind in kinds for frontend in self.frontends]
        dialled += [("tcp", address, NODE_PORT) for address in self.nodes]
        return [f"{kind},{address},{port},{self.first},{self.sets}" for kind, address, port in dialled]


def _in_default(obj: Object) -> Object:
    obj["metadata"].setdefault("namespace", "default")
    return obj
