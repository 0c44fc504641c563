"""One HTTP/1.1 exchange as bytes: a request head read, a response written. No sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

MAX_HEAD = 8192  # bytes of request line and header fields

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"


class Request(NamedTuple):
    """What a page may want to know. Bodies are never read."""

    method: str  # GET or HEAD
    path: str
    query: str = ""


class Response(NamedTuple):
    body: bytes | str
    content_type: str = TEXT
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    take_over: Callable[[socket.socket], None] | None = None
    """Who goes on with the connection after the head; non-blocking, and theirs to close. There is no body."""


Handler = Callable[[Request], Response]
Page = Callable[[], Response]


class BadRequest(Exception):
    """This is no request that we answer; `response` says why."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.response = Response(text + "\n", status=status, headers=headers)


def pages(known: dict[str, Page]) -> Handler:
    """A handler that serves just these paths, and 404 for all others."""

    def handle(request: Request) -> Response:
        page = known.get(request.path)
        return page() if page else Response("404 page not found\n", status=404)

    return handle


def head_end(received: bytes | bytearray) -> int:
    """Where the request head ends, or -1 while it is incomplete.

    Raises:
        BadRequest: it is longer than MAX_HEAD.
    """
    ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := received.find(mark)) >= 0]
    end = min(ends, default=-1)
    if end > MAX_HEAD or (end < 0 and len(received) > MAX_HEAD):
        raise BadRequest(431, f"request head is longer than {MAX_HEAD} bytes")
    return end


def parse_head(head: bytes | bytearray) -> Request:
    """The request of a complete head.

    Raises:
        BadRequest: it is no HTTP/1 request line, or neither GET nor HEAD.
    """
    words = bytes(head).split(b"\n", 1)[0].rstrip(b"\r").split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not words[0].isalpha():
        raise BadRequest(400, "malformed request line")
    target = words[1].decode("latin-1")
    if target.startswith("http://"):  # as sent to a proxy
        target = "/" + target[len("http://") :].partition("/")[2]
    if not (target.startswith("/") and target.isprintable()):
        raise BadRequest(400, "malformed request target")
    method = words[0].decode()
    if method not in ("GET", "HEAD"):
        raise BadRequest(405, "only GET and HEAD are served", (("Allow", "GET, HEAD"),))
    path, _, query = target.partition("?")
    return Request(method, path, query)


def encode(response: Response, *, with_body: bool = True) -> bytes:
    """The bytes of a response, after which the connection is closed."""
    body = response.body.encode() if isinstance(response.body, str) else response.body
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Content-Type: {response.content_type}",
        "X-Content-Type-Options: nosniff",
        *(f"{name}: {value}" for name, value in response.headers),
        time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()),
        *([f"Content-Length: {len(body)}"] if response.take_over is None else []),
        "Connection: close",
    ]
    head = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    return head + body if with_body else head
