"""The kernel side by itself: the probe, a restart onto pins, sockets listed and ended, cleanup."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pyagent.kernel import connections, features
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.links import effective_programs
from pyagent.kernel.probe import silent_hooks
from pyagent.kernel.removal import cleanup
from pyagent.kernel.stale_sockets import destroy
from tests.datapath.ground import endpoint_slice, service
from tests.datapath.ground.cluster import InClient, SmallCluster
from tests.datapath.ground.dialling import Answer, Way, ask, make_socket
from tests.datapath.ground.hooks import SMALL, Hooks
from tests.datapath.ground.manifests import Object
from tests.datapath.ground.steps import in_steps
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

SERVICE_IPS = ["10.96.9.1", "fd44:10:96::9:1"]
KEPT = (Way("udp", 4), Way("udp", 6), Way("udp", 46), Way("tcp", 4), Way("tcp", 6))


def web(cluster: SmallCluster, name: str) -> list[Object]:
    """A Service of TCP and UDP whose only endpoint is one server."""
    pod = cluster.server(name)
    targets = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
    return [
        service("web", SERVICE_IPS, [("t", 80, "TCP"), ("u", 80, "UDP")]),
        *(endpoint_slice("web", [pod.address(family)], targets) for family in (4, 6)),
    ]


def pod(answer: Answer) -> str:
    return answer if isinstance(answer, str) else answer.pod


def dial(client: InClient, call: str) -> str:
    return pod(client(lambda: ask(Way(call, 4), SERVICE_IPS[0], 80)))


def attached(cgroup: Path) -> list[int]:
    return [identifier for found in effective_programs(cgroup).values() for identifier in found]


def test_every_forward_hook_answers_the_probe(hooks: Hooks) -> None:
    assert hooks.client(lambda: silent_hooks(hooks.cgroup, hooks.datapath.hooks)) == {}


def test_a_restart_goes_on_with_what_is_pinned_and_cleanup_leaves_nothing(
    hooks: Hooks, cluster: SmallCluster, cgroup: Path, bpffs: Path, in_client: InClient
) -> None:
    before = Hooks(cluster, cgroup, bpffs, hooks.cache)
    before.serve(web(cluster, "a"))
    assert [dial(in_client, call) for call in ("tcp", "udp", "datagram")] == ["a"] * 3
    before.close()
    assert [dial(in_client, call) for call in ("tcp", "udp", "datagram")] == ["a"] * 3, "nobody runs"
    ids = attached(cgroup)

    after = Datapath(bpffs, cgroup, SMALL, cache=hooks.cache)
    assert after.open().reused
    assert after.keeps_programs
    after.adopt_programs()
    assert after.repair() == ([], [])
    assert after.hooks_not_effective() == []
    assert attached(cgroup) == ids

    after.load_programs()
    after.attach()
    assert not set(attached(cgroup)) & set(ids), "each was swapped"
    assert [dial(in_client, call) for call in ("tcp", "udp", "datagram")] == ["a"] * 3

    after.close()
    assert cleanup(bpffs)
    wait_for(lambda: attached(cgroup), lambda left: not left, "the end of the links")
    assert dial(in_client, "tcp") == "ENETUNREACH"


def keep() -> Iterator[list[str]]:
    """Connect once in each way, then say what each socket says, again and again."""
    with ExitStack() as opened:
        made = [opened.enter_context(make_socket(way)) for way in KEPT]
        for way, one in zip(KEPT, made, strict=True):
            one.connect((way.text(*SERVICE_IPS), 80))
        while True:
            yield [_says(one) for one in made]


def _says(made: socket.socket) -> str:
    if pending := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return errno.errorcode[pending]
    try:
        made.sendall(b"x\n")
        made.recv(65536)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "alive"


def test_connected_sockets_are_listed_and_can_be_ended_one_by_one(
    hooks: Hooks, cluster: SmallCluster
) -> None:
    hooks.serve(web(cluster, "a"))
    link = connections.load(hooks.datapath.maps, hooks.cache)
    netns = cluster.client.netns.stat().st_ino
    with in_steps(hooks.client, keep) as client:
        assert client.next() == ["alive"] * len(KEPT)
        found = [one for one in connections.connections(link) if one.netns == netns]
        assert sorted(one.protocol for one in found) == [6, 6, 17, 17, 17]
        assert all(one.frontend_port == 80 and one.peer_port == 8080 for one in found)
        if features.has_iterator_cookie():
            assert len({one.cookie for one in found} - {0}) == len(KEPT)
        ended = destroy([one for one in found if one.protocol == 17])
        assert (len(ended.destroyed), ended.gone, ended.refused) == (3, [], [])
        assert client.next() == ["ECONNABORTED"] * 3 + ["alive"] * 2
    hooks.serve([])
