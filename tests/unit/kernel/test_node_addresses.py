"""The watch of the node's addresses outlives what goes wrong in it."""

from __future__ import annotations

import queue

import pytest

from pyagent.kernel import node_addresses
from pyagent.kernel.node_addresses import AddressWatch, InterfaceAddress
from pyagent.model.address import parse_address

ADDRESSES = frozenset({InterfaceAddress(parse_address("192.0.2.1"), 2)})


def test_a_failed_read_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([OSError(105, "No buffer space available")])

    def read() -> frozenset[InterfaceAddress]:
        for failure in failures:
            raise failure
        return ADDRESSES

    monkeypatch.setattr(node_addresses, "node_addresses", read)
    monkeypatch.setattr(node_addresses, "RETRY_SECONDS", 0.01)
    told: queue.SimpleQueue[frozenset[InterfaceAddress]] = queue.SimpleQueue()
    watch = AddressWatch(told.put)
    watch.start()
    try:
        assert told.get(timeout=5) == ADDRESSES
    finally:
        watch.stop()
