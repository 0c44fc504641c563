"""The bytes of what only packets need: flows, fragments, devices. Checked with `layout.py` against the C."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from pyagent.datapath.cstruct import CStruct, Field

OUTSIDE_SCOPE = 2
"""Added to the scope of a frontend: what packets from outside get instead."""

OUTSIDE_HOOK = 8
"""In events: a packet, at no hook."""


class FlowPoint(IntEnum):
    INGRESS = 0
    EGRESS = 1


class FlowSeen(IntFlag):
    REPLY = 1
    FIN_OF_CLIENT = 2
    FIN_OF_BACKEND = 4
    RESET = 8


class FlowFlag(IntFlag):
    OF_CLIENT = 1
    FROM_POD = 2
    UNDECIDED = 4


class FlowSeconds(IntEnum):
    """How long a flow lives after its last packet: as conntrack and kube-proxy have it."""

    RESET = 10
    UDP_ONE_WAY = 30
    TCP_ONE_WAY = 60
    UDP = 120
    CLOSED = 120
    CLOSING = 3600
    TCP = 86_400


class DeviceFlag(IntFlag):
    POD_SIDE = 1


FLOW_KEY = CStruct(
    "flow_key",
    Field("source", "16s"),
    Field("destination", "16s"),
    Field("source_port", "H", ">"),
    Field("destination_port", "H", ">"),
    Field("protocol", "B"),
    Field("point", "B"),
    Field("pad", "H"),
)
FLOW = CStruct(
    "flow",
    Field("addr", "16s"),
    Field("port", "H", ">"),
    Field("other_port", "H", ">"),
    Field("seen", "B"),
    Field("flags", "B"),
    Field("pad", "H"),
    Field("last_seen", "Q"),
    Field("since", "Q"),
    Field("backend", "Q"),
    Field("service_port", "I"),
    Field("service_port_incarnation", "I"),
)
FRAGMENT_KEY = CStruct(
    "fragment_key",
    Field("source", "16s"),
    Field("destination", "16s"),
    Field("identification", "I"),
    Field("protocol", "B"),
    Field("pad", "3s"),
)
FRAGMENT = CStruct("fragment", Field("source_port", "H", ">"), Field("destination_port", "H", ">"))
OUTSIDE_DEVICE = CStruct(
    "outside_device", Field("ipv4", "16s"), Field("ipv6", "16s"), Field("flags", "I"), Field("pad", "I")
)

STRUCTS = (FLOW_KEY, FLOW, FRAGMENT_KEY, FRAGMENT, OUTSIDE_DEVICE)

ENUMS: tuple[tuple[str, type[IntEnum] | type[IntFlag]], ...] = (
    ("FLOW_", FlowPoint),
    ("FLOW_SEEN_", FlowSeen),
    ("FLOW_", FlowFlag),
    ("FLOW_SECONDS_", FlowSeconds),
    ("DEVICE_", DeviceFlag),
)
