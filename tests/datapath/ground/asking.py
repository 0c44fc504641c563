"""Dialling as clients do. Everything here runs inside `in_client`."""

from __future__ import annotations

import json
import socket
from typing import NamedTuple

ASK_SECONDS = 3.0


class Reply(NamedTuple):
    """Who answered, and what both ends saw. Addresses are (text, port) as the sockets gave them."""

    pod: str
    peer: tuple[str, int]  # TCP, connected UDP: getpeername(); unconnected UDP: the answer's source
    seen_client: tuple[str, int]  # as the server saw it
    server: tuple[str, int]  # the server's own address: the backend
    text: str


def ask_tcp(address: str, port: int, text: str = "hello", family: int | None = None) -> Reply:
    """connect(), one line, one answer. `family` makes an IPv6 socket dial a v4-mapped address."""
    with socket.socket(_family(address, family), socket.SOCK_STREAM) as sock:
        sock.settimeout(ASK_SECONDS)
        sock.connect((address, port))
        return tcp_reply_on(sock, text)


def tcp_reply_on(sock: socket.socket, text: str = "hello") -> Reply:
    """One line and its answer on a connected TCP socket."""
    sock.sendall(text.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = sock.recv(65536)
        if not chunk:
            raise ConnectionError(f"closed by the server after {answer!r}")
        answer += chunk
    return reply_of(answer, sock.getpeername()[:2])


def ask_udp(
    address: str, port: int, text: str = "hello", family: int | None = None, connected: bool = False
) -> Reply:
    """One datagram and its answer, by sendto()/recvfrom() or, connected, by send()/recv()."""
    with socket.socket(_family(address, family), socket.SOCK_DGRAM) as sock:
        sock.settimeout(ASK_SECONDS)
        if not connected:
            return udp_reply_on(sock, (address, port), text)
        sock.connect((address, port))
        sock.send(text.encode())
        return reply_of(sock.recv(65536), sock.getpeername()[:2])


def udp_reply_on(sock: socket.socket, target: tuple[str, int], text: str = "hello") -> Reply:
    """One sendto() and its answer on an unconnected UDP socket, which the caller may go on using."""
    sock.sendto(text.encode(), target)
    answer, source = sock.recvfrom(65536)
    return reply_of(answer, source[:2])


def _family(address: str, family: int | None) -> int:
    if family is not None:
        return family
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def reply_of(answer: bytes, peer: tuple[str, int]) -> Reply:
    """What a server's answer says, beside the peer that the client saw."""
    said = json.loads(answer)
    return Reply(said["pod"], peer, tuple(said["client"]), tuple(said["server"]), said["text"])
