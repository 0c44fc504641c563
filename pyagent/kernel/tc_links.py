"""Programs at ingress and egress of network devices: pinned tcx links, or clsact filters before Linux 6.6."""

from __future__ import annotations

import errno
import os
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.features import RETURN_1, explain_errno
from pyagent.kernel.map_pins import GONE, clear, is_folder, is_pinned, make_folder
from pyagent.model.failures import KernelRefused

PROGRAM_SCHED_CLS = 3
KIND = bpf.ProgramKind(PROGRAM_SCHED_CLS, 0)
PRIORITY, HANDLE, NAME = 0x6B73, 1, "kubesock"
"""Where our clsact filter stands; nobody else's is looked at."""
FILTER = "filter-"
ETH_P_ALL = 3
_NO_SUCH_DEVICE = 0x7FFFFFFF


class Point(Enum):
    """Where a program runs. Values: name in pins; attach type (`BPF_TCX_*`); parent of a clsact filter."""

    ARRIVE = ("arrive", 46, 0xFFFFFFF2)
    LEAVE = ("leave", 47, 0xFFFFFFF3)

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def attach_type(self) -> int:
        return self.value[1]

    @property
    def parent(self) -> int:
        return self.value[2]


class Place(NamedTuple):
    """A point of a device."""

    device: int
    point: Point

    @property
    def pin(self) -> str:
        return f"{self.point.label}-{self.device}"


@cache
def program_error() -> OSError | None:
    """Why programs for packets cannot be loaded at all; None: they can."""
    try:
        os.close(bpf.program_load(KIND, RETURN_1, "probe"))
    except OSError as error:
        return error
    return None


@cache
def tcx_error() -> OSError | None:
    """Why there are no bpf_links at tc's points (Linux 6.6); None: there are.

    Asked for a device that cannot exist: the kernel gets as far as looking for it, or knows no such links.
    """
    try:
        program = bpf.program_load(KIND, RETURN_1, "probe")
        try:
            os.close(bpf.link_create(program, _NO_SUCH_DEVICE, Point.ARRIVE.attach_type))
        finally:
            os.close(program)
    except OSError as error:
        return None if error.errno == errno.ENODEV else error
    return None


def has_tcx() -> bool:
    """Whether programs are attached to devices by links."""
    return tcx_error() is None


class TcLinks:
    """What is attached, held by pins in one folder. One thread at a time."""

    def __init__(self, folder: Path, tcx: bool | None = None) -> None:
        """
        Args:
            folder: for pins, on a bpffs.
            tcx: whether to make links; None: where the kernel can.
        """
        self._folder = folder
        self._tcx = has_tcx() if tcx is None else tcx
        self._links: dict[Place, int] = {}  # so that a lost pin detaches nothing

    @property
    def uses_tcx(self) -> bool:
        return self._tcx

    def places(self) -> frozenset[Place]:
        """Where something of ours is pinned."""
        return pinned_places(self._folder)

    def attach(self, place: Place, program_fd: int) -> bool:
        """Run the program there; in place of the one that runs there now, without a packet in between.

        Returns:
            Whether it had to be attached anew.

        Raises:
            KernelRefused: with the remedy.
        """
        if self._folder.is_symlink():
            self._hold_what_is_elsewhere()
        make_folder(self._folder)
        try:
            return self._link(place, program_fd) if self._tcx else self._filter(place, program_fd)
        except OSError as error:
            if error.errno == errno.ENODEV:
                self.detach(place)  # the device went away meanwhile
                return False
            raise KernelRefused(f"attach to device {place.device}: {explain_errno(error)}") from error

    def _link(self, place: Place, program_fd: int) -> bool:
        pin = self._folder / place.pin
        if place not in self._links and _is_pin(pin):
            self._links[place] = bpf.obj_get(str(pin))
        if place in self._links:
            try:
                if _is_at(self._links[place], place):
                    bpf.link_update(self._links[place], program_fd)
                    self._pin(place)
                    return False
            except OSError as error:
                if error.errno not in (errno.ENOLINK, errno.EINVAL, errno.ENOENT):
                    raise
            self.detach(place)
        self._links[place] = bpf.link_create(program_fd, place.device, place.point.attach_type)
        self._pin(place)
        return True

    def _hold_what_is_elsewhere(self) -> None:
        """The folder is behind a symbolic link: new links would run beside those that are pinned there."""
        for place in _named(self._folder) if self._tcx and self._folder.is_dir() else ():
            pin = self._folder / place.pin
            if place not in self._links and _is_pin(pin):
                self._links[place] = bpf.obj_get(str(pin))

    def _pin(self, place: Place) -> None:
        pin = self._folder / place.pin
        if not is_pinned(pin, self._links[place], bpf.link_info):
            clear(pin)
            bpf.obj_pin(self._links[place], str(pin))

    def _filter(self, place: Place, program_fd: int) -> bool:
        new = not _has_filter(place)
        _replace_filter(place, program_fd)
        pin = self._folder / (FILTER + place.pin)
        clear(pin)
        bpf.obj_pin(program_fd, str(pin))
        return new

    @property
    def is_there(self) -> bool:
        """Whether there is a folder for pins."""
        return is_folder(self._folder)

    def fault(self, place: Place, program_fd: int) -> str:
        """What is not as `attach` left it with this program; empty: nothing."""
        return self._link_fault(place, program_fd) if self._tcx else self._filter_fault(place, program_fd)

    def _link_fault(self, place: Place, program_fd: int) -> str:
        link = self._links.get(place)
        if link is None or not _is_at(link, place):
            return "it was detached"
        if bpf.link_info(link).program_id != _identity(program_fd)[0]:
            return "it ran a program of somebody else"
        return "" if is_pinned(self._folder / place.pin, link, bpf.link_info) else GONE

    def _filter_fault(self, place: Place, program_fd: int) -> str:
        """A filter is known by its place and its name."""
        if not _has_filter(place):
            return "it was detached"
        return "" if is_pinned(self._folder / (FILTER + place.pin), program_fd, _identity) else GONE

    def detach(self, place: Place) -> None:
        """Take our program away, whichever way it is attached."""
        clear(self._folder / place.pin)
        if place in self._links:
            os.close(self._links.pop(place))
        pin = self._folder / (FILTER + place.pin)
        if os.path.lexists(pin):
            _remove_filter(place)
            clear(pin)

    def close(self) -> None:
        """Let go; what is pinned stays attached."""
        for link in self._links.values():
            os.close(link)
        self._links.clear()


