"""Where the benches run: network namespaces without a way out, two cgroups, and one set of kubesock's maps.

Sockets made by a process in `hooked` run the hooks, those made in `plain` do not; everything else about them
is the same.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

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
from pyagent.kernel.datapath import Datapath, cleanup
from pyagent.kernel.probe import silent_hooks
from pyagent.model.failures import KubesockError

SERVICES_PER_STEP = 5000
LOCAL_ROUTES = (
    (4, objects.POD_NETWORK),
    (4, objects.OUTSIDE_NETWORK),
    (6, objects.POD_NETWORK6),
)

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
        self.place = self.new_place("lanes")

    def new_place(self, name: str) -> Path:
        """A namespace in which every endpoint address is its own."""
        path = self.sandbox.new_namespace(f"{self.part}-{name}")
        namespaces.isolate(path)
        for version, network in LOCAL_ROUTES:
            _add_route(path, version, "local", str(network))
        # A packet to a Service that rules must rewrite has to be routed somewhere first, and come from a pod.
        _add_route(path, 4, str(objects.SERVICE_NETWORK), "src", str(objects.POD_NETWORK[1]))
        return path


def _add_route(place: Path, version: int, *words: str) -> None:
    subprocess.run(["ip", f"-{version}", "-n", place.name, "route", "add", *words, "dev", "lo"], check=True)


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
            self.datapath.store_node(0)
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
