"""Sets are switched as fast as they can be while clients connect: nobody ever sees anything in between."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from pyagent.datapath.plan import plan
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.connections import connections
from pyagent.model.address import format_address
from pyagent.model.kube_objects import EndpointSlice, Service
from tests.datapath.ground import ask_tcp, endpoint_slice, service
from tests.datapath.ground.hooks import NODE_NAME, Hooks
from tests.datapath.ground.steps import in_steps

pytestmark = pytest.mark.kernel

BATCH, BATCHES = 250, 40
FAMILIES = [4, 6]


class Switched(NamedTuple):
    """A Service that moves between two disjoint sets, and where it may lead."""

    name: str
    frontends: tuple[str, str]
    sets: tuple[tuple[list[str], list[str]], tuple[list[str], list[str]]]  # of IPv4, IPv6 addresses

    def allowed(self, family: int) -> set[str]:
        at = 0 if family == 4 else 1
        return {address for addresses in self.sets for address in addresses[at]}

    def slices(self, which: int) -> list[dict[str, Any]]:
        return [
            endpoint_slice(self.name, addresses, [("u", 8080, "UDP")], suffix=f"v{family}")
            for family, addresses in zip(FAMILIES, self.sets[which], strict=True)
        ]


def switched(name: str, number: int, sizes: tuple[int, int]) -> Switched:
    def addresses(side: int) -> tuple[list[str], list[str]]:
        hosts = range(1, sizes[side] + 1)
        return (
            [f"10.244.{number * 2 + side + 100}.{host}" for host in hosts],
            [f"fd44:10:244::{number * 2 + side + 100}:{host:x}" for host in hosts],
        )

    frontends = (f"10.96.6.{number}", f"fd44:10:96::6:{number}")
    return Switched(name, frontends, (addresses(0), addresses(1)))


class Writer:
    """What the agent's loop does, as fast as it goes: change, plan, apply."""

    def __init__(self, hooks: Hooks) -> None:
        hooks.serve([])
        self._hooks = hooks
        self._snapshot = Snapshot(NODE_NAME)
        self._desired = DesiredState(Settings(NODE_NAME))
        self.plans = 0

    def put(self, *objects: dict[str, Any]) -> None:
        for obj in objects:
            if obj["kind"] == "EndpointSlice":
                self._snapshot.put("EndpointSlice", msgspec.convert(obj, EndpointSlice))
            else:
                self._snapshot.put("Service", msgspec.convert(obj, Service))
        self._apply()

    def delete(self, *objects: dict[str, Any]) -> None:
        for obj in objects:
            self._snapshot.delete(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        self._apply()

    def _apply(self) -> None:
        hooks = self._hooks
        change = self._desired.update(self._snapshot, self._snapshot.take_dirty())
        made = plan(hooks.held, change)
        assert not made.unfit
        hooks.store(*made.writes)
        hooks.will_free(made.freed)
        self.plans += 1
        if self.plans % 8 == 0:
            hooks.reclaim()


def peers(family: int) -> dict[int, str]:
    """Inode number of each UDP socket of this namespace -> where the kernel sends its datagrams."""
    found = {}
    path = Path("/proc/net/udp" if family == 4 else "/proc/net/udp6")
    for line in path.read_text().splitlines()[1:]:
        fields = line.split()
        raw = bytes.fromhex(fields[2].split(":")[0])
        words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
        found[int(fields[9])] = format_address(words if family == 6 else bytes(10) + b"\xff\xff" + words)
    return found


def wrong_connects(services: list[Switched], family: int) -> list[str]:
    """Connect some 20,000 sockets, and tell those that led nowhere or to a stranger."""
    wrong: list[str] = []
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    for _ in range(BATCHES):
        with ExitStack() as opened:
            made: list[tuple[int, Switched]] = []
            for target, _number in itertools.product(services, range(BATCH // len(services))):
                one = opened.enter_context(socket.socket(kind, socket.SOCK_DGRAM))
                try:
                    one.connect((target.frontends[0 if family == 4 else 1], 80))
                except OSError as error:
                    wrong.append(f"{target.name}: {errno.errorcode[error.errno or 0]}")
                made.append((os.fstat(one.fileno()).st_ino, target))
            found = peers(family)
            wrong += [
                f"{target.name} led to {found.get(inode)}"
                for inode, target in made
                if found.get(inode) not in target.allowed(family)
            ]
    return wrong


@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (2, 40)], ids=str)
def test_every_connect_lands_in_the_old_set_or_the_new_one(hooks: Hooks, sizes: tuple[int, int]) -> None:
    """Two Services that give up ids which the other takes, while a third comes and goes beside them."""
    services = [switched("one", 1, sizes), switched("two", 2, sizes)]
    writer = Writer(hooks)
    for target in services:
        writer.put(in_default(service(target.name, target.frontends, [("u", 80, "UDP")])))
        writer.put(*map(in_default, target.slices(0)))
    passing = [in_default(service(f"passing-{n}", [f"10.96.7.{n}"], [("u", 80, "UDP")])) for n in range(1, 9)]

    def connect(family: int) -> Iterator[list[str]]:
        yield wrong_connects(services, family)

    with ExitStack() as running:
        clients = [running.enter_context(in_steps(hooks.client, lambda f=f: connect(f))) for f in FAMILIES]  # type: ignore[misc]
        for client in clients:
            client.begin()
        for turn in itertools.count(1):
            for target in services:
                writer.put(*map(in_default, target.slices(turn % 2)))
            (writer.put if turn // 8 % 2 else writer.delete)(passing[turn % 8])
            if all(client.ready() for client in clients):
                break
        found = [client.finish() for client in clients]
    assert found == [[], []]
    assert writer.plans > 30, "or nothing was switched meanwhile"


def test_every_answer_comes_from_the_old_set_or_the_new_one(hooks: Hooks) -> None:
    """The same over TCP, by what the servers say of themselves."""
    pods = {name: hooks.cluster.server(name) for name in "abc"}
    frontends = ["10.96.6.9"]
    writer = Writer(hooks)

    def slices(*names: str) -> dict[str, Any]:
        return in_default(endpoint_slice("web", [pods[name].ipv4 for name in names], [("t", 8080, "TCP")]))

    writer.put(in_default(service("web", frontends, [("t", 80, "TCP")])), slices("a"))

    def ask() -> Iterator[set[tuple[str, tuple[str, int]]]]:
        replies = [ask_tcp(frontends[0], 80) for _ in range(1000)]
        yield {(reply.pod, reply.peer) for reply in replies}

    with in_steps(hooks.client, ask) as client:
        client.begin()
        for names in itertools.cycle((("b", "c"), ("a",))):
            writer.put(slices(*names))
            if client.ready():
                break
        assert client.finish() == {(name, (frontends[0], 80)) for name in "abc"}


def test_a_closing_socket_frees_its_record(hooks: Hooks) -> None:
    """Sockets in their thousands leave nothing behind: storage goes with its socket."""
    hooks.serve(
        [
            service("one", ["10.96.6.20"], [("u", 80, "UDP")]),
            endpoint_slice("one", ["10.244.99.1"], [("u", 8080, "UDP")]),
        ]
    )

    def connect() -> int:
        failed = 0
        for _ in range(5000):
            with closing(socket.socket(type=socket.SOCK_DGRAM)) as made:
                made.connect(("10.96.6.20", 80))
                failed += made.getpeername()[0] != "10.96.6.20"
        return failed

    assert hooks.client(connect) == 0
    assert not list(connections(hooks.datapath.open_connections()))


def in_default(obj: dict[str, Any]) -> dict[str, Any]:
    obj["metadata"].setdefault("namespace", "default")
    return obj
