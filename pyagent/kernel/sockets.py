"""Facts that only a socket tells."""

from __future__ import annotations

import contextlib
import socket
import struct

from pyagent.kernel.hook_cookie import asked_netns_cookie

SO_NETNS_COOKIE = 71


def netns_cookie() -> int:
    """The cookie of the caller's network namespace; 0 where unknown."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
        try:
            return int(struct.unpack("=Q", made.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])
        except OSError:  # before Linux 5.14
            return asked_netns_cookie()
