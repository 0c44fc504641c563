"""What kube-proxy's rules serve: the address and port that a client dials -> endpoints. It runs nothing.

iptables: chains of pkg/proxy/iptables, as iptables-save prints them. nftables: maps and chains of
pkg/proxy/nftables, as `nft --json` prints them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pyagent.model.address import Family, Protocol, parse_address
from pyagent.model.failures import InvalidField

Endpoint = tuple[bytes, int]


class Dialled(NamedTuple):
    """A frontend. `address` is 16 bytes; of nodePorts it is empty, and `family` tells whose."""

    address: bytes
    port: int
    protocol: Protocol
    family: Family


Served = dict[Dialled, frozenset[Endpoint]]
"""Without endpoints: the dial is refused or dropped."""

_SERVICES, _NODE_PORTS, _EXTERNAL = "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"
_PROTOCOLS = {protocol.name.lower(): protocol for protocol in Protocol}


def by_iptables(saved: str, family: Family) -> Served:
    """What the rules in the output of iptables-save (of one family) serve; empty if none are kube-proxy's."""
    chains = _chains(saved)
    found: Served = {}
    for table, chain in (
        ("nat", _SERVICES),
        ("nat", _NODE_PORTS),
        ("filter", _SERVICES),
        ("filter", _EXTERNAL),
    ):
        for words in chains.get((table, chain), ()):
            options = _options(words)
            target = options.get("-j", options.get("-g", ""))
            dialled = _dialled(options, family)
            if dialled is None or target in ("KUBE-MARK-MASQ", "RETURN"):
                continue
            ends = _iptables_endpoints(chains, target, set()) if table == "nat" else frozenset[Endpoint]()
            found[dialled] = found.get(dialled, frozenset()) | ends
    return found


def by_nft(listed: Iterable[Mapping[str, Any]], family: Family) -> Served:
    """What kube-proxy's table of one family serves, from nft's JSON."""
    chains: dict[str, list[Any]] = {}
    maps: dict[str, Any] = {}
    for one in listed:
        rule, named = _object(one.get("rule")), _object(one.get("map"))
        chains.setdefault(str(rule.get("chain", "")), []).append(rule.get("expr"))
        maps[str(named.get("name", ""))] = named.get("elem")
    found: Served = {}
    for name, of_node in (
        ("service-ips", False),
        ("service-nodeports", True),
        ("no-endpoint-services", False),
        ("no-endpoint-nodeports", True),
    ):
        for key, verdict in _elements(maps.get(name)):
            dialled = _nft_dialled(key, of_node, family)
            if dialled is not None:
                found[dialled] = found.get(dialled, frozenset()) | _nft_endpoints(chains, verdict, set())
    return found


def _chains(saved: str) -> dict[tuple[str, str], list[list[str]]]:
    found: dict[tuple[str, str], list[list[str]]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith("-A "):
            try:
                _, chain, *words = shlex.split(line)
            except ValueError:
                continue  # somebody else's: kube-proxy writes no odd quotes, and no rule without a chain
            found.setdefault((table, chain), []).append(words)
    return found


def _options(words: list[str]) -> dict[str, str]:
    """Flags with their values; a negated one counts as another flag."""
    found = {}
    negated = ""
    for flag, value in zip(words, [*words[1:], ""], strict=False):
        if flag == "!":
            negated = "!"
        elif flag.startswith("-"):
            found[negated + flag] = value
            negated = ""
    return found


def _dialled(options: Mapping[str, str], family: Family) -> Dialled | None:
    protocol = _PROTOCOLS.get(options.get("-p", ""))
    port = options.get("--dport", "")
    if protocol is None or not (port.isascii() and port.isdigit()):
        return None
    address = b""
    text, _, length = options.get("-d", "").partition("/")
    if text and length in ("", "32", "128"):  # a wider one is that of nodePorts on the loopback
        try:
            address = parse_address(text)
        except InvalidField:
            return None
    return Dialled(address, int(port), protocol, family)


def _iptables_endpoints(
    chains: Mapping[tuple[str, str], list[list[str]]], chain: str, seen: set[str]
) -> frozenset[Endpoint]:
    if chain in seen:
        return frozenset()
    seen.add(chain)
    found: set[Endpoint] = set()
    for words in chains.get(("nat", chain), ()):
        options = _options(words)
        if "--to-destination" in options:
            found |= _endpoint(options["--to-destination"])
        else:
            found |= _iptables_endpoints(chains, options.get("-j", options.get("-g", "")), seen)
    return frozenset(found)


def _endpoint(text: str) -> set[Endpoint]:
    address, _, port = text.rpartition(":")
    try:
        return {(parse_address(address.strip("[]")), int(port))}
    except (InvalidField, ValueError):
        return set()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _elements(elements: Any) -> Iterator[tuple[list[Any], Any]]:
    for one in elements if isinstance(elements, list) else ():
        if not (isinstance(one, list) and len(one) == 2):
            continue
        key, verdict = one
        key = _object(key)
        key = _object(_object(key.get("elem")).get("val")) or key  # with a comment
        if isinstance(key.get("concat"), list):
            yield key["concat"], verdict


def _nft_dialled(key: list[Any], of_node: bool, family: Family) -> Dialled | None:
    try:
        address = b"" if of_node else parse_address(str(key[0]))
        protocol, port = key[0 if of_node else 1], key[1 if of_node else 2]
        return Dialled(address, int(port), _PROTOCOLS[str(protocol)], family)
    except (InvalidField, IndexError, KeyError, ValueError, TypeError):
        return None


def _nft_endpoints(chains: Mapping[str, list[Any]], expression: Any, seen: set[str]) -> frozenset[Endpoint]:
    found: set[Endpoint] = set()
    for part in _parts(expression):
        target = _object(part.get("dnat"))
        if isinstance(target.get("addr"), str):
            found |= _endpoint(f"{target['addr']}:{target.get('port')}")
        for inner in _parts(target.get("addr")):  # a choice from a map: address . port
            pair = inner.get("concat")
            if isinstance(pair, list) and len(pair) == 2:
                found |= _endpoint(f"{pair[0]}:{pair[1]}")
        for verdict in ("goto", "jump"):
            chain = part[verdict].get("target") if isinstance(part.get(verdict), dict) else None
            if isinstance(chain, str) and chain not in seen:
                seen.add(chain)
                found |= _nft_endpoints(chains, chains.get(chain, []), seen)
    return frozenset(found)


def _parts(expression: Any) -> Iterator[dict[str, Any]]:
    """Every object within an expression."""
    if isinstance(expression, dict):
        yield expression
        for value in expression.values():
            yield from _parts(value)
    elif isinstance(expression, list):
        for value in expression:
            yield from _parts(value)
