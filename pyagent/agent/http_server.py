"""A small HTTP server: any number of listening sockets, one thread, bounded in every direction.

`http.server` would cost 6 MB and a thread for each socket, and health check ports are many.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from pyagent.agent.http_exchange import BadRequest, Handler, Request, Response, encode, head_end, parse_head

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 128
REQUEST_SECONDS = 5.0
RESPONSE_SECONDS = 15.0
LINGER_SECONDS = 1.0
RETRY_SECONDS = 5.0  # kube-proxy's, for an address that cannot be bound
PAUSE_SECONDS = 0.5
CHUNK = 65536
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Bind = Callable[[], socket.socket]


class Waiting(NamedTuple):
    """A server that could not be bound yet."""

    bind: Bind
    handler: Handler
    what: str
    due: float


class Connection:
    """One client: its request comes in, the response goes out, then it hangs up."""

    __slots__ = ("deadline", "handler", "received", "rest", "state", "take_over")

    def __init__(self, handler: Handler, deadline: float) -> None:
        self.handler = handler
        self.deadline = deadline
        self.received = bytearray()
        self.rest = memoryview(b"")
        self.state = "reading"  # then writing, lingering
        self.take_over: Callable[[socket.socket], None] | None = None


class HttpServer:
    """Serves GET and HEAD, one request a connection, which a page may take over.

    Its thread is a daemon and sleeps while idle. Handlers run in that thread: one slow page delays the other
    pages of this server.
    """

    def __init__(
        self,
        name: str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        request_seconds: float = REQUEST_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """
        Args:
            name: of the thread and in the log.
            max_connections: when one more comes, the oldest goes.
            request_seconds: for a client to send its request.
            retry_seconds: between attempts to bind an address.
        """
        self.name = name
        self._max_connections = max_connections
        self._request_seconds = request_seconds
        self._retry_seconds = retry_seconds
        # Held by the thread but for its sleep; epoll lets others add and remove sockets meanwhile.
        self._lock = threading.RLock()
        self._selector = selectors.EpollSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._waiting: list[Waiting] = []
        self._listeners: dict[socket.socket, Handler] = {}
        self._paused: dict[socket.socket, float] = {}
        self._connections: dict[socket.socket, Connection] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close every socket. Responses under way are cut."""
        self._stopping = True
        self._rouse()
        if self._thread.ident is None:
            self._shut()
        else:
            self._thread.join(timeout=2)

    def listen(self, listener: socket.socket, handler: Handler) -> None:
        """Serve a listening, non-blocking socket, which is the server's from now on."""
        with self._lock:
            self._listeners[listener] = handler
            self._selector.register(listener, selectors.EVENT_READ)

    def close(self, listener: socket.socket) -> None:
        """Stop listening there. Its port is free when this returns."""
        with self._lock:
            if self._listeners.pop(listener, None) is None:
                return
            if self._paused.pop(listener, None) is None:
                self._selector.unregister(listener)
            listener.close()

    def listen_when_possible(self, bind: Bind, handler: Handler, what: str, *, hard_fail: bool) -> bool:
        """Bind now, or again and again until it works; one log line tells each of both.

        Args:
            what: server and address, for the log.
            hard_fail: raise instead of trying again (kube-proxy's `bindAddressHardFail`).

        Returns: whether it listens now.

        Raises:
            OSError: with `hard_fail`, the address cannot be bound.
        """
        try:
            self.listen(bind(), handler)
        except OSError as error:
            if hard_fail:
                raise
            remedy = "; ports below 1024 need CAP_NET_BIND_SERVICE" if error.errno == errno.EACCES else ""
            wait = self._retry_seconds
            log.error("%s cannot listen, tried again every %g s: %s%s", what, wait, error, remedy)
            with self._lock:
                due = time.monotonic() + self._retry_seconds
                self._waiting.append(Waiting(bind, handler, what, due))
            self._rouse()
            return False
        return True

    def _run(self) -> None:
        while not self._stopping:
            ready = self._selector.select(self._patience())
            with self._lock:
                for key, _ in ready:
                    self._serve(key.fileobj)
                self._sweep(time.monotonic())
        self._shut()

    def _rouse(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _shut(self) -> None:
        with self._lock:
            if self._wake < 0:
                return
            for open_socket in (*self._listeners, *self._connections):
                open_socket.close()
            self._listeners.clear()
            self._connections.clear()
            self._selector.close()
            os.close(self._wake)
            self._wake = -1

    def _patience(self) -> float | None:
        with self._lock:
            dues = [c.deadline for c in self._connections.values()]
            dues += [waiting.due for waiting in self._waiting]
            dues += self._paused.values()
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _serve(self, ready: object) -> None:
        # What another socket's turn has closed is in none of these any more.
        if ready == self._wake:
            os.eventfd_read(self._wake)
        elif isinstance(ready, socket.socket):
            if ready in self._listeners:
                self._accept(ready)
            elif connection := self._connections.get(ready):
                self._advance(ready, connection)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in EXHAUSTED:
                log.error("%s cannot accept, paused for %g s: %s", self.name, PAUSE_SECONDS, error)
                self._selector.unregister(listener)
                self._paused[listener] = time.monotonic() + PAUSE_SECONDS
            return  # else the client has gone again
        client.setblocking(False)
        if len(self._connections) >= self._max_connections:
            self._drop(next(iter(self._connections)))
        deadline = time.monotonic() + self._request_seconds
        self._connections[client] = Connection(self._listeners[listener], deadline)
        self._selector.register(client, selectors.EVENT_READ)

    def _advance(self, client: socket.socket, connection: Connection) -> None:
        try:
            if connection.state == "reading":
                self._read(client, connection)
            elif connection.state == "writing":
                self._write(client, connection)
            elif not client.recv(CHUNK):
                self._drop(client)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)  # the client has gone: nobody to tell

    def _read(self, client: socket.socket, connection: Connection) -> None:
        chunk = client.recv(CHUNK)
        if not chunk:
            self._drop(client)
            return
        connection.received += chunk
        try:
            if (end := head_end(connection.received)) < 0:
                return
            request = parse_head(connection.received[:end])
            response = self._answer(connection.handler, request)
            answer = encode(response, with_body=request.method != "HEAD")
            connection.take_over = response.take_over if request.method != "HEAD" else None
        except BadRequest as error:
            answer = encode(error.response)
        connection.received.clear()
        connection.rest = memoryview(answer)
        connection.state = "writing"
        connection.deadline = time.monotonic() + RESPONSE_SECONDS
        self._selector.modify(client, selectors.EVENT_WRITE)
        self._write(client, connection)

    def _answer(self, handler: Handler, request: Request) -> Response:
        try:
            return handler(request)
        except Exception:  # one page that fails must not take the others away
            log.exception("%s: page failed", self.name)
            return Response("internal error, see the agent's log\n", status=500)

    def _write(self, client: socket.socket, connection: Connection) -> None:
        sent = client.send(connection.rest)
        connection.rest = connection.rest[sent:]
        if connection.rest:
            return
        if connection.take_over is not None:
            del self._connections[client]
            self._selector.unregister(client)
            connection.take_over(client)
            return
        # Closing at once would reset the connection if the client has sent more than we read.
        client.shutdown(socket.SHUT_WR)
        connection.state = "lingering"
        connection.deadline = time.monotonic() + LINGER_SECONDS
        self._selector.modify(client, selectors.EVENT_READ)

    def _drop(self, client: socket.socket) -> None:
        del self._connections[client]
        self._selector.unregister(client)
        client.close()

    def _sweep(self, now: float) -> None:
        for client in [c for c, connection in self._connections.items() if connection.deadline <= now]:
            self._drop(client)
        for listener in [paused for paused, until in self._paused.items() if until <= now]:
            del self._paused[listener]
            self._selector.register(listener, selectors.EVENT_READ)
        for waiting in [w for w in self._waiting if w.due <= now]:
            self._waiting.remove(waiting)
            self._try_again(waiting, now)

    def _try_again(self, waiting: Waiting, now: float) -> None:
        try:
            self.listen(waiting.bind(), waiting.handler)
        except OSError:
            self._waiting.append(waiting._replace(due=now + self._retry_seconds))
        else:
            log.info("%s listens now", waiting.what)
