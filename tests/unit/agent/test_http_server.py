"""The HTTP server against clients that behave, and clients that do not."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
from contextlib import closing

import pytest

from pyagent.agent.bind_address import BindAddress, bind
from pyagent.agent.http_exchange import MAX_HEAD, Request, Response, pages
from pyagent.agent.http_server import HttpServer
from tests.unit.agent.asking import LOOPBACK, free_port, get, loopback_listener, serve

LARGE = b"x" * 5_000_000

PAGES = pages({"/": lambda: Response("hello"), "/large": lambda: Response(LARGE)})


def exchange(port: int, sent: bytes) -> bytes:
    """All that comes back until the server hangs up."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        client.sendall(sent)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_page_is_served_with_its_length_and_type(server: HttpServer) -> None:
    answer = get(serve(server, PAGES), "/")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["content-length"] == "5"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["connection"] == "close"


def test_a_query_is_no_part_of_the_path(server: HttpServer) -> None:
    assert get(serve(server, PAGES), "/?verbose=1").status == 200


@pytest.mark.parametrize("path", ["/nothing", "/large/", "//", "/../"])
def test_any_other_path_is_404(server: HttpServer, path: str) -> None:
    assert get(serve(server, PAGES), path).status == 404


def test_head_has_the_headers_of_get_and_no_body(server: HttpServer) -> None:
    answer = get(serve(server, PAGES), "/", method="HEAD")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "5", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(server: HttpServer, method: str) -> None:
    answer = get(serve(server, PAGES), "/", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_large_page_arrives_whole(server: HttpServer) -> None:
    assert get(serve(server, PAGES), "/large").body == LARGE


def test_a_request_may_come_byte_by_byte(server: HttpServer) -> None:
    port = serve(server, PAGES)
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n":
            client.sendall(bytes([byte]))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_with_a_body_gets_its_answer_without_a_reset(server: HttpServer) -> None:
    port = serve(server, PAGES)
    head = b"GET / HTTP/1.1\r\nContent-Length: 400000\r\n\r\n"
    assert exchange(port, head + b"b" * 4000).endswith(b"hello")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET / HTTP/1.1\n\n", 200),
        (b"GET http://node:10256/ HTTP/1.1\r\n\r\n", 200),
        (b"\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1 x\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),  # somebody speaks TLS
        (b"GET /\xff HTTP/1.1\r\n\r\n", 404),
        (b"GET /" + b"a" * MAX_HEAD + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, 431),
    ],
)
def test_odd_requests_get_an_answer(server: HttpServer, sent: bytes, status: int) -> None:
    port = serve(server, PAGES)
    assert status_of(exchange(port, sent)) == status
    assert get(port, "/").status == 200


def test_a_client_that_sends_nothing_is_hung_up_on() -> None:
    server = HttpServer("test-http", request_seconds=0.1)
    server.start()
    try:
        assert exchange(serve(server, PAGES), b"GET / HT") == b""
    finally:
        server.stop()


def test_idle_clients_do_not_keep_others_out() -> None:
    server = HttpServer("test-http", max_connections=4, request_seconds=60)
    server.start()
    try:
        port = serve(server, PAGES)
        idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(20)]
        assert get(port, "/").status == 200
        for client in idle:
            client.close()
    finally:
        server.stop()


def test_many_clients_at_once_are_all_served(server: HttpServer) -> None:
    port = serve(server, PAGES)
    bodies: list[bytes] = []

    def ask() -> None:
        bodies.extend(get(port, "/").body for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b"hello"] * 80


def test_a_page_that_fails_is_500_and_logged_and_the_next_is_served(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Request) -> Response:
        raise ValueError("no such thing")

    broken, working = serve(server, fail), serve(server, PAGES)
    assert get(broken, "/").status == 500
    assert "no such thing" in caplog.text
    assert get(working, "/").status == 200


def test_a_closed_port_refuses_and_is_free_at_once(server: HttpServer) -> None:
    listener, port = loopback_listener()
    server.listen(listener, PAGES)
    assert get(port, "/").status == 200
    server.close(listener)
    with pytest.raises(ConnectionRefusedError):
        get(port, "/")
    with closing(bind(BindAddress(LOOPBACK, port))):
        server.close(listener)  # twice does no harm


def test_a_stopped_server_has_closed_its_ports() -> None:
    server = HttpServer("test-http")
    server.start()
    port = serve(server, PAGES)
    assert get(port, "/").status == 200
    server.stop()
    with closing(bind(BindAddress(LOOPBACK, port))):
        pass


def test_a_server_that_never_ran_closes_its_ports_too() -> None:
    server = HttpServer("test-http")
    port = serve(server, PAGES)
    server.stop()
    with closing(bind(BindAddress(LOOPBACK, port))):
        pass


def test_a_taken_address_is_bound_once_it_is_free_and_told_once_each(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    holder, port = loopback_listener()
    tries = threading.Semaphore(0)

    def attempt() -> socket.socket:
        tries.release()
        return bind(BindAddress(LOOPBACK, port))

    what = f"health server on 127.0.0.1:{port}"
    assert not server.listen_when_possible(attempt, PAGES, what, hard_fail=False)
    for _ in range(3):
        assert tries.acquire(timeout=10)
    holder.close()
    answer = next(found for _ in range(1000) if (found := asked_or_none(port)) is not None)
    assert answer == b"hello"
    assert [r.getMessage() for r in caplog.records if r.name.endswith("http_server")] == [
        f"{what} cannot listen, tried again every 0.05 s: [Errno {errno.EADDRINUSE}] Address already in use",
        f"{what} listens now",
    ]


def asked_or_none(port: int) -> bytes | None:
    try:
        return get(port, "/").body
    except ConnectionRefusedError:
        threading.Event().wait(0.01)
        return None


def test_a_taken_address_is_an_error_where_that_is_asked_for(server: HttpServer) -> None:
    holder, port = loopback_listener()
    with closing(holder), pytest.raises(OSError, match="in use"):
        server.listen_when_possible(
            lambda: bind(BindAddress(LOOPBACK, port)), PAGES, "health server", hard_fail=True
        )


def test_a_free_address_is_bound_at_once(server: HttpServer) -> None:
    where = BindAddress(LOOPBACK, free_port())
    assert server.listen_when_possible(lambda: bind(where), PAGES, "health server", hard_fail=True)
    assert get(where.port, "/").status == 200


def test_exhausted_descriptors_pause_the_server_until_there_are_some_again(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real accept, told once that there are no descriptors left."""
    port = serve(server, PAGES)
    accept = socket.socket.accept
    failures = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))])

    def exhausted(listener: socket.socket) -> object:
        for failure in failures:
            raise failure
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", exhausted)
    assert get(port, "/").body == b"hello"
