"""Rows of open sockets, and how they are counted; the network namespaces and processes that have them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.kernel.connections import Connection
from pyagent.kernel.namespace_owners import NetnsOwner, SocketKey, owners, processes
from pyagent.model.address import Protocol, parse_address
from pyagent.model.failures import PinsMissing, UsageError
from pyagent.view.connection_table import (
    CONNECTIONS,
    age_text,
    chooser,
    connection_rows,
    is_draining,
    of_pod,
    uses_backend,
)
from pyagent.view.live import LiveMaps
from pyagent.view.socket_walk import SHARE, SocketWalker, counted
from tests.unit.view.maps_made import endpoint, live, shop

OWN_NETNS = 77


def connection(chosen: str = "10.1.0.1:8080", **changes: object) -> Connection:
    """A socket of the shop's Service, on its first backend."""
    made = Connection(
        5, OWN_NETNS, socket.AF_INET, 1, Protocol.TCP,
        *endpoint("10.9.0.1:40000"), *endpoint(chosen), *endpoint("10.96.0.1:80"), 1, 101, 1, 1001,
        int(90e9),
    )  # fmt: skip
    return made._replace(**changes)  # type: ignore[arg-type]


def maps() -> LiveMaps:
    return live([shop()], {1: "worker-1\0zone-a"}, now=100.0)


def test_a_socket_has_a_row_with_who_dialled_what_and_got_which() -> None:
    pods = {OWN_NETNS: NetnsOwner("shop/client-1", "cni-1", (42,))}
    (row,) = connection_rows(maps(), [connection()], pods)
    assert row == {
        "pod": "shop/client-1",
        "netns": "cni-1",
        "processes": None,
        "service": "shop/web:http/TCP",
        "protocol": "TCP",
        "dialled": "10.96.0.1:80",
        "chosen": "10.1.0.1:8080",
        "backendState": "ready",
        "state": "established",
        "ageSeconds": 10.0,
        "namespace": "shop",
        "name": "web",
        "port": "http",
        "family": "IPv4",
        "source": "10.9.0.1:40000",
        "node": "",
        "cookie": 5,
        "old": False,
    }


def test_the_drain_view_has_terminating_and_removed_backends_alone() -> None:
    found = [
        connection(),
        connection("10.1.0.3:8080", backend_id=3, backend_incarnation=1003),  # terminating
        connection("10.1.0.2:8080", backend_id=2, backend_incarnation=1),  # its id has another owner
        connection("10.1.0.9:8080", backend_id=900, backend_incarnation=7),  # its id is free
        connection(service_port=9),  # the Service is gone
        connection(service_port_incarnation=3),  # another Service has the id
    ]
    rows = connection_rows(maps(), found, {})
    assert sorted(row["backendState"] for row in rows if is_draining(row)) == [
        "removed", "removed", "removed", "removed", "terminating",
    ]  # fmt: skip
    assert [row["service"] for row in rows if "removed" in row["service"]] == ["#1 (removed)", "#9 (removed)"]


def test_unknown_network_namespaces_are_shown_by_number() -> None:
    (row,) = connection_rows(maps(), [connection()], {})
    assert (row["pod"], row["netns"]) == ("", str(OWN_NETNS))
    assert CONNECTIONS.name(row).startswith(f"{OWN_NETNS} 10.9.0.1:40000 shop/web")


def test_states_are_those_of_the_protocol() -> None:
    states = [
        connection(state=1),
        connection(state=8),
        connection(state=99),
        connection(state=1, protocol=17),
    ]
    rows = [connection_rows(maps(), [one], {})[0]["state"] for one in states]
    assert rows == ["established", "close-wait", "99", "connected"]


@pytest.mark.parametrize(
    ("service", "backend", "expected"),
    [
        ("", "", True),
        ("shop/web", "", True),
        ("web:http/TCP", "10.1.0.1", True),
        ("", "10.1.0.1:8080", True),
        ("", "10.1.0.1:80", False),
        ("", "10.1.0.11", False),
        ("shop/cart", "", False),
    ],
)
def test_sockets_are_chosen_before_they_have_a_row(service: str, backend: str, expected: bool) -> None:
    assert chooser(maps(), service, backend)(connection()) is expected


def test_a_socket_of_a_service_that_is_gone_is_nobodys_by_name() -> None:
    assert not chooser(maps(), "shop/web", "")(connection(service_port_incarnation=3))


