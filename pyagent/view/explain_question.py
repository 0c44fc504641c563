"""What `kubesock explain` is asked: an address or a Service, and who dials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pyagent.datapath.decoded import RawMaps, decode_frontend
from pyagent.datapath.encoded import NODE, RULE, address_frontend_key, is_node_port, service_address_key
from pyagent.datapath.evaluate import node_port_entry
from pyagent.datapath.layout import CONFIG, NodeId
from pyagent.model.address import (
    Family,
    Network,
    Protocol,
    family_of,
    format_endpoint,
    is_loopback,
    parse_address,
)
from pyagent.model.failures import InvalidField, UsageError, sanitized
from pyagent.model.service import AddressRule
from pyagent.view.live import live_sets
from pyagent.view.names import FAMILIES, PROTOCOLS, PortName, service_port_names

WANTED = "want ADDRESS:PORT[/PROTOCOL] or [NAMESPACE/]SERVICE[:PORT][/PROTOCOL]"
SERVED = (Protocol.TCP, Protocol.UDP)
_LOOPBACK = {Family.IPV4: parse_address("127.0.0.1"), Family.IPV6: parse_address("::1")}


class Dial(NamedTuple):
    """One connect() or sendto(): a 16-byte address, a port, a protocol."""

    address: bytes
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        return f"{format_endpoint(self.address, self.port)}/{self.protocol.name}"


class AddressTarget(NamedTuple):
    """`protocol` is None where nobody said."""

    address: bytes
    port: int
    protocol: Protocol | None


class ServiceTarget(NamedTuple):
    """Empty fields mean any. `port` is a port's name or number."""

    namespace: str
    name: str
    port: str
    protocol: Protocol | None


class Client(NamedTuple):
    """Who dials.

    Attributes:
        name: as it was given; "" for nobody in particular.
        cookie: of its network namespace; None: unknown.
        cgroups: ids of the cgroups it is in, by depth below the root; empty: unknown.
        outside: the address of a client outside of this node, whose packets come by an uplink; else empty.
    """

    name: str = ""
    cookie: int | None = None
    cgroups: tuple[int, ...] = ()
    outside: bytes = b""


ANYBODY = Client()


def node_cookie(raw: RawMaps) -> int:
    """The cookie of the node's own network namespace; 0 where no agent could tell."""
    return int(CONFIG.as_dict(memoryview(raw.config))["node_netns"]) if len(raw.config) >= CONFIG.size else 0


def is_in_node_namespace(raw: RawMaps, client: Client) -> bool:
    return client.cookie is not None and client.cookie == node_cookie(raw)


def parse_target(text: str) -> AddressTarget | ServiceTarget:
    """What to explain.

    Raises:
        UsageError: the text is neither an address with a port nor the name of a Service.
    """
    rest, protocol = _split_protocol(text)
    address = _address_and_port(rest)
    if address is not None:
        return AddressTarget(*address, protocol)
    namespace, slash, service = rest.rpartition("/")
    name, _, port = service.partition(":")
    if not name or "/" in namespace or (slash and not namespace):
        raise UsageError(f"{sanitized(text)}: {WANTED}")
    return ServiceTarget(namespace, name, port, protocol)


def _split_protocol(text: str) -> tuple[str, Protocol | None]:
    rest, slash, last = text.rpartition("/")
    # A Service may be called `tcp`: names are in small letters, so capitals or a port before it decide.
    name = last.upper() if ":" in rest else last
    if slash and name in {protocol.name for protocol in SERVED}:
        return rest, Protocol[name]
    if slash and name == Protocol.SCTP.name:
        raise UsageError(f"{sanitized(text)}: the kernel has no hook for SCTP; ask for TCP or UDP")
    return text, None


def _address_and_port(text: str) -> tuple[bytes, int] | None:
    """None if the text is about a Service."""
    host, colon, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        address = parse_address(host.removeprefix("[").removesuffix("]"))
    except InvalidField:
        if _is_address(text):
            raise UsageError(f"{sanitized(text)}: an address without a port; {WANTED}") from None
        return None
    if not colon or (":" in host and not host.startswith("[")):
        raise UsageError(f"{sanitized(text)}: write an IPv6 address in brackets, [ADDRESS]:PORT")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise UsageError(f"{sanitized(text)}: not a port: {sanitized(port)}; want 1 to 65535")
    return address, int(port)


