"""A process in each pod and on each node, which dials when it is told.

It lives as long as the cluster, so that sockets can outlive what happens to a Service, and a dial costs no
fork. The functions below `Place` run in that process.
"""

from __future__ import annotations

import errno
import http.client
import os
import pickle
import select
import socket
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from pyagent.demo.children import close_inherited
from pyagent.demo.sandbox import Sandbox
from tests.conformance.ground.objects import Dualstack, Pod
from tests.datapath.ground.asking import Reply, reply_of
from tests.datapath.ground.dialling import WAYS, Answer, Way, ask_on, make_socket

P = ParamSpec("P")
T = TypeVar("T")

TCP = tuple(way for way in WAYS if way.protocol == "TCP")
UDP = tuple(way for way in WAYS if way.protocol == "UDP")
IPV4 = tuple(way for way in WAYS if way.family != 6)
IPV6 = tuple(way for way in WAYS if way.family == 6)

ANSWER_SECONDS = 30.0


class Page(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: str


class Place:
    """A client: the processes of one pod, or the node's own."""

    def __init__(self, sandbox: Sandbox, pod: Pod, cgroup: Path) -> None:
        self.pod = pod
        here, there = socket.socketpair()
        with there:
            sandbox.spawn(lambda: _serve(there), netns=pod.netns, cgroup=cgroup, label=f"client {pod.name}")
        self._socket = here
        self._talk = here.makefile("rwb")

    def __repr__(self) -> str:
        return self.pod.name

    def close(self) -> None:
        self._talk.close()
        self._socket.close()

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function of this module returns there."""
        pickle.dump((work, args, kwargs), self._talk)
        self._talk.flush()
        if not select.select([self._socket], [], [], ANSWER_SECONDS)[0]:
            raise AssertionError(f"{self}: {work.__name__} does not come back")
        succeeded, value = pickle.load(self._talk)
        if not succeeded:
            raise AssertionError(f"in {self}:\n{value}")
        return value  # type: ignore[no-any-return]

    def ask(self, way: Way, target: Dualstack, port: int, times: int = 1) -> list[Answer]:
        """Dial with a new socket each time."""
        return self.do(dial, way, way.text(target.ipv4, target.ipv6), port, times)

    def who(self, target: Dualstack, port: int = 80, ways: Sequence[Way] = WAYS, times: int = 4) -> set[str]:
        """The names of all who answer, or the errno that every single dial ends with.

        Every client must see the Service as its peer: a backend's own address is never shown.
        """
        dials = [(way, way.text(target.ipv4, target.ipv6)) for way in ways]
        by_way = dict(zip(ways, self.do(dial_all, dials, port, times), strict=True))
        for way, address in dials:
            for answer in by_way[way]:
                if isinstance(answer, Reply):
                    assert answer.peer == (address, port), f"{self} by {way}: a strange peer: {answer}"
        names = {way: {_name(answer) for answer in answers} for way, answers in by_way.items()}
        seen = set().union(*names.values())
        errors = {name for name in seen if name.isupper() or name == "timeout"}
        assert not errors or seen == errors == set(list(errors)[:1]), (
            f"{self}: the ways to dial differ: {names}"
        )
        return seen


def _name(answer: Answer) -> str:
    return answer.pod if isinstance(answer, Reply) else answer


_kept: dict[str, tuple[Way, socket.socket]] = {}


def dial(way: Way, address: str, port: int, times: int) -> list[Answer]:
    answers: list[Answer] = []
    for _ in range(times):
        with closing(make_socket(way)) as made:
            answers.append(ask_on(made, way, address, port))
        if answers[-1] == "timeout":
            break
    return answers


def dial_all(dials: Iterable[tuple[Way, str]], port: int, times: int) -> list[list[Answer]]:
    return [dial(way, address, port, times) for way, address in dials]


def dial_from(way: Way, own: tuple[str, int], address: str, port: int) -> Answer:
    """Dial with a new socket that is bound first."""
    with closing(make_socket(way)) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(own)
        return ask_on(made, way, address, port)


def keep(name: str, way: Way, own_port: int = 0) -> None:
    """Make a socket that outlives the call."""
    drop(name)
    made = make_socket(way)
    made.bind(("::" if way.socket_family == socket.AF_INET6 else "0.0.0.0", own_port))
    _kept[name] = way, made


def drop(name: str) -> None:
    if name in _kept:
        _kept.pop(name)[1].close()


def ask_kept(name: str, address: str, port: int) -> Answer:
    """Dial with a kept socket: connect it, or send from it with an address."""
    way, made = _kept[name]
    return ask_on(made, way, address, port)


def talk_kept(name: str, text: str = "hello") -> Answer:
    """Say something on a kept socket that is connected, and have the answer."""
    way, made = _kept[name]
    try:
        made.send(text.encode() + (b"\n" if way.call == "tcp" else b""))
        answer = made.recv(65536)
        return reply_of(answer, made.getpeername()[:2])
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def payload(way: Way, address: str, port: int, length: int) -> int:
    """How much of a long request came through."""
    with closing(make_socket(way)) as made:
        made.connect((address, port))
        made.sendall(b"x" * length + (b"\n" if way.call == "tcp" else b""))
        answer = b""
        while not answer.endswith(b"}\n" if way.call == "tcp" else b"}"):
            answer += made.recv(1 << 17)
        return len(reply_of(answer, made.getpeername()[:2]).text)


def http_get(address: str, port: int, path: str = "/") -> Page | str:
    """A page, or the name of the errno."""
    connection = http.client.HTTPConnection(address, port, timeout=3.0)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return Page(response.status, dict(response.getheaders()), response.read().decode())
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        connection.close()


def can_connect(address: str, port: int) -> bool:
    """Whether connect() of a UDP socket succeeds; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        return made.connect_ex((address, port)) == 0


def _serve(there: socket.socket) -> None:
    close_inherited(there.fileno())
    with there.makefile("rwb") as talk:
        while True:
            try:
                work, args, kwargs = pickle.load(talk)
            except EOFError:
                os._exit(0)
            try:
                answer: tuple[bool, object] = (True, work(*args, **kwargs))
            except BaseException:  # noqa: BLE001  told to the test
                answer = (False, traceback.format_exc())
            pickle.dump(answer, talk)
            talk.flush()
