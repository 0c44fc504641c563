"""Taking free places in the maps: all that a change needs, or none."""

from __future__ import annotations

from pyagent.datapath.held import HeldState


class Full(Exception):
    """There is no room in this map."""

    def __init__(self, map_name: str) -> None:
        self.map_name = map_name
        super().__init__(map_name)


class Places:
    """Ids and blocks taken for one service port; each method raises Full if there are not enough."""

    def __init__(self, held: HeldState) -> None:
        self.held = held
        self._service_ports: list[int] = []
        self._backends: list[int] = []
        self._sets: list[int] = []
        self._blocks: list[tuple[int, int]] = []

    def service_port(self) -> int:
        taken = self.held.service_port_ids.take(1)
        if taken is None:
            raise Full("names")
        self._service_ports = taken
        return taken[0]

    def backends(self, count: int) -> list[int]:
        taken = self.held.backend_ids.take(count)
        if taken is None:
            raise Full("backends")
        self._backends = taken
        return taken

    def sets(self, count: int) -> list[int]:
        taken = self.held.set_ids.take(count)
        if taken is None:
            raise Full("sets")
        self._sets = taken
        return taken

    def blocks(self, sizes: list[int]) -> list[int]:
        for words in sizes:
            first = self.held.blocks.allocate(words)
            if first is None:
                raise Full("slots")
            self._blocks.append((first, words))
        return [first for first, _ in self._blocks]

    def give_back(self) -> None:
        """As if nothing had been taken: none of it was written yet."""
        held = self.held
        held.service_port_ids.put_back(self._service_ports)
        held.backend_ids.put_back(self._backends)
        held.set_ids.put_back(self._sets)
        for first, words in self._blocks:
            held.blocks.release(first, words)
