"""The addresses that belong to Services as a whole, whatever the port, and what happens to other ports."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pyagent.desired.problems import Findings
from pyagent.model.address import Family, Network, format_address, parse_network
from pyagent.model.failures import InvalidField
from pyagent.model.kube_objects import ServiceCIDR
from pyagent.model.service import AddressRule, ServiceView
from pyagent.model.source_events import Problem

ServiceName = tuple[str, str]

_LOOPBACK = (parse_network("127.0.0.0/8"), parse_network("::1/128"))


class ServiceRanges(msgspec.Struct, frozen=True, gc=False):
    """What one ServiceCIDR object says."""

    networks: tuple[Network, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_service_cidr(obj: ServiceCIDR) -> ServiceRanges:
    """The ranges of a ServiceCIDR object (KEP-1880)."""
    findings = Findings("ServiceCIDR", "", obj.metadata.name)
    networks: dict[Network, None] = {}
    for i, text in enumerate(obj.spec.cidrs or ()):
        try:
            network = parse_network(text)
            reason = why_not_service_range(network, ())
            if reason:
                raise InvalidField(reason, text)
            networks[network] = None
        except InvalidField as error:
            findings.add(f"spec.cidrs[{i}]", error)
    return ServiceRanges(tuple(networks), findings.problems())


def why_not_service_range(network: Network, own_addresses: Iterable[bytes]) -> str:
    """Why unallocated addresses of a range must not be refused; "" if they may.

    A range that is far too wide would cut the node off from everything inside it.
    """
    if network.prefix == (96 if network.family is Family.IPV4 else 0):
        return "the range of all addresses; give the range that ClusterIPs are taken from"
    if any(_overlap(network, loopback) for loopback in _LOOPBACK):
        return "it contains loopback addresses; give the range that ClusterIPs are taken from"
    for address in own_addresses:
        if address in network:
            return (
                f"it contains this node's address {format_address(address)}; "
                "give the range that ClusterIPs are taken from"
            )
    return ""


class ServiceAddresses:
    """Which rule holds for each service address, counted by the Services and ranges that want it."""

    def __init__(self) -> None:
        self._holders: dict[bytes, tuple[ServiceName, ...]] = {}
        self._passed: dict[bytes, set[ServiceName]] = {}
        self._ranges: frozenset[Network] = frozenset()
        self._before: dict[Network, AddressRule | None] = {}
        self._shared: set[bytes] = set()  # had several holders at some time since the last look

    def holders(self, address: bytes) -> tuple[ServiceName, ...]:
        """The Services whose ClusterIP an address is."""
        return self._holders.get(address, ())

    def exchange(self, name: ServiceName, old: ServiceView | None, new: ServiceView | None) -> None:
        """A Service changed: its ClusterIPs count as those of `new`, no more as those of `old`."""
        if old is not None and new is not None and _hold_alike(old, new):
            return
        for address in old.cluster_ips if old else ():
            self._note(Network(address, 128))
            rest = tuple(holder for holder in self._holders[address] if holder != name)
            if rest:
                self._shared.add(address)
                self._holders[address] = rest
            else:
                del self._holders[address]
            passed = self._passed.get(address, set())
            passed.discard(name)
            if not passed:
                self._passed.pop(address, None)
        for address in new.cluster_ips if new else ():
            self._note(Network(address, 128))
            others = self._holders.get(address, ())
            self._holders[address] = (*others, name)
            if others:
                self._shared.add(address)
            if new and new.other_proxy:
                self._passed.setdefault(address, set()).add(name)

    def set_ranges(self, ranges: Iterable[Network]) -> None:
        """The ranges that ClusterIPs are taken from; several objects may name the same one."""
        fresh = frozenset(ranges)
        for network in self._ranges ^ fresh:
            self._note(network)
        self._ranges = fresh

    def rules(self) -> dict[Network, AddressRule]:
        """Everything that holds now."""
        networks = {Network(address, 128) for address in self._holders} | self._ranges
        return {network: rule for network in networks if (rule := self._rule(network)) is not None}

    def take_changes(self) -> tuple[dict[Network, AddressRule | None], set[bytes]]:
        """(rules that changed, None for gone; addresses that were shared) since the last call."""
        before, self._before = self._before, {}
        shared, self._shared = self._shared, set()
        return {n: rule for n, held in before.items() if (rule := self._rule(n)) != held}, shared

    def _note(self, network: Network) -> None:
        if network not in self._before:
            self._before[network] = self._rule(network)

    def _rule(self, network: Network) -> AddressRule | None:
        if network.prefix == 128:
            if network.address in self._passed:
                return AddressRule.PASS
            if network.address in self._holders:
                return AddressRule.REFUSE_UNDEFINED_PORT
        return AddressRule.REFUSE_UNALLOCATED if network in self._ranges else None


def _hold_alike(old: ServiceView, new: ServiceView) -> bool:
    return (old.cluster_ips, old.other_proxy, old.created) == (new.cluster_ips, new.other_proxy, new.created)


def _overlap(one: Network, other: Network) -> bool:
    return one.address in other or other.address in one
