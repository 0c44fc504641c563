"""Sockets whose backend is gone are ended, and no others."""

from __future__ import annotations

import errno
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.datapath.ground import Manifests, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.asking import reply_of
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, make_socket
from tests.datapath.ground.steps import Steps, in_steps
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

TARGETS = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
PORTS = [("t", 80, "TCP"), ("u", 80, "UDP")]
READY = {"ready": True, "serving": True, "terminating": False}
UNREADY = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
LEFT = {"ready": False, "serving": False, "terminating": True}
ENDED = "ECONNABORTED"

Conditions = dict[str, bool]
States = dict[str, str]


class Held(NamedTuple):
    """A socket that a client keeps: how it was dialled, and what."""

    way: Way
    address: str
    port: int = 80


def both(number: int) -> list[str]:
    return [f"10.96.8.{number}", f"fd44:10:96::8:{number}"]


def served(
    cluster: SmallCluster, name: str, number: int, endpoints: dict[str, Conditions]
) -> list[dict[str, Any]]:
    """A Service whose endpoints are these pods in these conditions."""
    return [
        service(name, both(number), PORTS),
        *(
            endpoint_slice(
                name, [cluster.server(pod).address(family)], TARGETS, f"{pod}-{family}", conditions
            )
            for pod, conditions in endpoints.items()
            for family in (4, 6)
        ),
    ]


def to(number: int, call: str = "udp", family: int = 4) -> Held:
    way = Way(call, family)
    return Held(way, way.text(*both(number)))


def exchange(made: socket.socket, held: Held) -> str:
    """The pod at the other end, or the errno name: what recv() and poll() tell of first."""
    try:
        if pending := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return errno.errorcode[pending]
        if held.way.call == "datagram":
            made.sendto(b"x\n", (held.address, held.port))
        else:
            made.sendall(b"x\n")
        return reply_of(made.recv(65536), ("", 0)).pod
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def keep(sockets: dict[str, Held]) -> Iterator[States]:
    """Open sockets, and tell again and again what each of them says; an error is told for ever."""
    states: States = {}
    failed: States = {}
    with ExitStack() as opened:
        made = {name: opened.enter_context(make_socket(held.way)) for name, held in sockets.items()}
        for name, held in sockets.items():
            if held.way.call != "datagram":
                made[name].connect((held.address, held.port))
        while True:
            for name, held in sockets.items():
                states[name] = failed.get(name) or exchange(made[name], held)
                if states[name].startswith("E"):
                    failed[name] = states[name]
            yield dict(states)


def until(client: Steps[States], wanted: States, what: str) -> States:
    """Wait until these sockets say this."""
    return wait_for(client.next, lambda seen: wanted.items() <= seen.items(), what)


@pytest.mark.parametrize("how", ["removed", "terminating and not serving", "Service deleted"])
def test_connected_udp_sockets_on_a_backend_that_is_gone_end(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient, how: str
) -> None:
    a = cluster.server("a")
    manifests.write("web", served(cluster, "web", 1, {"a": READY}))
    manifests.write("same-pod", served(cluster, "same-pod", 2, {"a": READY}))
    start_agent(manifests.folder)
    doomed = {f"udp-{family}": to(1, "udp", family) for family in (4, 6, 46)}
    others = {
        "tcp": to(1, "tcp"),
        "unconnected": to(1, "datagram"),
        "another Service": to(2),
        "direct": Held(Way("udp", 4), a.ipv4, 8080),
        "direct, IPv6": Held(Way("udp", 6), a.ipv6, 8080),
    }
    elsewhere = in_client.of(cluster.other_client)
    with (
        in_steps(in_client, lambda: keep({**doomed, **others})) as client,
        in_steps(elsewhere, lambda: keep(doomed)) as other_client,
    ):
        assert set(client.next().values()) | set(other_client.next().values()) == {"a"}
        endpoints = {"terminating and not serving": {"a": LEFT, "b": READY}}.get(how, {"b": READY})
        if how == "Service deleted":
            manifests.remove("web")
        else:
            manifests.write("web", served(cluster, "web", 1, endpoints))
        ended = dict.fromkeys(doomed, ENDED)
        seen = until(client, ended, "the end of the sockets")
        until(other_client, ended, "the end of the other client's sockets")
        assert seen["unconnected"] in ({"ENETUNREACH"} if how == "Service deleted" else {"b", "a"})
        del seen["unconnected"]
        assert {name: seen[name] for name in others if name in seen} == dict.fromkeys(
            others.keys() - {"unconnected"}, "a"
        )


