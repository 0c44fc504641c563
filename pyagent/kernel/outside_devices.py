"""Where packets from outside are served, from the pins: for readers."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import NamedTuple

from pyagent.datapath.flow_layout import OUTSIDE_DEVICE, DeviceFlag
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.outside import FOLDER, MAP
from pyagent.kernel.tc_links import Place, Point, attached_places


class ServedDevice(NamedTuple):
    """`name` is `#NUMBER` for a device that this network namespace does not have."""

    name: str
    served: bool
    pod_side: bool


def outside_devices(bpffs: Path, maps: MapSet) -> list[ServedDevice]:
    """The devices that the agent chose, by name.

    Raises:
        OSError, KubesockError: the pins cannot be read.
    """
    places = attached_places(bpffs / FOLDER)
    found = []
    for key, value in maps.items(MAP):
        ifindex: int = struct.unpack("=I", key)[0]
        flags = OUTSIDE_DEVICE.as_dict(value)["flags"]
        served = all(Place(ifindex, point) in places for point in Point)
        found.append(ServedDevice(_name(ifindex), served, bool(int(flags) & DeviceFlag.POD_SIDE)))
    return sorted(found)


def _name(ifindex: int) -> str:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return f"#{ifindex}"
