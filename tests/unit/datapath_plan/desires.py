"""Short ways to say what is desired, and what a dial should get then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from pyagent.datapath.encoded import PROBE_PORT
from pyagent.model.address import PROBE_ADDRESSES, Family, Network, Protocol, family_of, parse_address
from pyagent.model.outcome import Outcome
from pyagent.model.service import (
    ANY_OTHER_NODE,
    CLUSTER_SET,
    AddressRule,
    Backend,
    BackendSet,
    DesiredChange,
    ServicePort,
    ServicePortKey,
    ServiceType,
    SetKey,
)

Dialled = tuple[Family, Protocol, int, bytes, str]
Answered = tuple[Outcome, frozenset[tuple[bytes, int]]]
Dial = tuple[bytes, int, Protocol]

RULES = {
    AddressRule.REFUSE_UNDEFINED_PORT: Outcome.REFUSED_UNDEFINED_PORT,
    AddressRule.REFUSE_UNALLOCATED: Outcome.REFUSED_UNALLOCATED_ADDRESS,
    AddressRule.PASS: Outcome.PASSED_OTHER_PROXY,
}


def port_key(name: str, port_name: str = "http", family: Family = Family.IPV4) -> ServicePortKey:
    return ServicePortKey("shop", name, port_name, Protocol.TCP, family)


def backend(text: str, port: int = 8080, state: int = 3, node: str = "") -> Backend:
    return Backend(parse_address(text), port, state, node)


def service_port(
    key: ServicePortKey,
    sets: dict[SetKey, Iterable[Backend]],
    when_empty: Outcome = Outcome.REFUSED_NO_ENDPOINTS,
    affinity: int = 0,
) -> ServicePort:
    bsets = tuple(BackendSet(k, tuple(b), when_empty) for k, b in sets.items())
    return ServicePort(key, ServiceType.CLUSTER_IP, bsets, (), affinity)


def dialled(text: str, port: int = 80) -> Dialled:
    address = parse_address(text)
    return (family_of(address), Protocol.TCP, port, address, "")


def node_port(port: int, node: str = "", family: Family = Family.IPV4) -> Dialled:
    return (family, Protocol.TCP, port, b"", node)


class Desired(msgspec.Struct):
    """A whole desired state, from which changes and expected answers follow."""

    service_ports: dict[ServicePortKey, ServicePort] = {}
    frontends: dict[Dialled, tuple[ServicePortKey, SetKey]] = {}
    service_addresses: dict[Network, AddressRule] = {}
    node_addresses: dict[bytes, str] = {}

    def copy(self) -> Desired:
        return Desired(
            dict(self.service_ports),
            dict(self.frontends),
            dict(self.service_addresses),
            dict(self.node_addresses),
        )

    def full(self) -> DesiredChange:
        return DesiredChange(
            dict(self.service_ports),
            dict(self.frontends),
            dict(self.service_addresses),
            dict(self.node_addresses),
            {},
        )

    def since(self, old: Desired) -> DesiredChange:
        return DesiredChange(
            _difference(old.service_ports, self.service_ports),
            _difference(old.frontends, self.frontends),
            _difference(old.service_addresses, self.service_addresses),
            _difference(old.node_addresses, self.node_addresses),
            {},
        )

    def identities(self) -> set[tuple[ServicePortKey, bytes, int]]:
        """Every backend: its service port, address and port."""
        return {
            (key, b.address, b.port)
            for key, port in self.service_ports.items()
            for bset in port.sets
            for b in bset.backends
        }

    def add(self, port: ServicePort, *frontends: Dialled, to: SetKey = CLUSTER_SET) -> None:
        self.service_ports[port.key] = port
        self.frontends.update((f, (port.key, to)) for f in frontends)

    def remove(self, key: ServicePortKey) -> None:
        del self.service_ports[key]
        self.frontends = {f: t for f, t in self.frontends.items() if t[0] != key}

    def answer(self, dial: Dial) -> Answered:
        """What the kernel should answer, found without the maps."""
        address, port, protocol = dial
        if address in PROBE_ADDRESSES and port == PROBE_PORT:
            return Outcome.PROBED, frozenset()
        family = family_of(address)
        keys: list[Dialled] = [(family, protocol, port, address, "")]
        node = self.node_addresses.get(address)
        if node is not None:
            keys.append((family, protocol, port, b"", node))
            if node:
                keys.append((family, protocol, port, b"", ANY_OTHER_NODE))
        for key in keys:
            if key in self.frontends:
                owner, set_key = self.frontends[key]
                bset = next(s for s in self.service_ports[owner].sets if s.key == set_key)
                found = frozenset((b.address, b.port) for b in bset.backends)
                return (Outcome.TRANSLATED if found else bset.when_empty), found
        ranges = [n for n in self.service_addresses if address in n]
        if not ranges:
            return Outcome.NOT_A_SERVICE, frozenset()
        rule = self.service_addresses[max(ranges, key=lambda n: n.prefix)]
        return RULES[rule], frozenset()


K = TypeVar("K")
V = TypeVar("V")


def _difference(old: dict[K, V], new: dict[K, V]) -> dict[K, V | None]:
    changed: dict[K, V | None] = {k: v for k, v in new.items() if old.get(k) != v}
    changed.update((k, None) for k in old if k not in new)
    return changed
