"""What a set of maps holds, as text that lies beside it in the map `layout`.

An agent of another version, older or newer, finds its way in the maps by the names of their fields: that is
how what is pinned survives an upgrade and the way back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from pyagent.datapath.cstruct import CStruct, Field
from pyagent.datapath.flow_layout import FLOW, FLOW_KEY, FRAGMENT, FRAGMENT_KEY, OUTSIDE_DEVICE
from pyagent.datapath.layout import (
    AFFINITY,
    AFFINITY_KEY,
    BACKEND,
    CLIENT_ADDRESSES,
    CONFIG,
    DATAGRAM_ORIGINS_STRUCT,
    FRONTEND_KEY,
    LAYOUT_TEXT,
    LAYOUT_VERSION,
    META,
    NAME,
    NAME_KEY,
    ORIGIN,
    OVERFLOW,
    OVERFLOW_KEY,
    SERVICE_ADDRESS_KEY,
    SOURCE_RANGE_KEY,
    STRUCTS,
    WORKLOAD_KEY,
    Capacities,
    MapFlag,
    MapSpec,
    MapType,
    map_specs,
)
from pyagent.model.failures import LayoutMismatch, sanitized

Content = CStruct | str
"""A struct; or a number: `u32` or `u64`, a colon, and what it means."""

INDEX = "u32: index"
CONTENTS: dict[str, tuple[Content, Content]] = {
    "frontends": (FRONTEND_KEY, "u64: set id, tag of the key"),
    "sets": (INDEX, "u64: first slot, count 16, generation 16"),
    "slots": (INDEX, "u64: block of owner, header, loopback slot, backends"),
    "backends": (INDEX, BACKEND),
    "service_addresses": (SERVICE_ADDRESS_KEY, "u32: rule"),
    "node_addresses": ("u128: address", "u32: node id"),
    "names": (NAME_KEY, NAME),
    "source_ranges": (SOURCE_RANGE_KEY, "u32: admitted"),
    "client_addresses": ("u64: namespace cookie", CLIENT_ADDRESSES),
    "opted_out": (WORKLOAD_KEY, "u32: opted out"),
    "affinity": (AFFINITY_KEY, AFFINITY),
    "origin": ("u32: socket", ORIGIN),
    "origin_udp": ("u32: socket", DATAGRAM_ORIGINS_STRUCT),
    "origin_overflow": (OVERFLOW_KEY, OVERFLOW),
    "chosen": (INDEX, "u64: count by backend, 2 shards"),
    "refused": (INDEX, "u64: count by service port"),
    "outcomes": (INDEX, "u64: count by outcome"),
    "events": ("", ""),
    "config": (INDEX, CONFIG),
    "meta": (INDEX, META),
    "layout": (INDEX, f"text{LAYOUT_TEXT}: this"),
    "flows": (FLOW_KEY, FLOW),
    "fragments": (FRAGMENT_KEY, FRAGMENT),
    "outside_devices": ("u32: device", OUTSIDE_DEVICE),
    "outside_outcomes": (INDEX, "u64: count by outcome"),
}
"""Of each map its key and its value. Whoever changes what a number means changes its text."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_NUMBERS = {"u32": 4, "u64": 8, "u128": 16, f"text{LAYOUT_TEXT}": LAYOUT_TEXT, "": 0}


class Described(NamedTuple):
    """One map of a layout."""

    type: int
    flags: int
    key: Content
    value: Content


class Description(NamedTuple):
    """A layout, ours or another."""

    version: int
    maps: Mapping[str, Described]
    structs: Mapping[str, CStruct]

    def specs(self) -> tuple[MapSpec, ...]:
        """Every map of it; what says nothing of how many entries there are."""
        return tuple(
            MapSpec(name, MapType(one.type), size_of(one.key), size_of(one.value), 0, MapFlag(one.flags))
            for name, one in self.maps.items()
        )


def size_of(content: Content) -> int:
    """Bytes of a key or a value."""
    return content.size if isinstance(content, CStruct) else _NUMBERS[content.partition(":")[0]]


@cache
def own_description() -> Description:
    """Of the layout that this program has."""
    maps = {
        spec.name: Described(spec.type, spec.flags, *CONTENTS[spec.name]) for spec in map_specs(Capacities())
    }
    return Description(LAYOUT_VERSION, maps, {s.c_name: s for s in STRUCTS})


@cache
def own_text() -> bytes:
    """What the map `layout` of our sets holds."""
    own = own_description()
    structs = {name: [list(field) for field in s.fields] for name, s in own.structs.items()}
    maps = {
        name: [int(one.type), int(one.flags), *(c.c_name if isinstance(c, CStruct) else c for c in one[2:])]
        for name, one in own.maps.items()
    }
    found = {"version": own.version, "structs": structs, "maps": maps}
    text = json.dumps(found, separators=(",", ":")).encode()
    if len(text) > LAYOUT_TEXT:
        raise ValueError(f"the layout's description has {len(text)} bytes, LAYOUT_TEXT must grow")
    return text.ljust(LAYOUT_TEXT, b"\0")


def read_description(text: bytes) -> Description:
    """What `own_text` of another version says.

    Raises:
        LayoutMismatch: it is not to be understood.
    """
    try:
        found = json.loads(text.rstrip(b"\0"))
        names = [
            *found["structs"],
            *found["maps"],
            *(f[0] for fields in found["structs"].values() for f in fields),
        ]
        if not all(_NAME.fullmatch(name) for name in names):
            raise ValueError("a name that is none")
        structs = {
            name: CStruct(
                name, *(Field(str(n), str(code), str(order), str(of)) for n, code, order, of in fields)
            )
            for name, fields in found["structs"].items()
        }
        maps = {
            name: Described(MapType(kind), int(flags), structs.get(key, key), structs.get(value, value))
            for name, (kind, flags, key, value) in found["maps"].items()
        }
        description = Description(int(found["version"]), maps, structs)
        description.specs()
    except Exception as error:
        cause = sanitized(repr(error), 200)[1:-1]
        raise LayoutMismatch(f"the maps' description of themselves is not readable: {cause}") from error
    return description
