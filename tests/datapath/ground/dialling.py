"""Every way in which a program can dial, as a table; and the calls that Python's `socket` does not offer."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from contextlib import closing
from typing import NamedTuple

from pyagent.kernel.features import has_set_retval
from tests.datapath.ground.asking import ASK_SECONDS, Reply, reply_of, tcp_reply_on

_libc = ctypes.CDLL(None, use_errno=True)

Answer = Reply | str
"""Who answered, or the name of the errno."""


class Way(NamedTuple):
    """One way to dial.

    Attributes:
        call: `tcp` connects, `udp` connects and sends, `datagram` sends with an address.
        family: 4, 6, or 46 for an IPv6 socket that dials a v4-mapped address.
    """

    call: str
    family: int

    @property
    def protocol(self) -> str:
        return "TCP" if self.call == "tcp" else "UDP"

    @property
    def socket_family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.family == 4 else socket.AF_INET6

    def text(self, ipv4: str, ipv6: str) -> str:
        """How this way writes the address of something that has both families."""
        return {4: ipv4, 6: ipv6, 46: f"::ffff:{ipv4}"}[self.family]

    def __str__(self) -> str:
        return f"{self.call}-{ {4: 'v4', 6: 'v6', 46: 'mapped'}[self.family] }"


WAYS = tuple(Way(call, family) for call in ("tcp", "udp", "datagram") for family in (4, 6, 46))
CONNECTING = tuple(way for way in WAYS if way.call != "datagram")


def make_socket(way: Way) -> socket.socket:
    kind = socket.SOCK_STREAM if way.call == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(way.socket_family, kind)
    made.settimeout(ASK_SECONDS)
    return made


def ask_on(made: socket.socket, way: Way, address: str, port: int) -> Answer:
    """Dial on a socket of that way, and have an answer."""
    try:
        if way.call == "datagram":
            made.settimeout(None)  # with a timeout Python sends again after EAGAIN
            made.sendto(b"hello", (address, port))
            made.settimeout(ASK_SECONDS)
            answer, source = made.recvfrom(65536)
            return reply_of(answer, source[:2])
        made.connect((address, port))
        if way.call == "tcp":
            return tcp_reply_on(made)
        made.send(b"hello")
        answer, source = made.recvfrom(65536)
        said = reply_of(answer, made.getpeername()[:2])
        assert source[:2] == said.peer, "recvfrom() and getpeername() tell different peers"
        return said
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def ask(way: Way, address: str, port: int) -> Answer:
    """Dial on a new socket, and have an answer."""
    with closing(make_socket(way)) as made:
        return ask_on(made, way, address, port)


def refusal(name: str = "ECONNREFUSED") -> str:
    """How this kernel tells of a refusal with that errno: every one is EPERM before Linux 5.18."""
    return name if has_set_retval() else "EPERM"


def errno_of(call: object, *arguments: object) -> str:
    """The errno name of a call that should fail; "" if it does not."""
    try:
        call(*arguments)  # type: ignore[operator]
    except TimeoutError:  # Python's own has no errno
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def disconnect(made: socket.socket) -> None:
    """connect() with AF_UNSPEC, which dissolves a UDP socket's association."""
    _checked(_libc.connect(made.fileno(), struct.pack("=H14x", socket.AF_UNSPEC), 16))


def sockaddr_in(address: str, port: int) -> bytes:
    packed = socket.inet_pton(socket.AF_INET, address)
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + packed + bytes(8)


def connect_ipv4_on(made: socket.socket, address: str, port: int) -> None:
    """connect() with an AF_INET address, whatever the socket's family."""
    _checked(_libc.connect(made.fileno(), sockaddr_in(address, port), 16))


def send_ipv4_on(made: socket.socket, data: bytes, address: str, port: int) -> None:
    """sendto() with an AF_INET address, whatever the socket's family."""
    _checked(_libc.sendto(made.fileno(), data, len(data), 0, sockaddr_in(address, port), 16))