def _identity(program_fd: int) -> tuple[int, int, str]:
    info = bpf.program_info(program_fd)
    return info.id, info.type, info.tag


def _is_pin(path: Path) -> bool:
    """Whether something is pinned there, not behind a link."""
    return path.is_file() and not path.is_symlink()


def _is_at(link: int, place: Place) -> bool:
    return bpf.tc_link_place(link) == (place.device, place.point.attach_type)


def _is_attached(folder: Path, place: Place) -> bool:
    pin = folder / place.pin
    if _is_pin(pin):
        link = bpf.obj_get(str(pin))
        try:
            return _is_at(link, place)
        finally:
            os.close(link)
    return _is_pin(folder / (FILTER + place.pin)) and _has_filter(place)


def pinned_places(folder: Path) -> frozenset[Place]:
    """Where something of ours is pinned, attached or not."""
    return frozenset(_named(folder)) if is_folder(folder) else frozenset()


def _named(folder: Path) -> set[Place]:
    found = set()
    for path in folder.iterdir():
        label, _, index = path.name.removeprefix(FILTER).rpartition("-")
        point = next((p for p in Point if p.label == label), None)
        if point is not None and index.isdigit():
            found.add(Place(int(index), point))
    return found


def attached_places(folder: Path) -> frozenset[Place]:
    """Where programs of ours run, for readers."""
    return frozenset(place for place in pinned_places(folder) if _is_attached(folder, place))


def detach_all(folder: Path) -> None:
    """Take away everything that is pinned there."""
    links = TcLinks(folder)
    # What leads packets here goes first: none may lose its way back.
    for place in sorted(links.places(), key=lambda one: one.point.label):
        links.detach(place)


def _netlink() -> Any:
    # Only where the kernel has no tcx: the import costs 20 MB.
    from pyroute2 import IPRoute

    return IPRoute()


def _replace_filter(place: Place, program_fd: int) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    with _netlink() as netlink:
        try:
            try:
                netlink.tc("add", "clsact", index=place.device)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            netlink.tc(
                "replace-filter", "bpf", index=place.device, parent=place.point.parent, prio=PRIORITY,
                handle=HANDLE, protocol=ETH_P_ALL, fd=program_fd, name=NAME, class_id=0,
                direct_action=True,
            )  # fmt: skip
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error


def _has_filter(place: Place) -> bool:
    """Whether our filter is there, by its place and its name."""
    from pyroute2.netlink.exceptions import NetlinkError

    with _netlink() as netlink:
        try:
            filters = netlink.get_filters(index=place.device, parent=place.point.parent)
        except NetlinkError:
            return False  # no such device, or no clsact on it
        for one in filters:
            options = one.get_attr("TCA_OPTIONS")
            named = options.get_attr("TCA_BPF_NAME") if options is not None else None
            if one["info"] >> 16 == PRIORITY and named == NAME:
                return True
    return False


def _remove_filter(place: Place) -> None:
    """The clsact qdisc stays: others may have come to use it."""
    from pyroute2.netlink.exceptions import NetlinkError

    with _netlink() as netlink:
        try:
            netlink.tc(
                "del-filter", "bpf", index=place.device, parent=place.point.parent, prio=PRIORITY,
                handle=HANDLE, protocol=ETH_P_ALL,
            )  # fmt: skip
        except NetlinkError as error:
            if error.code not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
                raise OSError(error.code, f"remove a filter from device {place.device}") from error
