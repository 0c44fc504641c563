"""Dials the reserved frontends and sees whether the forward hooks answer. No packet leaves."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from pyagent.datapath.encoded import PROBE_PORT
from pyagent.datapath.layout import Hook
from pyagent.kernel import features
from pyagent.kernel.cgroup_paths import own_cgroup
from pyagent.model.address import PROBE_ADDRESSES, format_address
from pyagent.model.outcome import PROBE_ERRNO

PROBE_IPV4, PROBE_IPV6 = map(format_address, PROBE_ADDRESSES)
SUB_CGROUP = "kubesock-probe"
CHILD_SECONDS = 10


def dial(hook: Hook) -> int:
    """The errno of one call that runs `hook` on the caller's own socket; 0: it went through.

    connect() is of a UDP socket, which sends nothing. sendto() goes through a socket that is bound to
    loopback, which the kernel refuses with EINVAL where no hook did.
    """
    ipv6 = hook in (Hook.CONNECT6, Hook.SENDMSG6)
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    target = (PROBE_IPV6 if ipv6 else PROBE_IPV4, PROBE_PORT)
    try:
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as made:
            if hook in (Hook.CONNECT4, Hook.CONNECT6):
                made.connect(target)
            else:
                made.bind(("::1" if ipv6 else "127.0.0.1", 0))
                made.sendto(b"", target)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def silent_hooks(cgroup: Path, hooks: Iterable[Hook]) -> dict[Hook, int] | None:
    """Forward hooks that did not answer, with the errno seen instead.

    A socket belongs to the cgroup that its process was in when it was made, so the dials are made by a
    child in a folder below `cgroup`, unless this process is below it already.

    Returns:
        An empty dict when all answered; None where no process can be put below `cgroup` (read-only mount).
    """
    forward = [h for h in hooks if h in (Hook.CONNECT4, Hook.CONNECT6, Hook.SENDMSG4, Hook.SENDMSG6)]
    expected = {PROBE_ERRNO} if features.has_set_retval() else {PROBE_ERRNO, errno.EPERM}
    seen = {h: dial(h) for h in forward} if _is_inside(cgroup) else _dial_inside(cgroup, forward)
    if seen is None:
        return None
    absent = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}  # no IPv6 on this node
    return {h: number for h, number in seen.items() if number not in expected | absent}


def _is_inside(cgroup: Path) -> bool:
    own = own_cgroup()
    return own is not None and own.is_relative_to(cgroup.resolve())


def _dial_inside(cgroup: Path, hooks: Sequence[Hook]) -> dict[Hook, int] | None:
    folder = cgroup / SUB_CGROUP
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    try:
        child = subprocess.run(
            [sys.executable, "-m", "pyagent.kernel.probe", str(folder), *(h.name for h in hooks)],
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        if child.returncode != 0:
            return None
        return {Hook[name]: number for name, number in json.loads(child.stdout).items()}
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOENT):  # a dying child: the next probe reuses the folder
            raise


def main() -> None:
    folder, *names = sys.argv[1:]
    try:
        (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        sys.exit(f"cannot enter {folder}: {error.strerror}")
    print(json.dumps({name: dial(Hook[name]) for name in names}))  # noqa: T201  the child's answer


if __name__ == "__main__":
    main()
