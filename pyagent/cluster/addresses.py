"""Which API server address is dialled next, shared by all connections of an agent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from pyagent.cluster.access import Credentials
from pyagent.cluster.server_address import (
    configured_address,
    dial_order,
    endpoints_of,
    is_api_server_slice,
    parse_host_port,
    recall,
    remedy,
    remember,
)
from pyagent.model.kube_objects import EndpointSlice
from pyagent.model.source_events import Changed, Deleted, Replaced, SourceEvent

log = logging.getLogger(__name__)


class Addresses:
    """Thread-safe. Stays with the address that answered last; moves on when it fails."""

    def __init__(self, flag: str | None, state_dir: Path | None, now: Callable[[], float]) -> None:
        """Args:
        flag: `--api-server HOST:PORT`.
        state_dir: where the endpoints of `default/kubernetes` are kept.
        now: monotonic seconds.

        Raises:
            UsageError: the flag is no HOST:PORT.
        """
        if flag:
            parse_host_port(flag)
        self._flag = flag
        self._state_dir = state_dir
        self._now = now
        self._lock = threading.Lock()
        self._remembered = recall(state_dir) if state_dir else []
        self._slices: dict[str, EndpointSlice] = {}
        self._preferred = ""
        self._in_cluster = False
        self._order: tuple[str, ...] = ()
        self._unreachable_since: float | None = None

    def next(self, credentials: Credentials) -> str:
        """HOST:PORT to dial."""
        configured = configured_address(credentials)
        with self._lock:
            self._in_cluster = credentials.in_cluster
            self._order = dial_order(self._flag, self._remembered, configured, credentials.in_cluster)
            if self._preferred not in self._order:
                self._preferred = self._order[0]
            return self._preferred

    def answered(self) -> None:
        """Some server answered, whatever it said."""
        with self._lock:
            self._unreachable_since = None

    def failed(self, address: str) -> str:
        """No answer from this address; returns the remedy to print, "" while there is none yet."""
        now = self._now()
        with self._lock:
            if self._unreachable_since is None:
                self._unreachable_since = now
            if address == self._preferred and address in self._order:
                at = self._order.index(address)
                self._preferred = self._order[(at + 1) % len(self._order)]
            return remedy(self._flag, self._in_cluster, now - self._unreachable_since)

    def observe(self, event: SourceEvent) -> None:
        """Keep the endpoints of `default/kubernetes` as they pass by."""
        match event:
            case Replaced(kind="EndpointSlice", objects=objects):
                found = (o for o in objects if isinstance(o, EndpointSlice) and is_api_server_slice(o))
                self._slices = {one.metadata.name: one for one in found}
            case Changed(kind="EndpointSlice", object=EndpointSlice() as one) if is_api_server_slice(one):
                self._slices[one.metadata.name] = one
            case Deleted(kind="EndpointSlice", namespace="default", name=name) if name in self._slices:
                del self._slices[name]
            case _:
                return
        endpoints = endpoints_of(list(self._slices.values()))
        if endpoints and endpoints != self._remembered:
            self._keep(endpoints)

    def _keep(self, endpoints: list[str]) -> None:
        with self._lock:
            self._remembered = endpoints
        if self._state_dir is None:
            return
        try:
            remember(self._state_dir, endpoints)
        except OSError as error:
            log.warning(
                "cannot keep the API server's endpoints in %s: %s; make the state directory writable",
                self._state_dir,
                error.strerror,
            )
