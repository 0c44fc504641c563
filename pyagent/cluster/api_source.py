"""Objects from the Kubernetes API: a thread for each kind."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from pyagent.cluster.access import Access, find_kubeconfig, load_credentials
from pyagent.cluster.addresses import Addresses
from pyagent.cluster.connection import Connection
from pyagent.cluster.decode import Narrow, as_it_is
from pyagent.cluster.event_recorder import EventRecorder
from pyagent.cluster.node_reflector import NodeReflector
from pyagent.cluster.node_taint import NodeTaint
from pyagent.cluster.reflector import Reflector
from pyagent.cluster.resources import (
    ENDPOINT_SLICES,
    NAMESPACES,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
    nodes,
    pods_of,
)
from pyagent.cluster.server_address import configured_address
from pyagent.cluster.surroundings import DEFAULT_TIMING, Figures, Surroundings, Timing
from pyagent.model.kube_objects import Kind
from pyagent.model.source_events import Emit, SourceEvent

STOP_SECONDS = 2.0
NodeChoice = Literal["all", "own", "auto"]


class Wanted(NamedTuple):
    """What a node follows besides Services, EndpointSlices and ServiceCIDRs.

    Attributes:
        node_name: this node's.
        nodes: all of them, its own, or all while they are few.
        workloads: also its Pods, and all Namespaces.
    """

    node_name: str
    nodes: NodeChoice = "own"
    workloads: bool = False


class ApiSource:
    """A `Source`. Make one with `open_api_source`."""

    def __init__(
        self,
        access: Access,
        addresses: Addresses,
        wanted: Wanted,
        surroundings: Surroundings | None = None,
        timing: Timing = DEFAULT_TIMING,
        had_objects: bool = False,
        narrow: Narrow = as_it_is,
    ) -> None:
        """Args:
        had_objects, narrow: Services are programmed from an earlier run; see `Reflector`.
        """
        self._access = access
        self._addresses = addresses
        self._around = surroundings or Surroundings()
        self._timing = timing
        self._had_objects = had_objects
        self._narrow = narrow
        self._wanted = wanted
        self._emit: Emit | None = None
        self._gate = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._reflectors: dict[Kind, Reflector] = {}

    def start(self, emit: Emit) -> None:
        self._emit = emit
        self._follow(SERVICES)
        self._follow(ENDPOINT_SLICES)
        self._follow(SERVICE_CIDRS)
        if self._wanted.nodes == "auto":
            self._run(NodeReflector(self._wanted.node_name, *self._means(), self._had_objects))
        else:
            self._follow(nodes(self._wanted.node_name if self._wanted.nodes == "own" else None))
        if self._wanted.workloads:
            self._follow(NAMESPACES)
            self._follow(pods_of(self._wanted.node_name))

    def _follow(self, resource: Resource) -> None:
        self._run(Reflector(resource, *self._means(), self._had_objects, self._narrow))

    def _means(self) -> tuple[Connection, Emit, Surroundings, Timing]:
        return Connection(self._access, self._addresses), self._pass_on, self._around, self._timing

    def _run(self, reflector: Reflector) -> None:
        resource = reflector.resource
        self._reflectors[resource.kind] = reflector
        thread = threading.Thread(target=reflector.run, name=f"watch {resource.plural}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        self._around.stop.set()
        with self._gate:
            self._emit = None
        for reflector in self._reflectors.values():
            reflector.cut()
        until = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            # A thread that still waits for a name server is left behind: it is a daemon and can say nothing.
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def server(self) -> str:
        """HOST:PORT that the credentials name: in a pod a ClusterIP, else what nobody may take over."""
        credentials, _ = self._access.current()
        return "" if credentials.in_cluster else configured_address(credentials)

    def event_recorder(self) -> EventRecorder:
        """Tells the same cluster, over a connection of its own."""
        return EventRecorder(Connection(self._access, self._addresses), self._wanted.node_name)

    def node_taint(self, key: str) -> NodeTaint:
        """A taint of this node, over a connection of its own."""
        return NodeTaint(Connection(self._access, self._addresses), self._wanted.node_name, key)

    def figures(self) -> dict[Kind, Figures]:
        """What each kind cost so far."""
        return {kind: reflector.figures for kind, reflector in self._reflectors.items()}

    def _pass_on(self, event: SourceEvent) -> None:
        with self._gate:
            if self._emit is not None:
                self._emit(event)
        self._addresses.observe(event)


def open_api_source(
    kubeconfig: str | None,
    wanted: Wanted,
    api_server: str | None = None,
    state_dir: Path | None = None,
    had_objects: bool = False,
    narrow: Narrow = as_it_is,
) -> ApiSource:
    """A source for the cluster that the flags and the environment name.

    Args:
        kubeconfig: `--kubeconfig`; else the pod's service account, else `$KUBECONFIG`.
        api_server: `--api-server HOST:PORT`.
        state_dir: keeps the API server's endpoints over restarts.
        had_objects: Services are programmed from an earlier run.
        narrow: applied to the objects of lists.

    Raises:
        UsageError: there are no usable credentials.
        ClusterUnreachable: a credential plugin failed.
    """
    path = find_kubeconfig(kubeconfig, os.environ)
    access = Access(partial(load_credentials, path))
    addresses = Addresses(api_server, state_dir, time.monotonic)
    access.current()
    return ApiSource(access, addresses, wanted, had_objects=had_objects, narrow=narrow)
