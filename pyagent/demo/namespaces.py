"""Network namespaces on one machine, joined by a bridge, with no route to anywhere else.

One namespace is the node: it holds the bridge, and the node's own addresses on it. Each pod is a namespace
with a veth on that bridge. Addresses of the pod network and of nodes are all on the same link, so nothing
forwards packets and an address that nobody translates answers ENETUNREACH at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pyagent.demo import links
from pyagent.demo.calls import call
from pyagent.demo.links import Attachment
from pyagent.demo.syscalls import bind_mount, unmount, unshare_network

NAMESPACES = Path("/run/netns")  # where `ip netns` and the agent look for them

WIRING_SECONDS = 20.0


def create(name: str) -> Path:
    """Make a named network namespace, as `ip netns add` does. Returns the path that it is mounted on.

    Raises:
        OSError: the name is taken, or this process may not make namespaces.
    """
    NAMESPACES.mkdir(parents=True, exist_ok=True)
    path = NAMESPACES / name
    path.touch(mode=0o400, exist_ok=False)
    try:
        call(partial(_mount_new, path), timeout=WIRING_SECONDS)
    except BaseException:
        remove(path)
        raise
    return path


def _mount_new(path: Path) -> None:
    unshare_network()
    bind_mount(Path("/proc/self/ns/net"), path)


def remove(path: Path) -> None:
    """Unmount and unlink a namespace. It ends with its last process; absent ones are fine."""
    while True:
        try:
            unmount(path)
        except OSError:  # not mounted (any more), or gone
            break
    path.unlink(missing_ok=True)


def named(prefix: str) -> list[Path]:
    """Every namespace whose name starts with a prefix."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in NAMESPACES.iterdir() if path.name.startswith(prefix))
    return []


def make_node(node: Path, addresses: Sequence[str]) -> None:
    """Bring up a node's loopback and its bridge with addresses (ADDRESS/BITS)."""
    call(partial(links.make_bridge, node, addresses), timeout=WIRING_SECONDS)


def attach_pods(node: Path, attachments: Sequence[Attachment]) -> None:
    """Connect pods to the node's bridge, all in one fork because most of the time is its start."""
    call(partial(links.attach, node, attachments), timeout=WIRING_SECONDS)


def isolate(namespace: Path) -> None:
    """Leave a namespace alone with its loopback interface."""
    call(partial(links.loopback_only, namespace), timeout=WIRING_SECONDS)
