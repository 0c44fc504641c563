"""Sockets that stay open, through two Services."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

from tests.datapath.ground.manifests import Manifests, endpoint_slice, service

WEB, DNS = "10.96.0.80", "10.96.0.53"
TCP_SOCKETS = 3
OPEN = TCP_SOCKETS + 1


def write_services(manifests: Manifests, web: Sequence[str], dns: Sequence[str]) -> None:
    """The Services `web` (TCP 80) and `dns` (UDP 53) with these endpoints."""
    objects = [
        service("web", [WEB], [("http", 80, "TCP")]),
        endpoint_slice("web", web, [("http", 8080, "TCP")]),
        service("dns", [DNS], [("dns", 53, "UDP")]),
        endpoint_slice("dns", dns, [("dns", 5353, "UDP")]),
    ]
    manifests.write("services.json", objects)


def hold_open() -> None:
    """Connect through both Services and keep the sockets until the process is ended."""
    held = [socket.create_connection((WEB, 80), 3.0) for _ in range(TCP_SOCKETS)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((DNS, 53))
        signal.pause()
    for one in held:
        one.close()
