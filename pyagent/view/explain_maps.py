"""The pins that only `explain` reads: what the hooks know about clients."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pyagent.datapath.layout import CLIENT_ADDRESSES, SOURCE_RANGE_KEY, WORKLOAD_KEY, WorkloadKind
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.model.address import Family, Network

EXPLAIN_READ = frozenset(
    {
        "frontends",
        "sets",
        "slots",
        "backends",
        "names",
        "service_addresses",
        "node_addresses",
        "affinity",
        "config",
    }
)
"""What `read_live` must read for `explain`."""

_COOKIE = struct.Struct("=Q")
OWNER_BITS = 32
"""A source range's prefix counts the service port's id too."""


class ClientMaps(NamedTuple):
    """Contents of the maps about clients.

    Attributes:
        ranges: service-port id -> who may dial its restricted frontends.
        addresses: cookie of a network namespace -> its address of each family; zeros where it has none.
        opted_out: (kind, id) of workloads that are left alone.
    """

    ranges: Mapping[int, tuple[Network, ...]] = {}
    addresses: Mapping[int, Mapping[Family, bytes]] = {}
    opted_out: frozenset[tuple[WorkloadKind, int]] = frozenset()


def read_client_maps(bpffs: Path) -> ClientMaps:
    """Read them from the pins.

    Raises:
        PinsMissing, LayoutMismatch, NoPermission, KernelRefused: with the remedy.
    """
    maps = MapSet.open(current_folder(bpffs))
    try:
        entries = {
            name: dict(maps.items(name)) for name in ("source_ranges", "client_addresses", "opted_out")
        }
    finally:
        maps.close()
    return decode_client_maps(**entries)


def decode_client_maps(
    source_ranges: Mapping[bytes, bytes],
    client_addresses: Mapping[bytes, bytes],
    opted_out: Mapping[bytes, bytes],
) -> ClientMaps:
    """Bytes of the maps as values; what makes no sense is left out."""
    ranges: dict[int, tuple[Network, ...]] = {}
    for key in sorted(source_ranges):
        prefix, owner, address = SOURCE_RANGE_KEY.packer.unpack(key)
        if OWNER_BITS <= prefix <= OWNER_BITS + 128:
            ranges[owner] = (*ranges.get(owner, ()), Network(address, prefix - OWNER_BITS))
    addresses = {}
    for cookie, value in client_addresses.items():
        ipv4, ipv6 = CLIENT_ADDRESSES.packer.unpack(value)
        addresses[_COOKIE.unpack(cookie)[0]] = {Family.IPV4: ipv4, Family.IPV6: ipv6}
    kinds = set(WorkloadKind)
    workloads = [WORKLOAD_KEY.packer.unpack(key) for key in opted_out]
    return ClientMaps(
        ranges,
        addresses,
        frozenset((WorkloadKind(kind), number) for number, kind, _ in workloads if kind in kinds),
    )