def test_backends_of_both_families_are_understood_and_others_refused() -> None:
    six = connection("[fd00::1]:80")
    for text, expected in (("fd00::1", True), ("[fd00::1]:80", True), ("[fd00::1]:81", False)):
        assert chooser(maps(), "", text)(six) is expected
    with pytest.raises(UsageError, match="want ADDRESS"):
        chooser(maps(), "", "web-1")


def test_filters_take_what_people_write() -> None:
    (row,) = connection_rows(maps(), [connection()], {OWN_NETNS: NetnsOwner("shop/client-1", "cni-1", ())})
    assert uses_backend(row, "10.1.0.1")
    assert uses_backend(row, "10.1.0.1:8080")
    assert not uses_backend(row, "10.1.0.1:80")
    assert not uses_backend(row, "10.1.0.11")
    assert all(of_pod(row, text) for text in ("shop/client-1", "client-1", "cni-1"))
    assert not of_pod(row, "other/client-1")
    six = connection("[fd00::1]:80")
    (row,) = connection_rows(maps(), [six], {})
    assert uses_backend(row, "fd00::1")
    assert uses_backend(row, "[fd00::1]:80")


def test_an_age_alone_is_no_change() -> None:
    (row,) = connection_rows(maps(), [connection()], {})
    assert not CONNECTIONS.differs(row, {**row, "ageSeconds": 11.0})
    assert CONNECTIONS.differs(row, {**row, "state": "close-wait"})
    assert CONNECTIONS.differs(row, {**row, "new": 1})


@given(st.floats(min_value=0, max_value=1e9, allow_nan=False))
def test_ages_are_short(seconds: float) -> None:
    assert 2 <= len(age_text(seconds)) <= 6


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))), st.integers(0, 10))
def test_counts_hold_every_socket_however_few_are_kept(
    sockets: list[tuple[int, int, int]], keep: int
) -> None:
    found = [
        connection(service_port=port, service_port_incarnation=incarnation, backend_id=backend)
        for port, incarnation, backend in sockets
    ]
    walk = counted(iter(found), keep, 3.0)
    assert walk.total == sum(walk.ports.values()) == sum(walk.backends.values()) == len(found)
    assert walk.found == tuple(found[:keep])
    assert counted(found, None, 0.0).found == tuple(found)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_costly_walk_is_not_repeated_until_its_share_of_the_time_has_passed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, walks = Clock(), []

    def slow(_link: int) -> Iterator[Connection]:
        walks.append(clock.now)
        yield connection()
        clock.now += 0.1

    monkeypatch.setattr("pyagent.view.socket_walk.connections", slow)
    monkeypatch.setattr("pyagent.view.socket_walk.current_folder", lambda bpffs: bpffs)
    monkeypatch.setattr(
        "pyagent.view.socket_walk.open_pinned",
        lambda _folder: os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY),
    )
    walker = SocketWalker(tmp_path, clock)
    for _ in range(1000):
        assert walker.look(keep=0).total == 1
        clock.now += 0.05
    assert clock.now * SHARE >= (len(walks) - 1) * 0.1
    assert len(walks) > 5
    assert walker.look(keep=None).found, "sockets themselves are wanted: that is another walk"


def test_a_table_that_is_not_there_is_an_error_and_no_empty_table(tmp_path: Path) -> None:
    walk = SocketWalker(tmp_path).look()
    assert isinstance(walk.error, PinsMissing)
    assert str(tmp_path) in str(walk.error)


def test_the_processes_of_a_socket_are_found() -> None:
    own = Path("/proc/self/ns/net").stat().st_ino
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        found = owners({own, 4})
        assert 4 not in found
        assert os.getpid() in found[own].pids
        name = Path("/proc/self/comm").read_text().strip()
        source, peer = client.getsockname(), client.getpeername()
        key = SocketKey(Protocol.TCP, parse_address(source[0]), source[1], parse_address(peer[0]), peer[1])
        only = found[own]._replace(pids=(os.getpid(),))
        assert processes(only)[key] == (f"{os.getpid()}/{name}",)


def test_connected_datagram_sockets_of_ipv6_have_processes_too() -> None:
    own = NetnsOwner("", "", (os.getpid(),))
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("::1", 0))
        client.connect(server.getsockname())
        address = parse_address("::1")
        key = SocketKey(Protocol.UDP, address, client.getsockname()[1], address, server.getsockname()[1])
        assert processes(own)[key][0].startswith(f"{os.getpid()}/")


def test_a_namespace_whose_processes_are_gone_has_none() -> None:
    assert processes(NetnsOwner("", "", (2**22 + 1,))) == {}