def _is_address(text: str) -> bool:
    try:
        parse_address(text.removeprefix("[").removesuffix("]"))
    except InvalidField:
        return False
    return True


def dial_of(target: AddressTarget, raw: RawMaps, client: Client) -> Dial:
    """The dial that an address means: TCP if nobody said, but UDP where that alone is served."""
    if target.protocol is not None:
        return Dial(target.address, target.port, target.protocol)
    for protocol in SERVED:
        if _is_frontend(raw, Dial(target.address, target.port, protocol), client):
            return Dial(target.address, target.port, protocol)
    return Dial(target.address, target.port, Protocol.TCP)


def _is_frontend(raw: RawMaps, dial: Dial, client: Client) -> bool:
    if address_frontend_key(*dial) in raw.frontends:
        return True
    return node_port_entry(raw, *dial, in_node_namespace=is_in_node_namespace(raw, client)) is not None


def dials_of(target: ServiceTarget, raw: RawMaps) -> list[Dial]:
    """A dial for each port and family of a Service: its ClusterIP where it has one.

    Raises:
        UsageError: the maps hold no such Service.
    """
    names = service_port_names(raw.names)
    by_port = _frontends_by_service_port(raw, names)
    found: list[tuple[PortName, Dial]] = []
    for name in sorted(names, key=lambda name: name[2:7]):
        if (target.namespace or name.namespace, target.name) != (name.namespace, name.name):
            continue
        if target.protocol is not None and name.protocol != target.protocol.name:
            continue
        dials = by_port.get(name.identifier, [])
        if target.port and target.port != name.port:
            dials = [dial for dial in dials if target.port == str(dial.port)]
        if dials:
            found.append((name, min(dials, key=lambda dial: _preference(raw, dial))))
    if not found:
        raise UsageError(f"{_text(target)}: the maps hold no such Service; `kubesock services` lists them")
    if not target.namespace and len({name.namespace for name, _ in found}) > 1:
        namespaces = ", ".join(sorted({name.namespace for name, _ in found}))
        raise UsageError(f"{_text(target)}: there is one in each of {namespaces}; write NAMESPACE/SERVICE")
    return [dial for _, dial in found]


def _frontends_by_service_port(raw: RawMaps, names: Iterable[PortName]) -> dict[int, list[Dial]]:
    incarnations = {name.identifier: name.incarnation for name in names}
    owners = {found.set_id: found.service_port for found in live_sets(raw, incarnations)}
    dials: dict[int, list[Dial]] = {}
    for key, value in raw.frontends.items():
        entry = decode_frontend(key, value)
        owner = owners.get(entry.set_id) if entry is not None else None
        if entry is None or owner is None or entry.outside or entry.protocol not in PROTOCOLS:
            continue
        address = entry.address
        if is_node_port(key):
            if entry.node_id != NodeId.OWN or entry.family not in FAMILIES:
                continue
            address = own_address(raw, Family(entry.family))
        dials.setdefault(owner, []).append(Dial(address, entry.port, Protocol(entry.protocol)))
    return dials


def own_address(raw: RawMaps, family: Family) -> bytes:
    """An address of this node that answers on nodePorts; loopback if there is none."""
    own = NODE.pack(NodeId.OWN)
    found = [
        address
        for address, node in raw.node_addresses.items()
        if node == own and len(address) == 16 and family_of(address) is family and not is_loopback(address)
    ]
    return min(found, default=_LOOPBACK[family])


def is_cluster_ip(raw: RawMaps, address: bytes) -> bool:
    """Whether the maps know the address as a Service's own."""
    rule = raw.service_addresses.get(service_address_key(Network(address, 128)), b"")
    return rule in (RULE.pack(AddressRule.REFUSE_UNDEFINED_PORT), RULE.pack(AddressRule.PASS))


def _preference(raw: RawMaps, dial: Dial) -> tuple[bool, bool, bytes, int]:
    own = dial.address in raw.node_addresses or is_loopback(dial.address)
    return not is_cluster_ip(raw, dial.address), own, dial.address, dial.port


def _text(target: ServiceTarget) -> str:
    namespace = f"{target.namespace}/" if target.namespace else ""
    port = f":{target.port}" if target.port else ""
    return sanitized(f"{namespace}{target.name}{port}")
