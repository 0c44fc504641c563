"""`IP:port` of our HTTP servers: read, and bound."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from pyagent.model.address import Family, family_of, format_address, is_unspecified, parse_address
from pyagent.model.failures import InvalidField

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)
BACKLOG = 128


class BindAddress(NamedTuple):
    """Where a server listens. `address` is 16 bytes."""

    address: bytes
    port: int

    def __str__(self) -> str:
        host = format_address(self.address)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def parse_bind_address(text: str, default_port: int) -> BindAddress | None:
    """`127.0.0.1:10249`, `[::1]:10249`, or an address alone; None for `` and `0`, which turn a server off.

    Raises:
        InvalidField: the text is something else.
    """
    text = text.strip()
    if text in ("", "0"):
        return None
    host, port_text = _split(text)
    port = int(port_text) if port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 else -1
    if port_text and not 1 <= port <= 65535:
        raise InvalidField("port must be 1 to 65535", text)
    try:
        return BindAddress(parse_address(host), port if port_text else default_port)
    except InvalidField:
        raise InvalidField("want IP:PORT, or 0 to turn it off", text) from None


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or ":" not in host or (rest and not rest.startswith(":")) or rest == ":":
            raise InvalidField("want [IPV6]:PORT", text)
        return host, rest[1:]
    if text.count(":") > 1:
        return text, ""
    host, colon, port = text.partition(":")
    if colon and not port:
        raise InvalidField("port must be 1 to 65535", text)
    return host, port


def bind(where: BindAddress) -> socket.socket:
    """A listening TCP socket. 0.0.0.0 and :: mean all addresses of both families, as in kube-proxy.

    Port 0 takes a free one.

    Raises:
        OSError: the address is not ours, or the port is taken.
    """
    if is_unspecified(where.address):
        try:
            return _listen(socket.AF_INET6, "::", where.port, both_families=True)
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
        return _listen(socket.AF_INET, "0.0.0.0", where.port)  # noqa: S104  what was asked for
    is_v4 = family_of(where.address) is Family.IPV4
    return _listen(socket.AF_INET if is_v4 else socket.AF_INET6, format_address(where.address), where.port)


def _listen(
    family: socket.AddressFamily, host: str, port: int, *, both_families: bool = False
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both_families)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
