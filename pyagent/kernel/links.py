"""The hooks: which program runs at which call, attached to a cgroup by pinned bpf_links."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

from pyagent.datapath.layout import Hook
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.features import PROGRAM_SOCK_ADDR, explain_errno
from pyagent.kernel.map_pins import clear, is_folder, is_pinned, make_folder
from pyagent.model.failures import KernelRefused, NoPermission

LINKS = "links"
"""Where links are pinned, below `--bpffs`."""

ATTACH_TYPE: dict[Hook, int] = {
    Hook.GETPEERNAME4: 29,
    Hook.GETPEERNAME6: 30,
    Hook.RECVMSG4: 19,
    Hook.RECVMSG6: 20,
    Hook.CONNECT4: 10,
    Hook.CONNECT6: 11,
    Hook.SENDMSG4: 14,
    Hook.SENDMSG6: 15,
}
"""Reverse hooks first: what a forward hook records is always understood by then."""

UNCONNECTED_UDP = frozenset({Hook.SENDMSG4, Hook.SENDMSG6, Hook.RECVMSG4, Hook.RECVMSG6})


def program_name(hook: Hook) -> str:
    return hook.name.lower()


def programs(hooks: frozenset[Hook]) -> dict[str, bpf.ProgramKind]:
    """Program name -> what it is, in attach order."""
    return {
        program_name(h): bpf.ProgramKind(PROGRAM_SOCK_ADDR, t) for h, t in ATTACH_TYPE.items() if h in hooks
    }


class LinkState(NamedTuple):
    """How one hook stands."""

    hook: Hook
    attached: bool
    program_id: int = 0
    link_id: int = 0
    cgroup_id: int = 0
    pinned: bool = False


class Links:
    """Links of one agent, held by fd so that a lost pin detaches nothing."""

    def __init__(self, folder: Path, cgroup: Path) -> None:
        self._folder = folder
        self._cgroup = cgroup
        self._fds: dict[Hook, int] = {}

    def adopt(self) -> frozenset[Hook]:
        """Take over pinned links that are attached to our cgroup; others' pins are removed.

        Where the folder is behind a symbolic link they are taken over too, since they would run beside new
        ones; nothing is changed there.

        Returns:
            The hooks that were found.
        """
        elsewhere = self._folder.is_symlink()
        if not elsewhere:
            make_folder(self._folder)
        wanted = cgroup_id(self._cgroup)
        for hook in ATTACH_TYPE:
            pin = self._folder / program_name(hook)
            if not pin.is_file() or pin.is_symlink():
                if not elsewhere:
                    clear(pin)
                continue
            fd = bpf.obj_get(str(pin))
            if bpf.link_info(fd).cgroup_id == wanted:
                self._fds[hook] = fd
                continue
            os.close(fd)
            if not elsewhere:
                pin.unlink()
        make_folder(self._folder)
        return frozenset(self._fds)

    def point_to(self, program_fds: dict[Hook, int]) -> None:
        """Make each hook run its program: swapped in place where a link lives, attached where none does.

        Hooks that are not named are detached, forward ones first.

        Raises:
            KernelRefused: names the hook and the remedy.
        """
        for hook in reversed(ATTACH_TYPE):
            if hook not in program_fds:
                self.detach(hook)
        for hook in ATTACH_TYPE:
            if hook in program_fds:
                self._point(hook, program_fds[hook])

    def _point(self, hook: Hook, program_fd: int) -> None:
        if hook in self._fds:
            try:
                bpf.link_update(self._fds[hook], program_fd)
                self._pin(hook)
                return
            except OSError as error:
                # The cgroup died or somebody detached the link: it can only be made anew.
                if error.errno not in (errno.ENOLINK, errno.EINVAL, errno.ENOENT):
                    raise self._refused(hook, error) from error
                self.detach(hook)
        cgroup_fd = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._fds[hook] = bpf.link_create(program_fd, cgroup_fd, ATTACH_TYPE[hook])
        except OSError as error:
            raise self._refused(hook, error) from error
        finally:
            os.close(cgroup_fd)
        self._pin(hook)

    def _pin(self, hook: Hook) -> None:
        if self._is_pinned(hook):
            return
        pin = self._folder / program_name(hook)
        make_folder(self._folder)
        clear(pin)
        bpf.obj_pin(self._fds[hook], str(pin))

    def _is_pinned(self, hook: Hook) -> bool:
        return is_folder(self._folder) and is_pinned(
            self._folder / program_name(hook), self._fds[hook], bpf.link_info
        )

    def detach(self, hook: Hook) -> None:
        """Take one hook away: pin and link."""
        clear(self._folder / program_name(hook))
        fd = self._fds.pop(hook, None)
        if fd is not None:
            os.close(fd)

    def states(self) -> list[LinkState]:
        """How each held link stands now; a link whose cgroup died or that was detached is not attached."""
        try:
            wanted = cgroup_id(self._cgroup)
        except FileNotFoundError:
            wanted = -1  # gone; it may be made again
        found = []
        for hook, fd in self._fds.items():
            info = bpf.link_info(fd)
            attached = info.cgroup_id == wanted and info.program_id != 0
            pinned = self._is_pinned(hook)
            found.append(LinkState(hook, attached, info.program_id, info.id, info.cgroup_id, pinned))
        return found

    def close(self) -> None:
        """Close the fds; pinned links stay attached."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _refused(self, hook: Hook, error: OSError) -> KernelRefused:
        text = f"attach {program_name(hook)} to {self._cgroup}: {explain_errno(error)}"
        if error.errno == errno.EPERM:
            text += (
                "; or another program is attached there without BPF_F_ALLOW_MULTI: `kubesock check` names it"
            )
        return KernelRefused(text)


def pinned_states(folder: Path) -> list[LinkState]:
    """How pinned links stand, for readers; hooks without a pin are listed as not attached."""
    found = []
    for hook in ATTACH_TYPE:
        try:
            fd = bpf.obj_get(str(folder / program_name(hook)))
        except FileNotFoundError:
            found.append(LinkState(hook, attached=False))
            continue
        except PermissionError:
            raise NoPermission(
                f"{folder}: root alone may look at the hooks, since who can may detach them"
            ) from None
        try:
            info = bpf.link_info(fd)
        finally:
            os.close(fd)
        found.append(
            LinkState(hook, info.cgroup_id != 0, info.program_id, info.id, info.cgroup_id, pinned=True)
        )
    return found


def cgroup_id(path: Path) -> int:
    """The id that link info and bpf_get_current_cgroup_id() tell: the folder's inode number."""
    return path.stat().st_ino


def effective_programs(cgroup: Path) -> dict[Hook, list[int]]:
    """Ids of the programs that run for sockets of the cgroup, its own and its parents'."""
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {hook: bpf.program_query(fd, kind, effective=True) for hook, kind in ATTACH_TYPE.items()}
    finally:
        os.close(fd)


def foreign_programs(cgroup: Path, own: frozenset[int]) -> list[tuple[Hook, int, str]]:
    """(hook, program id, name) of others' programs that run for sockets of the cgroup."""
    return [
        (hook, identifier, _program_name(identifier))
        for hook, identifiers in effective_programs(cgroup).items()
        for identifier in identifiers
        if identifier not in own
    ]


def _program_name(identifier: int) -> str:
    try:
        fd = bpf.program_fd_by_id(identifier)
    except OSError:
        return ""  # gone meanwhile
    try:
        return bpf.program_info(fd).name
    finally:
        os.close(fd)
