"""Asking our servers: real HTTP on 127.0.0.1, on ports that the kernel chooses."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, NamedTuple

from pyagent.agent.bind_address import BindAddress, bind
from pyagent.agent.http_exchange import Handler
from pyagent.agent.http_server import HttpServer
from pyagent.model.address import parse_address

LOOPBACK = parse_address("127.0.0.1")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(port: int, path: str = "/", method: str = "GET", host: str = "127.0.0.1") -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def loopback_listener() -> tuple[socket.socket, int]:
    listener = bind(BindAddress(LOOPBACK, 0))
    return listener, listener.getsockname()[1]


def free_port() -> int:
    listener, port = loopback_listener()
    listener.close()
    return port


def serve(server: HttpServer, handler: Handler) -> int:
    """Serve on a free port; returns it."""
    listener, port = loopback_listener()
    server.listen(listener, handler)
    return port
