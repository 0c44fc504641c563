"""What the agent tells whoever listens on /v1/events: a JSON object a line, until one side hangs up.

Names of Services and pods are not in there: the listener finds them in the pins and in /proc, so that
the agent does no more for an event than copy it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from pyagent.datapath.event_filter import ALL_OUTCOMES, EventFilter
from pyagent.model.failures import UsageError

PATH = "/v1/events"
BEAT_SECONDS = 1.0
"""Between two lines at most: a stream without any is broken."""


class Dial(msgspec.Struct, frozen=True, tag="dial"):
    """A hook's record, as it lay in the ring."""

    record: bytes


class Change(msgspec.Struct, frozen=True, rename="camel", tag="change"):
    """The agent changed a service port in the maps. As in the journal."""

    time: float
    service: str
    family: str
    what: str
    resource_version: str = ""


class SocketEnded(msgspec.Struct, frozen=True, rename="camel", tag="socketEnded"):
    """A socket was ended because its backend is gone. Addresses are texts.

    Attributes:
        service_port, incarnation: what it had dialled.
        netns: inode number of the socket's network namespace.
    """

    time: float
    service_port: int
    incarnation: int
    protocol: int
    dialled: str
    chosen: str
    source: str
    netns: int
    cookie: int


class Noted(msgspec.Struct, frozen=True, rename="camel", tag="noted"):
    """What an operator must act on, or what was repaired; as in Events of the cluster."""

    time: float
    reason: str
    what: str
    namespace: str = ""
    name: str = ""
    warning: bool = True


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The agent is there. `skipped`: events this listener missed so far, because it read too slowly."""

    skipped: int = 0


Told = Dial | Change | SocketEnded | Noted | Beat
Kept = Change | SocketEnded | Noted
"""What the agent remembers."""

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Told).decode


class Wish(NamedTuple):
    """What a listener asks for.

    Attributes:
        dials: of the hooks' events; `outcomes` 0: none.
        last: so many of what the agent remembers come first.
        follow: go on with what happens.
    """

    dials: EventFilter = EventFilter()
    last: int = 0
    follow: bool = True

    def path(self) -> str:
        """The path to ask for."""
        dials = self.dials
        parts = {
            "outcomes": str(dials.outcomes),
            "ports": ".".join(map(str, sorted(dials.service_ports))),
            "netns": str(dials.netns),
            "sample": str(dials.sample),
            "last": str(self.last),
            "follow": str(int(self.follow)),
        }
        return f"{PATH}?" + "&".join(f"{name}={value}" for name, value in parts.items())


def wish_of(query: str) -> Wish:
    """The wish in a path's query.

    Raises:
        UsageError: it is none.
    """
    try:
        fields = dict(part.split("=", 1) for part in query.split("&") if part)
        return _wish(fields)
    except ValueError:
        raise UsageError(f"not understood: {query[:200]!r}") from None


def _wish(fields: Mapping[str, str]) -> Wish:
    def number(name: str, usual: int) -> int:
        found = int(fields.get(name, usual))
        if not 0 <= found < 1 << 64:
            raise ValueError
        return found

    ports = frozenset(int(text) for text in fields.get("ports", "").split(".") if text)
    if any(not 0 <= port < 1 << 32 for port in ports):
        raise ValueError
    dials = EventFilter(
        number("outcomes", ALL_OUTCOMES) & ALL_OUTCOMES,
        ports,
        number("netns", 0),
        min(max(1, number("sample", 1)), ALL_OUTCOMES),
    )
    return Wish(dials, number("last", 0), bool(number("follow", 1)))
