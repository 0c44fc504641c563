"""Where the benches run: network namespaces without a way out, two cgroups, and one set of kubesock's maps.

Sockets made by a process in `hooked` run the hooks, those made in `plain` do not; everything else about them
is the same.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench import objects
from bench.objects import Plan
from pyagent.cluster.decode import decode_list
from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import Capacities, Hook
from pyagent.datapath.plan import plan
from pyagent.demo import namespaces
from pyagent.demo.sandbox import Sandbox
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.links import ATTACH_TYPE
from pyagent.kernel.probe import silent_hooks
from pyagent.kernel.removal import cleanup
from pyagent.model.failures import KubesockError

SERVICES_PER_STEP = 5000
LINK_GET_NEXT_ID, LINK_TYPE_CGROUP = 31, 3  # include/uapi/linux/bpf.h
SERVED = (
    (4, objects.ENDPOINT_NETWORK),
    (4, objects.OUTSIDE_NETWORK),
    (6, objects.ENDPOINT_NETWORK6),
)
"""Networks in which every address is a server's own."""

VETH = ((4, "10.255.0.1", "10.255.0.2", 30), (6, "fd00:ef::1", "fd00:ef::2", 64))
"""IP version, client's address, server's address, prefix length."""


class Place(NamedTuple):
    """Network namespaces, as paths: of a client, and of the servers that it reaches."""

    client: Path
    server: Path


MEASURED = (
    Plan("one", 1, 1, 0, dual_stack=True),
    Plan("ten", 2, 10, 10, dual_stack=True),
    Plan("hundred", 3, 100, 100, dual_stack=True),
    Plan("thousands", 4, 5000, 5000, dual_stack=True),
    Plan("sticky", 5, 10, 20, affinity=True, dual_stack=True),
    Plan("wide", 6, 1, 40, external=True, dual_stack=True),
)
"""Services that calls are timed through, always there beside the others."""


def measured(name: str) -> Plan:
    return next(plan for plan in MEASURED if plan.name == name)


class Lab:
    """Namespaces and cgroups of one part. They go with the sandbox."""

    def __init__(self, sandbox: Sandbox, part: str) -> None:
        self.sandbox = sandbox
        self.part = part
        self.hooked = sandbox.new_cgroup(f"{part}/hooked")
        self.plain = sandbox.new_cgroup(f"{part}/plain")
        self.pods = self.new_pods("pods")
        self.loopback = self._new_loopback()

    def new_pods(self, name: str) -> Place:
        """Two namespaces joined by a veth pair; every endpoint address is the second one's."""
        client, server = (self._new_namespace(f"{name}-{side}") for side in ("client", "server"))
        _ip("link", "add", "eth0", "netns", client.name, "type", "veth", "peer", "eth0", "netns", server.name)
        for version, own, other, bits in VETH:
            for place, address in ((client, own), (server, other)):
                nodad = ["nodad"] if version == 6 else []
                _ip("-n", place.name, "addr", "add", f"{address}/{bits}", "dev", "eth0", *nodad)
        for place in (client, server):
            _ip("-n", place.name, "link", "set", "eth0", "up")
        gateway = {version: other for version, _, other, _ in VETH}
        # A packet to a Service that rules rewrite has to be routed somewhere first.
        for version, network in (*SERVED, (4, objects.SERVICE_NETWORK)):
            _ip("-n", client.name, f"-{version}", "route", "add", str(network), "via", gateway[version])
        _serve(server)
        return Place(client, server)

    def _new_loopback(self) -> Place:
        """One namespace that has every endpoint address itself."""
        alone = self._new_namespace("loopback")
        _serve(alone)
        return Place(alone, alone)

    def _new_namespace(self, name: str) -> Path:
        path = self.sandbox.new_namespace(f"{self.part}-{name}")
        namespaces.isolate(path)
        return path


