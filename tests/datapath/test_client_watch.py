"""The addresses that source ranges know clients by."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pyagent.demo import namespaces
from pyagent.demo.calls import call
from pyagent.demo.children import wait_until
from pyagent.demo.links import POD_INTERFACE, Attachment
from pyagent.demo.syscalls import unshare_network
from pyagent.kernel import client_watch, network_namespaces
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


def test_of_several_addresses_that_of_the_default_route_counts(
    cluster: SmallCluster, in_client: InClient
) -> None:
    """It is the source of the packet that kube-proxy sees. The route comes after the addresses."""
    pod = cluster.sandbox.new_namespace("several")
    addresses = ("10.244.1.40/16", "10.9.0.7/24")
    namespaces.attach_pods(cluster.node.netns, [Attachment("several", pod, addresses)])
    cookie = call(netns_cookie, netns=pod)

    def add_default_route() -> None:
        with IPRoute() as netlink:
            (eth0,) = netlink.link_lookup(ifname=POD_INTERFACE)
            netlink.route("add", dst="0.0.0.0/0", oif=eth0, scope="link")

    def is_known_by() -> tuple[bool, bool]:
        told: list[Mapping[int, ClientAddresses]] = []
        watch = ClientWatch(told.append)
        watch.start()

        def known(address: str) -> bool:
            mine = told[-1].get(cookie) if told else None
            return mine is not None and mine.ipv4 == parse_address(address)

        lowest = wait_until(lambda: known("10.9.0.7"), timeout=10.0)
        call(add_default_route, netns=pod)
        routed = wait_until(lambda: known("10.244.1.40"), timeout=10.0)
        watch.stop()
        return lowest, routed

    assert in_client.of(cluster.node)(is_known_by, timeout=30.0) == (True, True)


def test_a_namespace_without_a_name_is_found_by_its_process_and_forgotten_with_it(
    cluster: SmallCluster, in_client: InClient
) -> None:
    def found_then_forgotten() -> tuple[bool, bool]:
        client_watch.REVIEW_SECONDS = 0.05  # this is a fork
        told: list[Mapping[int, ClientAddresses]] = []
        reader, writer = os.pipe()
        process = os.fork()
        if process == 0:
            unshare_network()
            os.write(writer, netns_cookie().to_bytes(8, "big"))
            signal.pause()
        cookie = int.from_bytes(os.read(reader, 8), "big")
        watch = ClientWatch(told.append)
        watch.start()
        watch.find(cookie, process)
        found = wait_until(lambda: bool(told) and cookie in told[-1], timeout=3.0)
        time.sleep(1.2)  # it is looked at again meanwhile
        found = found and cookie in told[-1]
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        forgotten = wait_until(lambda: cookie not in told[-1], timeout=3.0)
        watch.stop()
        return found, forgotten

    assert in_client.of(cluster.node)(found_then_forgotten) == (True, True)
