"""Small servers that say who they are and whom they see: TCP and UDP, IPv4 and IPv6, HTTP where asked.

An answer is one line of JSON:

    {"pod": NAME, "client": [ADDRESS, PORT], "server": [ADDRESS, PORT], "protocol": "TCP", "text": WHAT CAME}

Over TCP each line is answered by a line on the same connection, an HTTP request by one response. Over UDP
each datagram is answered by one from the socket that it came to. `dns.py` gives the answers of a DNS server.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from pyagent.demo.children import Child, close_inherited

START_SECONDS = 10.0
LONGEST_REQUEST = 1 << 16
HTTP_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ")


class Listener(NamedTuple):
    """One address to serve on. `protocol` is TCP or UDP; `app` is `echo` or `dns`."""

    address: str
    port: int
    protocol: str = "TCP"
    app: str = "echo"


class Peer(NamedTuple):
    """What the application is told about a request."""

    pod: str
    client: tuple[str, int]
    server: tuple[str, int]
    protocol: str


class App(Protocol):
    """How bytes become answers. State is one connection's."""

    def answer(self, data: bytes, peer: Peer) -> bytes:
        """The answer to one datagram."""

    def stream(self, buffered: bytes, peer: Peer) -> tuple[bytes, bytes, bool]:
        """(what to send, what is left of the input, whether to close) for a connection's input so far."""


class Echo:
    def answer(self, data: bytes, peer: Peer) -> bytes:
        said = {
            "pod": peer.pod,
            "client": peer.client,
            "server": peer.server,
            "protocol": peer.protocol,
            "text": data.decode(errors="replace"),
        }
        return json.dumps(said).encode()

    def stream(self, buffered: bytes, peer: Peer) -> tuple[bytes, bytes, bool]:
        if buffered.startswith(HTTP_METHODS):
            head, end, rest = buffered.partition(b"\r\n\r\n")
            if not end:
                return b"", buffered, False
            body = self.answer(head.split(b"\r\n")[0], peer) + b"\n"
            header = (
                f"HTTP/1.1 200 OK\r\nServer: {peer.pod}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            return header.encode() + body, rest, True
        *lines, rest = buffered.split(b"\n")
        return b"".join(self.answer(line, peer) + b"\n" for line in lines), rest, False


def spawn_server(
    spawn: Callable[[Callable[[], object]], Child],
    name: str,
    listeners: Iterable[Listener],
    apps: Callable[[str], App] | None = None,
) -> Child:
    """Fork a server that answers as `name`; returns once every socket is listening.

    Args:
        spawn: starts a callable where the server belongs, e.g. `partial(sandbox.spawn, netns=...)`.
        listeners: where to listen; all in one process.
        apps: maps a listener's `app` to its answers; default: `echo` for everything.

    Raises:
        OSError: an address is not there, or taken.
    """
    ready_in, ready_out = os.pipe()
    wanted = list(listeners)
    try:
        child = spawn(lambda: _serve(name, wanted, apps or (lambda _name: Echo()), ready_out))
    finally:
        os.close(ready_out)
    with os.fdopen(ready_in, "rb") as ready:
        poller = select.poll()
        poller.register(ready, select.POLLIN)
        said = ready.read() if poller.poll(START_SECONDS * 1000) else b"does not become ready"
    if said != b"ready":
        child.kill()
        raise OSError(f"server {name}: {said.decode(errors='replace') or 'ended at once'}")
    return child


def _serve(name: str, listeners: list[Listener], apps: Callable[[str], App], ready: int) -> None:
    close_inherited(ready)
    signal.signal(signal.SIGTERM, lambda *_args: os._exit(0))
    server = _Server(name)
    try:
        for listener in listeners:
            server.listen(listener, apps(listener.app))
    except OSError as error:
        os.write(ready, f"{listener.address} port {listener.port}: {error}".encode())
        os._exit(1)
    os.write(ready, b"ready")
    os.close(ready)
    server.run()


class _Server:
    """One process's sockets. Blocking writes are fine: answers are small and every client is ours."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.selector = selectors.DefaultSelector()

    def listen(self, listener: Listener, app: App) -> None:
        family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
        kind = socket.SOCK_STREAM if listener.protocol == "TCP" else socket.SOCK_DGRAM
        sock = socket.socket(family, kind)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((listener.address, listener.port))
        sock.setblocking(False)  # what was readable may be gone when it is read
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 64)
            sock.listen(1024)
            self.selector.register(sock, selectors.EVENT_READ, lambda: self._accept(sock, app))
        else:
            self.selector.register(sock, selectors.EVENT_READ, lambda: self._datagram(sock, app))

    def run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data()

    def _peer(self, sock: socket.socket, client: tuple[str, int], protocol: str) -> Peer:
        return Peer(self.name, client[:2], sock.getsockname()[:2], protocol)

    def _datagram(self, sock: socket.socket, app: App) -> None:
        try:
            data, client = sock.recvfrom(LONGEST_REQUEST)
            sock.sendto(app.answer(data, self._peer(sock, client, "UDP")), client)
        except OSError:  # a bad checksum, or the client is gone: nobody waits for this answer
            return

    def _accept(self, listening: socket.socket, app: App) -> None:
        try:
            sock, client = listening.accept()
            sock.setblocking(True)
        except OSError:  # reset before it was accepted
            return
        connection = _Connection(self, sock, app, self._peer(sock, client, "TCP"))
        self.selector.register(sock, selectors.EVENT_READ, connection.read)


class _Connection:
    def __init__(self, server: _Server, sock: socket.socket, app: App, peer: Peer) -> None:
        self.server, self.sock, self.app, self.peer = server, sock, app, peer
        self.buffered = b""

    def read(self) -> None:
        try:
            data = self.sock.recv(LONGEST_REQUEST)
            answer, self.buffered, close = self.app.stream(self.buffered + data, self.peer)
            if answer:
                self.sock.sendall(answer)
        except OSError:  # reset by the client
            data, close = b"", True
        if close or not data or len(self.buffered) > LONGEST_REQUEST:
            self.server.selector.unregister(self.sock)
            self.sock.close()
