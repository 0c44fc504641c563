"""Watches one Service's set in the pinned maps, as often as memory can be read."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

from bench.objects import PORT, Plan
from pyagent.datapath.decoded import decode_backend, decode_frontend, decode_set
from pyagent.datapath.layout import FRONTEND_KEY
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.model.failures import KubesockError

TCP = 6


class HeldSet:
    """The set that a Service's ClusterIP leads to."""

    def __init__(self, bpffs: Path, plan: Plan) -> None:
        self._maps = MapSet.open(current_folder(bpffs))
        address = mapped(plan.cluster_ips[0])
        key = FRONTEND_KEY.pack(address, PORT, TCP, 0)
        value = self._maps.get("frontends", key)
        frontend = decode_frontend(key, value) if value is not None else None
        if frontend is None or not frontend.tag_matches:
            raise KubesockError(f"{plan.name}: the agent is ready, but its frontend is not in the maps")
        self._id = frontend.set_id
        self._words = memoryview(self._maps.memory("sets")).cast("Q")

    def word(self) -> int:
        """The set's word now: one load from the kernel's own memory."""
        return self._words[self._id]

    def check(self, address: str) -> None:
        """See that an endpoint is in the set.

        Raises:
            KubesockError: it is not.
        """
        maps = self._maps
        found = decode_set(maps.memory("sets")[:], maps.memory("slots")[:], self._id)
        backends = memoryview(maps.memory("backends"))
        held = {
            backend.address
            for word in (found.backend_words if found else ())
            if (backend := decode_backend(backends, word >> 32))
        }
        backends.release()
        if mapped(address) not in held:
            raise KubesockError(f"the maps changed, but {address} is not in them")

    def close(self) -> None:
        self._words.release()
        self._maps.close()


def mapped(text: str) -> bytes:
    """16 bytes of an IPv4 address, v4-mapped."""
    return struct.pack(">10xH4s", 0xFFFF, ipaddress.IPv4Address(text).packed)
