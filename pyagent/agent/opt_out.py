"""Workloads that are left alone: from Pods, their cgroups and network namespaces to map writes.

A pod is known by its cgroup, which is there before its first process, and by its network namespace, which
is known once its status has addresses. Pods in the node's network namespace have the cgroup alone.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping

import msgspec

from pyagent.agent.clients import ClientsChanged
from pyagent.agent.facts import Facts
from pyagent.datapath.layout import CONFIG, WORKLOAD_KEY, WorkloadKind
from pyagent.datapath.writes import Put, Remove, Store, Write
from pyagent.desired.opt_out import OptedOut, Workloads
from pyagent.kernel.client_watch import ClientAddresses
from pyagent.kernel.map_set import MapSet
from pyagent.kernel.pod_cgroups import PodCgroups
from pyagent.model.failures import KubesockError
from pyagent.model.kube_objects import WORKLOAD_KINDS
from pyagent.model.source_events import Changed, Deleted, Malformed, Mended, Problem, Replaced

log = logging.getLogger(__name__)
OPTED_OUT = "opted_out"
_PRESENT = struct.pack("=I", 1)
_LEVELS = struct.Struct("=HH")


class PodCgroupsChanged(msgspec.Struct, frozen=True):
    """The cgroups of this node's pods as they are now."""

    cgroups: PodCgroups


WorkloadEvent = Replaced | Changed | Deleted | Malformed | Mended | PodCgroupsChanged | ClientsChanged


def entries(
    pods: Iterable[OptedOut], cgroups: Mapping[str, int], clients: Mapping[int, ClientAddresses]
) -> frozenset[bytes]:
    """The keys that the map should have.

    Args:
        cgroups: pod UID -> cgroup id.
        clients: network namespace cookie -> its addresses.
    """
    found: set[bytes] = set()
    owned: set[bytes] = set()
    for pod in pods:
        owned |= pod.addresses
        if pod.uid in cgroups:
            found.add(WORKLOAD_KEY.pack(cgroups[pod.uid], WorkloadKind.CGROUP, 0))
    for cookie, addresses in clients.items():
        if owned.intersection(addresses):
            found.add(WORKLOAD_KEY.pack(cookie, WorkloadKind.NETNS, 0))
    return frozenset(found)


class OptOut:
    """Used by the loop's thread only; it alone writes the map."""

    def __init__(self, node_name: str, maps: MapSet, facts: Facts) -> None:
        self._workloads = Workloads(node_name)
        self._maps = maps
        self._facts = facts
        self._held: frozenset[bytes] | None = None  # None: to be read
        self._levels: bytes | None = None  # None: to be written
        self._problems: frozenset[Problem] = frozenset()
        self._cgroups: PodCgroups | None = None
        self._clients: Mapping[int, ClientAddresses] | None = None
        self._listed: set[str] = set()
        self._stale = False
        self._failing = False

    def take(self, event: WorkloadEvent) -> None:
        """Remember what happened; events of other kinds are passed over."""
        match event:
            case PodCgroupsChanged():
                self._cgroups = event.cgroups
            case ClientsChanged():
                self._clients = event.clients
            case _ if event.kind not in WORKLOAD_KINDS:
                return
            case Replaced():
                self._workloads.replace(event.kind, event.objects, event.problems)
                self._listed.add(event.kind)
            case Changed():
                self._workloads.put(event.object)
            case Deleted():
                self._workloads.delete(event.kind, event.namespace, event.name)
            case Malformed():
                self._workloads.reject(event.problem)
            case Mended():
                self._workloads.forgive(event.problem)
        self._stale = True

    def write(self) -> None:
        """Make the map equal to what is known; what fails is tried again at the next call."""
        if not self._stale:
            return
        self._tell_problems()
        try:
            self._write()
        except (KubesockError, OSError) as error:
            self._held = self._levels = None
            if not self._failing:
                log.error("opted-out workloads are not written, tried again: %s", error)
            self._failing = True
        else:
            self._stale = self._failing = False

    def altered(self) -> list[str]:
        """Maps in which somebody else wrote over what `write` put there."""
        if self._held is None or self._stale:
            return []
        entries = dict.fromkeys(self._held, _PRESENT)
        found = ["opted_out"] if dict(self._maps.items(OPTED_OUT)) != entries else []
        at = CONFIG.offsets["opt_out_level"]
        levels = self._maps.window("config", CONFIG.size)[at : at + _LEVELS.size]
        return [*found, "config"] if self._levels not in (None, levels) else found

    def undo_others(self) -> list[str]:
        """Make good what is altered, as `write` does; the maps' names."""
        found = self.altered()
        if found:
            self._held, self._levels, self._stale = None, None, True
            self.write()
        return found

    def _read(self) -> frozenset[bytes]:
        entries = self._maps.items(OPTED_OUT)
        # A hook looks whether an entry is there, not at its value.
        self._maps.apply(Put(OPTED_OUT, key, _PRESENT) for key, value in entries if value != _PRESENT)
        return frozenset(key for key, _ in entries)

    def _write(self) -> None:
        if self._held is None:
            self._held = self._read()
        cgroups = self._cgroups or PodCgroups({}, 0)
        wanted = entries(self._workloads.opted_out, cgroups.ids, self._clients or {})
        if not self._complete:
            # What an earlier agent wrote stays until we know as much as it did.
            wanted |= self._held
        writes: list[Write] = [Put(OPTED_OUT, key, _PRESENT) for key in wanted - self._held]
        writes += [Remove(OPTED_OUT, key) for key in self._held - wanted]
        levels = _LEVELS.pack(cgroups.level, cgroups.level + 1 if cgroups.level else 0)
        if self._cgroups is not None and self._levels != levels:
            writes.append(Store("config", CONFIG.offsets["opt_out_level"], levels))
        self._maps.apply(writes)
        self._held = wanted
        if self._cgroups is not None:
            self._levels = levels

    @property
    def _complete(self) -> bool:
        heard = self._cgroups is not None and self._clients is not None
        return heard and self._listed >= WORKLOAD_KINDS

    def _tell_problems(self) -> None:
        before, self._problems = self._problems, self._workloads.problems
        self._facts.problems_changed(self._problems - before, before - self._problems)
