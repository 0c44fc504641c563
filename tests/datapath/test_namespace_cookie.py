"""The network namespace's cookie where only a hook tells it, as before Linux 5.14."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from pyagent.kernel import features
from pyagent.kernel.hook_cookie import asked_netns_cookie
from pyagent.kernel.links import effective_programs
from tests.datapath.ground import SmallCluster
from tests.datapath.ground.cluster import InClient

pytestmark = pytest.mark.kernel
SO_NETNS_COOKIE = 71


def cookie_of_the_socket() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as made:
        return int(struct.unpack("=Q", made.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])


@pytest.mark.skipif(features.kernel_version() < (5, 14), reason="no SO_NETNS_COOKIE to compare with")
def test_a_hook_tells_the_same_as_the_socket(cluster: SmallCluster, in_client: InClient) -> None:
    def both() -> tuple[int, int]:
        return asked_netns_cookie(), cookie_of_the_socket()

    for client in (in_client, in_client.of(cluster.other_client)):
        asked, told = client(both)
        assert asked == told != 0


def test_namespaces_are_told_apart(cluster: SmallCluster, in_client: InClient) -> None:
    found = [in_client.of(pod)(asked_netns_cookie) for pod in (cluster.client, cluster.node, cluster.client)]
    assert found[0] == found[2] != found[1]
    assert 0 not in found


def test_nothing_stays_attached(in_client: InClient, cgroup: Path) -> None:
    def programs_after_asking() -> list[int]:
        asked_netns_cookie()
        return [identifier for found in effective_programs(cgroup).values() for identifier in found]

    before = [identifier for found in effective_programs(cgroup).values() for identifier in found]
    assert in_client(programs_after_asking) == before


def test_without_rights_it_is_unknown(in_client: InClient) -> None:
    def ask() -> int:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        try:
            return asked_netns_cookie()
        except OSError as error:
            return -(error.errno or errno.EIO)

    assert in_client(ask) == 0
