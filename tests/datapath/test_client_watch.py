"""The addresses that source ranges know clients by."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from pyagent.kernel import network_namespaces
from pyagent.kernel.client_watch import ClientAddresses, ClientWatch
from pyagent.kernel.sockets import netns_cookie
from pyagent.model.address import format_address, parse_address
from tests.datapath.ground import SmallCluster
from tests.datapath.ground.cluster import InClient

pytestmark = pytest.mark.kernel


def test_the_nodes_own_processes_are_known_by_the_nodes_address(
    cluster: SmallCluster, in_client: InClient
) -> None:
    """From the start, though /run/netns has no name for its namespace, and not by a bridge's address."""

    def node_is_known_by(preferred: list[str]) -> list[str]:
        network_namespaces.RUN_NETNS = Path("/nowhere")  # no name for it, as on a real node; this is a fork
        found: list[Mapping[int, ClientAddresses]] = []
        watch = ClientWatch(found.append)
        watch.start()
        told = []
        for address in preferred:
            watch.prefer(frozenset({parse_address(address)}))
            until = time.monotonic() + 3
            while time.monotonic() < until:
                mine = found[-1].get(netns_cookie()) if found else None
                if mine is not None and parse_address(address) in mine:
                    break
                time.sleep(0.01)
            told += [format_address(one) for one in mine] if mine is not None else ["unknown"]
        watch.stop()
        return told

    node = in_client.of(cluster.node)
    assert node(lambda: node_is_known_by(["172.30.0.10"])) == ["172.30.0.10", "fd44:10:244::1"]
    later = node(lambda: node_is_known_by(["172.30.0.10", "fd44:172:30::10"]))
    assert later == ["172.30.0.10", "fd44:10:244::1", "10.244.0.1", "fd44:172:30::10"]
