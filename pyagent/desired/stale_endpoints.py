"""What became of a backend that is in no set any more, for the sockets that still talk to it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from pyagent.desired.endpoints import SliceEndpoints, index_ports, merge
from pyagent.model.service import BackendStateBit, ServicePortKey


class Fate(Enum):
    """How an endpoint stands.

    SERVES: ready, or terminating and still serving; its connections go on (KEP-1669).
    UNREADY: there, but not ready; it may come back.
    GONE: listed no more, or terminating and not serving.
    """

    SERVES = "serves"
    UNREADY = "unready"
    GONE = "gone"


def fate(slices: Sequence[SliceEndpoints], key: ServicePortKey, address: bytes, port: int) -> Fate:
    """The fate of one backend of a service port.

    Args:
        slices: all slices of its Service.
        address: 16 bytes.
    """
    pieces = index_ports(slices).get((key.family, key.port_name, key.protocol), [])
    for backend in merge(pieces).backends:
        if (backend.address, backend.port) == (address, port):
            return _fate_by_state(BackendStateBit(backend.state))
    return Fate.GONE


def _fate_by_state(state: BackendStateBit) -> Fate:
    if state & BackendStateBit.READY:
        return Fate.SERVES
    if state & BackendStateBit.TERMINATING:
        return Fate.SERVES if state & BackendStateBit.SERVING else Fate.GONE
    return Fate.UNREADY
