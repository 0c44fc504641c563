"""Hooks are led from maps of another layout to ours, and sockets that were open before notice nothing."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from unittest import mock

import pytest

from pyagent.datapath.layout import CHOSEN_SHARDS, WORD
from pyagent.demo.children import spawn
from pyagent.kernel.connections import connections
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.map_set import MapSet
from tests.datapath.ground import endpoint_slice, service
from tests.datapath.ground.asking import udp_reply_on
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.hooks import SMALL, Hooks
from tests.datapath.ground.steps import Steps, in_steps

pytestmark = pytest.mark.kernel

FRONTEND = ("10.96.8.1", 80)
STICKY = "10.96.8.2"
STICKY_PORTS = range(100, 120)
"""Each with an affinity of its own: all pods by chance those from before is one case in 3^20."""
PORTS = (("t", 80, "TCP"), ("u", 80, "UDP"))
BACKEND_PORTS = (("t", 8080, "TCP"), ("u", 8080, "UDP"))
T = TypeVar("T")
RECORDS_CAN_BE_COPIED = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2]) >= (5, 11)


def made_another_layout(maps: MapSet) -> None:
    """As an older kubesock would have described them."""
    with maps.borrowed("layout") as text:
        assert text[:].count(b'{"version":1,') == 1
        text[: len(text)] = text[:].replace(b'{"version":1,', b'{"version":0,')


def chosen(maps: MapSet) -> int:
    with maps.borrowed("chosen") as counts:
        size = SMALL.backends * CHOSEN_SHARDS * WORD.size
        return sum(count for (count,) in WORD.iter_unpack(counts[:size]))


def sticky_pods() -> list[str]:
    """The backends that this client has by affinity."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(3.0)
        return [udp_reply_on(sock, (STICKY, port)).pod for port in STICKY_PORTS]


def peers() -> Iterator[tuple[object, ...]]:
    """Whom sockets talk to, the same sockets each time."""
    with (
        socket.create_connection(FRONTEND, timeout=3.0) as stream,
        socket.socket(type=socket.SOCK_DGRAM) as connected,
        socket.socket(type=socket.SOCK_DGRAM) as unconnected,
    ):
        connected.connect(FRONTEND)
        unconnected.settimeout(3.0)
        pod = udp_reply_on(unconnected, FRONTEND).pod
        while True:
            reply = udp_reply_on(unconnected, FRONTEND)
            yield stream.getpeername(), connected.getpeername(), reply.peer, reply.pod == pod, sticky_pods()


@contextmanager
def crossing(
    hooks: Hooks, in_client: InClient, bpffs: Path, ask: Callable[[], Iterator[T]]
) -> Iterator[tuple[Hooks, Steps[T], Datapath]]:
    """Hooks with two Services, a client that has not dialled yet, and what takes their place."""
    # A client that was forked later would keep the first one's lock.
    with in_steps(in_client, ask) as client:
        assert in_client.cgroup is not None
        old = Hooks(hooks.cluster, in_client.cgroup, bpffs, hooks.cache)
        addresses = [pod.ipv4 for pod in hooks.cluster.servers]
        old.serve(
            [
                service("web", [FRONTEND[0]], PORTS),
                endpoint_slice("web", addresses, BACKEND_PORTS),
                service(
                    "sticky",
                    [STICKY],
                    [(f"u{port}", port, "UDP") for port in STICKY_PORTS],
                    sessionAffinity="ClientIP",
                ),
                endpoint_slice("sticky", addresses, [(f"u{port}", 8080, "UDP") for port in STICKY_PORTS]),
            ]
        )
        new = Datapath(bpffs, in_client.cgroup, SMALL, cache=hooks.cache)
        yield old, client, new
        new.close()


def test_open_sockets_clients_and_counts_go_along(hooks: Hooks, in_client: InClient, bpffs: Path) -> None:
    with crossing(hooks, in_client, bpffs, peers) as (old, client, new):
        before = client.next()
        assert before[:4] == (FRONTEND, FRONTEND, FRONTEND, True)
        counted = chosen(old.datapath.maps)
        assert counted > 0
        made_another_layout(old.datapath.maps)
        old.close()
        assert new.open().reused
        assert not new.keeps_programs
        new.load_programs()
        new.attach()
        after = client.next()
        assert chosen(new.maps) > counted, "counts went along and go on"
        assert after[2:] == before[2:], "datagrams go where they went"
        if RECORDS_CAN_BE_COPIED:
            assert after == before
            found = list(connections(new.open_connections()))
            assert len(found) == 2, "the stream and the connected one"
        assert len(list(bpffs.glob("v*-*"))) == 1
        assert not (bpffs / "earlier").is_symlink()


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("Crossing.run", id="it had said where the hooks come from"),
        pytest.param("Earlier.copy_late", id="hooks knew both layouts"),
        pytest.param("Crossing.end", id="hooks knew ours alone"),
    ],
)
def test_an_agent_that_ended_on_the_way_is_followed_by_one_that_begins_it_again(
    hooks: Hooks, in_client: InClient, bpffs: Path, where: str
) -> None:
    def be_killed() -> None:
        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        ended = Datapath(bpffs, in_client.cgroup or Path(), SMALL, cache=hooks.cache)
        ended.open()
        ended.load_programs()
        with mock.patch(f"pyagent.kernel.crossing.{where}", die):
            ended.attach()

    with crossing(hooks, in_client, bpffs, peers) as (old, client, new):
        before = client.next()
        made_another_layout(old.datapath.maps)
        old.close()
        assert spawn(be_killed).wait(60.0) == -signal.SIGKILL
        assert (bpffs / "earlier").is_symlink()
        assert new.open().reused
        assert not new.keeps_programs
        new.load_programs()
        new.attach()
        after = client.next()
        assert after[2:] == before[2:]
        assert not RECORDS_CAN_BE_COPIED or after == before
        assert new.attached
        assert not (bpffs / "earlier").is_symlink()
