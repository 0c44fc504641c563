"""Addresses of clients: from what is known to what is written, also where writing failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from pyagent.agent.clients import ClientWrites
from pyagent.datapath.layout import CLIENT_ADDRESSES
from pyagent.datapath.writes import Put, Remove, Write
from pyagent.kernel.client_watch import ClientAddresses
from pyagent.kernel.map_set import MapSet
from pyagent.model.failures import MapFull

ROOM = 2


class Maps:
    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.refuses = False

    def items(self, _name: str) -> list[tuple[bytes, bytes]]:
        return list(self.entries.items())

    def apply(self, writes: Iterable[Write]) -> None:
        for write in list(writes):
            if isinstance(write, Remove):
                del self.entries[write.key]
            elif isinstance(write, Put):
                if self.refuses or len(self.entries | {write.key: b""}) > ROOM:
                    raise MapFull("client_addresses", ROOM)
                self.entries[write.key] = write.value


def known(*cookies: int) -> dict[int, ClientAddresses]:
    return {cookie: ClientAddresses(bytes([cookie]) * 16, bytes(16)) for cookie in cookies}


def test_what_could_not_be_written_is_written_with_the_next_look() -> None:
    maps = Maps()
    writes = ClientWrites(cast("MapSet", maps))
    maps.refuses = True
    with pytest.raises(MapFull):
        maps.apply(writes.follow(known(1, 2)))
    maps.refuses = False
    assert writes.altered() == ["client_addresses"]
    assert writes.undo_others() == ["client_addresses"]
    assert list(maps.entries.values()) == [CLIENT_ADDRESSES.pack(*one) for one in known(1, 2).values()]
    assert writes.altered() == []


def test_who_is_gone_makes_room_for_who_has_come() -> None:
    maps = Maps()
    writes = ClientWrites(cast("MapSet", maps))
    maps.apply(writes.follow(known(1, 2)))
    maps.apply(writes.follow(known(3, 4)))
    assert len(maps.entries) == ROOM
    assert writes.altered() == []