def _serve(place: Path) -> None:
    for version, network in SERVED:
        _ip("-n", place.name, f"-{version}", "route", "add", "local", str(network), "dev", "lo")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise KubesockError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Programmed:
    """One set of maps with the measured Services in it, the programs loaded but not attached.

    Use as a context manager.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.services = 0
        self._bpffs = lab.sandbox.bpffs / lab.part
        self.datapath = Datapath(self._bpffs, lab.hooked, Capacities())
        self.datapath.open()
        self._snapshot = Snapshot("bench")
        self._desired = DesiredState(Settings("bench"))
        self._held = HeldState(self.datapath.capacities)
        self._first = True

    def __enter__(self) -> Self:
        try:
            self._put(MEASURED)
            self.datapath.store_node(0, (61000, 65535))
            self.datapath.load_programs()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.datapath.close()
        cleanup(self._bpffs)

    def grow(self, services: int, endpoints: int) -> None:
        """Add Services until there are that many beside the measured ones."""
        while self.services < services:
            step = min(SERVICES_PER_STEP, services - self.services)
            self._put(objects.plans(step, endpoints, first=objects.FIRST + self.services))
            self.services += step

    def _put(self, plans: Iterable[Plan]) -> None:
        wanted = list(plans)
        for found in decode_list("Service", objects.service_listing(wanted)).objects:
            self._snapshot.put("Service", found)
        for found in decode_list("EndpointSlice", objects.slice_listing(wanted)).objects:
            self._snapshot.put("EndpointSlice", found)
        change = self._desired.update(self._snapshot, self._snapshot.take_dirty())
        made = plan(self._held, change, complete=self._first)
        self._first = False
        if made.unfit or change.new_problems:
            raise KubesockError(f"the bench's own objects are refused: {made.unfit} {change.new_problems}")
        self.datapath.maps.apply(made.writes)

    def attach(self) -> None:
        """Hook the lab's cgroup, and see that the hooks answer."""
        self.datapath.attach()
        silent = silent_hooks(self.lab.hooked, self.datapath.hooks)
        if silent:
            raise KubesockError(f"hooks do not answer: {silent}")

    def program_infos(self) -> dict[Hook, bpf.ProgramInfo]:
        """What the kernel says of each attached program."""
        found = {}
        for state in self.datapath.link_states():
            fd = bpf.program_fd_by_id(state.program_id)
            try:
                found[state.hook] = bpf.program_info(fd)
            finally:
                os.close(fd)
        return found


def hooks_of_others(own: Programmed) -> int:
    """How many links attach programs of the same kinds to cgroups that are not ours."""
    kinds = frozenset(ATTACH_TYPE.values())
    ours = {state.link_id for state in own.datapath.link_states()}
    found, identifier = 0, 0
    while True:
        attributes = bytearray(struct.pack("=III", identifier, 0, 0))
        try:
            bpf.bpf(LINK_GET_NEXT_ID, attributes, "next link")
        except FileNotFoundError:
            return found
        identifier = struct.unpack_from("=I", attributes, 4)[0]
        with contextlib.suppress(FileNotFoundError):  # gone meanwhile
            fd = bpf.bpf(bpf.LINK_GET_FD_BY_ID, bytearray(struct.pack("=III", identifier, 0, 0)), "open link")
            try:
                info = bpf.link_info(fd)
            finally:
                os.close(fd)
            of_cgroup = info.type == LINK_TYPE_CGROUP and info.attach_type in kinds
            found += of_cgroup and info.id not in ours


class Switch:
    """The attached programs of a datapath, switched off and on as a whole. Use as a context manager."""

    def __init__(self, programmed: Programmed) -> None:
        programmed.attach()
        states = programmed.datapath.link_states()
        self._links = programmed.datapath.links
        self._programs = {s.hook: bpf.program_fd_by_id(s.program_id) for s in states}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._links.point_to(self._programs)
        for fd in self._programs.values():
            os.close(fd)

    def turn(self, on: bool) -> None:
        if on:
            self._links.point_to(self._programs)
            return
        for hook in self._programs:
            self._links.detach(hook)