def test_a_restart_that_missed_it_makes_up_for_it(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", served(cluster, "web", 1, {"a": READY}))
    agent = start_agent(manifests.folder)
    with in_steps(in_client, lambda: keep({"udp": to(1), "tcp": to(1, "tcp")})) as client:
        assert set(client.next().values()) == {"a"}
        agent.stop(signal.SIGKILL)
        manifests.write("web", served(cluster, "web", 1, {"b": READY}))
        assert client.next() == {"udp": "a", "tcp": "a"}
        start_agent(manifests.folder)
        assert until(client, {"udp": ENDED}, "the end of the socket")["tcp"] == "a"


def test_a_backend_that_serves_to_the_end_keeps_its_sockets(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    """Another Service's socket is ended by the same look, so it is known to have happened."""
    manifests.write("web", served(cluster, "web", 1, {"a": READY, "b": LEFT}))
    manifests.write("marker", served(cluster, "marker", 2, {"a": READY}))
    start_agent(manifests.folder)
    with in_steps(in_client, lambda: keep({"web": to(1), "marker": to(2)})) as client:
        assert client.next() == {"web": "a", "marker": "a"}
        manifests.write("web", served(cluster, "web", 1, {"a": LEAVING, "b": READY}))
        manifests.write("marker", served(cluster, "marker", 2, {"b": READY}))
        assert until(client, {"marker": ENDED}, "the end of the marker")["web"] == "a"
        manifests.write("web", served(cluster, "web", 1, {"a": LEFT, "b": READY}))
        until(client, {"web": ENDED}, "the end of the socket")


def test_a_backend_that_is_not_ready_has_a_grace_if_there_is_another(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    grace = 2.0
    manifests.write("web", served(cluster, "web", 1, {"a": READY}))
    manifests.write("lone", served(cluster, "lone", 2, {"a": READY}))
    manifests.write("back", served(cluster, "back", 3, {"a": READY}))
    start_agent(manifests.folder, arguments=(f"--udp-grace={grace:g}s",))
    sockets = {"web": to(1), "lone": to(2), "back": to(3)}
    with in_steps(in_client, lambda: keep(sockets)) as client:
        assert set(client.next().values()) == {"a"}
        changed = time.monotonic()
        manifests.write("lone", served(cluster, "lone", 2, {"a": UNREADY}))
        manifests.write("back", served(cluster, "back", 3, {"a": UNREADY, "b": READY}))
        manifests.write("web", served(cluster, "web", 1, {"a": UNREADY, "b": READY}))
        assert client.next()["web"] == "a", "not at once"
        manifests.write("back", served(cluster, "back", 3, {"a": READY, "b": READY}))
        seen = until(client, {"web": ENDED}, "the end of the socket")
        assert time.monotonic() - changed >= grace
        assert (seen["lone"], seen["back"]) == ("a", "a")
        manifests.write("lone", served(cluster, "lone", 2, {"a": UNREADY, "b": READY}))
        assert until(client, {"lone": ENDED}, "the end of the lone one")["back"] == "a"


def test_tcp_ends_too_where_that_is_asked_for(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    a = cluster.server("a")
    manifests.write("web", served(cluster, "web", 1, {"a": READY}))
    start_agent(manifests.folder, arguments=("--terminate-tcp",))
    doomed = {f"tcp-{family}": to(1, "tcp", family) for family in (4, 6, 46)}
    direct = {"direct": Held(Way("tcp", 4), a.ipv4, 8080)}
    with in_steps(in_client, lambda: keep({**doomed, **direct})) as client:
        assert set(client.next().values()) == {"a"}
        manifests.write("web", served(cluster, "web", 1, {"b": READY}))
        seen = until(client, dict.fromkeys(doomed, ENDED), "the end of the connections")
        assert seen["direct"] == "a"
