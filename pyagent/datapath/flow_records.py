"""Flows as values: what the kernel keeps of connections from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyagent.datapath.flow_layout import FLOW, FLOW_KEY, FlowFlag, FlowPoint, FlowSeconds, FlowSeen
from pyagent.model.address import Protocol

SECOND = 1_000_000_000
_FINS = FlowSeen.FIN_OF_CLIENT | FlowSeen.FIN_OF_BACKEND

_ESTABLISHED, _SYN_SENT, _TIME_WAIT, _CLOSE, _CLOSE_WAIT = 1, 2, 6, 7, 8

Entry = tuple[bytes, bytes]


class FlowRecord(NamedTuple):
    """One connection from outside. Addresses are 16 bytes, times nanoseconds since boot.

    Attributes:
        seen: FlowSeen.
        from_pod: the client is behind a pod-side device.
    """

    protocol: int
    client: bytes
    client_port: int
    frontend: bytes
    frontend_port: int
    backend: bytes
    backend_port: int
    backend_id: int
    backend_incarnation: int
    service_port: int
    service_port_incarnation: int
    seen: int
    from_pod: bool
    since: int
    last_seen: int

    @property
    def state(self) -> int:
        """By number, as in include/net/tcp_states.h and as far as packets tell."""
        if self.seen & FlowSeen.RESET:
            return _CLOSE
        if self.seen & _FINS:
            return _TIME_WAIT if self.seen & _FINS == _FINS else _CLOSE_WAIT
        if self.protocol == Protocol.UDP:
            return _ESTABLISHED
        return _ESTABLISHED if self.seen & FlowSeen.REPLY else _SYN_SENT


def seconds_left(protocol: int, seen: int, last_seen: int, now: int) -> float:
    """How long a flow lives yet if nothing more comes, negative if it is over (`bpf/packets/flow.h`)."""
    return flow_seconds(protocol, seen) - (now - last_seen) / SECOND


def flow_seconds(protocol: int, seen: int) -> int:
    if protocol == Protocol.UDP:
        return FlowSeconds.UDP if seen & FlowSeen.REPLY else FlowSeconds.UDP_ONE_WAY
    if seen & FlowSeen.RESET:
        return FlowSeconds.RESET
    if seen & _FINS == _FINS:
        return FlowSeconds.CLOSED
    if seen & _FINS:
        return FlowSeconds.CLOSING
    return FlowSeconds.TCP if seen & FlowSeen.REPLY else FlowSeconds.TCP_ONE_WAY


def flow_records(entries: Iterable[Entry]) -> Iterator[FlowRecord]:
    """The connections among the entries of `flows`, each once: the halves that clients' packets come to."""
    for key, value in entries:
        if key[FLOW_KEY.offsets["point"]] != FlowPoint.INGRESS:
            continue
        if not value[FLOW.offsets["flags"]] & FlowFlag.OF_CLIENT:
            continue
        source, destination, source_port, destination_port, protocol, _, _ = FLOW_KEY.unpack(key)
        addr, port, _other, seen, flags, _, last, since, word, service_port, incarnation = FLOW.unpack(value)
        yield FlowRecord(
            int(protocol), bytes(source), int(source_port), bytes(destination), int(destination_port),
            bytes(addr), int(port), int(word) >> 32, int(word) & 0xFFFFFFFF, int(service_port),
            int(incarnation), int(seen), bool(int(flags) & FlowFlag.FROM_POD), int(since), int(last),
        )  # fmt: skip


def over(entries: Iterable[Entry], now: int, crowded: bool = False) -> list[bytes]:
    """The keys of entries whose flow has ended.

    Args:
        now: nanoseconds since boot.
        crowded: connections that both sides have closed go early, or the kernel would give up quiet ones
            that are open; conntrack's early drop is alike.
    """
    protocol_at = FLOW_KEY.offsets["protocol"]
    seen_at, last_at = FLOW.offsets["seen"], FLOW.offsets["last_seen"]
    least = now - min(FlowSeconds) * SECOND
    found = []
    for key, value in entries:
        last_seen = int.from_bytes(value[last_at : last_at + 8], "little")
        if last_seen >= least:
            continue
        closed_early = crowded and value[seen_at] & _FINS == _FINS
        if closed_early or seconds_left(key[protocol_at], value[seen_at], last_seen, now) < 0:
            found.append(key)
    return found
