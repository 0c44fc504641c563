"""The agent's maps as bytes: arrays change word by word, as the kernel sees a longer store."""

from __future__ import annotations

from collections.abc import Callable

from pyagent.datapath.decoded import RawMaps
from pyagent.datapath.layout import BACKEND, CHOSEN_SHARDS, CONFIG, Capacities
from pyagent.datapath.writes import Put, Remove, Store, Write

SMALL = Capacities(
    frontends=64, sets=48, slots=512, backends=96, service_ports=24, service_addresses=32, node_addresses=16
)


class FakeMaps:
    """`apply` calls `after_word` whenever the contents changed by what the kernel does in one go."""

    def __init__(self, capacities: Capacities = SMALL) -> None:
        self.capacities = capacities
        self.arrays = {
            "sets": bytearray(8 * capacities.sets),
            "slots": bytearray(8 * capacities.slots),
            "backends": bytearray(BACKEND.size * capacities.backends),
            "config": bytearray(CONFIG.size),
            "chosen": bytearray(8 * capacities.backends * CHOSEN_SHARDS),
            "refused": bytearray(8 * capacities.service_ports),
        }
        self.hashes: dict[str, dict[bytes, bytes]] = {
            "frontends": {},
            "names": {},
            "service_addresses": {},
            "node_addresses": {},
            "source_ranges": {},
        }
        self.limits = {
            "frontends": capacities.frontends,
            "names": capacities.service_ports * 2,
            "service_addresses": capacities.service_addresses,
            "node_addresses": capacities.node_addresses,
            "source_ranges": capacities.source_ranges,
        }

    @property
    def raw(self) -> RawMaps:
        """The live contents, not a copy."""
        return RawMaps(
            frontends=self.hashes["frontends"],
            sets=self.arrays["sets"],
            slots=self.arrays["slots"],
            backends=self.arrays["backends"],
            names=self.hashes["names"],
            service_addresses=self.hashes["service_addresses"],
            node_addresses=self.hashes["node_addresses"],
            config=self.arrays["config"],
        )

    def apply(self, write: Write, after_word: Callable[[str, int], None] = lambda *_: None) -> None:
        match write:
            case Store(name, offset, data):
                self._store(name, offset, data, after_word)
            case Put(name, key, value):
                entries = self.hashes[name]
                assert key in entries or len(entries) < self.limits[name], f"{name} is full"
                entries[key] = value
                after_word(name, 0)
            case Remove(name, key):
                self.hashes[name].pop(key, None)
                after_word(name, 0)

    def _store(self, name: str, offset: int, data: bytes, after_word: Callable[[str, int], None]) -> None:
        array = self.arrays[name]
        size = 8 if len(data) % 8 == 0 and offset % 8 == 0 else 4
        assert offset % size == 0, f"unaligned store into {name}"
        assert len(data) % size == 0
        assert len(data) == size or size == 8
        assert offset + len(data) <= len(array), f"store beyond {name}"
        for at in range(0, len(data), size):
            array[offset + at : offset + at + size] = data[at : at + size]
            after_word(name, offset + at)
