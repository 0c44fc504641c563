"""Ends sockets by sock_diag's SOCK_DESTROY (net/core/sock_diag.c), each named by its cookie.

pyroute2 has no such request. A cookie that does not belong to the tuple answers ENOENT, so a reused port is
never hit by mistake.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from pyagent.kernel.connections import Connection
from pyagent.kernel.network_namespaces import inside, paths_by_inode
from pyagent.model.address import Family, family_of
from pyagent.model.failures import KernelRefused

NETLINK_SOCK_DIAG = 4
SOCK_DESTROY = 21
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NO_COOKIE = 0xFFFFFFFF
ALL_STATES = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")


class Destroyed(NamedTuple):
    """What became of the sockets.

    Attributes:
        destroyed: ended.
        gone: closed before we came.
        refused: (socket, reason) that live on.
    """

    destroyed: list[Connection]
    gone: list[Connection]
    refused: list[tuple[Connection, str]]


def destroy(sockets: Iterable[Connection]) -> Destroyed:
    """End sockets, each in its own network namespace.

    The application sees ECONNABORTED from its next recv(), EDESTADDRREQ from its next send() on UDP.
    """
    by_netns: dict[int, list[Connection]] = defaultdict(list)
    for found in sockets:
        by_netns[found.netns].append(found)
    paths = paths_by_inode(set(by_netns))
    result = Destroyed([], [], [])
    for inode, group in by_netns.items():
        path = paths.get(inode)
        if path is None:
            reason = "its network namespace is neither in /run/netns nor of a visible process (hostPID)"
            result.refused.extend((one, reason) for one in group)
            continue
        try:
            answers = inside(path, lambda group=group: [_destroy_one(one) for one in group])  # type: ignore[misc]
        except (OSError, KernelRefused) as error:
            result.refused.extend((one, str(error)) for one in group)
            continue
        for one, answer in zip(group, answers, strict=True):
            if answer == 0:
                result.destroyed.append(one)
            elif answer == errno.ENOENT:
                result.gone.append(one)
            else:
                result.refused.append((one, _reason(answer)))
    return result


def _reason(number: int) -> str:
    if number in (errno.EOPNOTSUPP, errno.EINVAL):
        return "the kernel has no SOCK_DESTROY: it needs CONFIG_INET_DIAG_DESTROY=y and inet_diag, udp_diag"
    return os.strerror(number)


def _destroy_one(target: Connection) -> int:
    """0 or an errno."""
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG)) as diag:
        body = _request(target)
        header = _HEADER.pack(_HEADER.size + len(body), SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        diag.send(header + body)
        answer = diag.recv(4096)
    return -int(struct.unpack_from("=i", answer, _HEADER.size)[0])


def _request(target: Connection) -> bytes:
    """`struct inet_diag_req_v2`. v4-mapped sockets are found as IPv6 ones with mapped addresses."""
    cookie = struct.pack("=II", target.cookie & 0xFFFFFFFF, target.cookie >> 32)
    if not target.cookie:
        cookie = struct.pack("=II", NO_COOKIE, NO_COOKIE)
    return (
        struct.pack("=BBBBI", target.family, target.protocol, 0, 0, ALL_STATES)
        + struct.pack(">HH", target.source_port, target.peer_port)
        + _raw(target.source, target.family)
        + _raw(target.peer, target.family)
        + struct.pack("=I", 0)
        + cookie
    )


def _raw(address: bytes, family: int) -> bytes:
    if family == socket.AF_INET and family_of(address) is Family.IPV4:
        return address[12:] + bytes(12)
    return address
