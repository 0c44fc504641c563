"""healthCheckNodePort: by these servers a load balancer learns which nodes have endpoints of a Service.

Answers as kube-proxy's (pkg/proxy/healthcheck, service_health.go). Other than there, a change of the node's
addresses is followed, and an address that cannot be bound does not close the Service's other ones.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping

import msgspec

from pyagent.agent.bind_address import BindAddress, bind
from pyagent.agent.http_exchange import JSON, Response
from pyagent.agent.http_server import HttpServer
from pyagent.model.address import Family, family_of, is_link_local
from pyagent.model.source_events import Problem

log = logging.getLogger(__name__)

ServiceName = tuple[str, str]
"""Namespace and name."""

ANY_ADDRESS = bytes(16)
MAX_PORTS = 2048
"""Listening sockets at most: file descriptors are bounded too, and the maps need theirs."""


class HealthCheckPorts:
    """The health check servers of all Services. `sync` is called by one thread."""

    def __init__(self, server: HttpServer, proxy_healthy: Callable[[], bool]) -> None:
        """
        Args:
            server: carries the listening sockets.
            proxy_healthy: no update waits for too long; asked at each request.
        """
        self._server = server
        self._proxy_healthy = proxy_healthy
        self._lock = threading.Lock()
        self._ready: dict[ServiceName, int] = {}
        self._open: dict[tuple[ServiceName, BindAddress], socket.socket] = {}
        self._failing: dict[tuple[ServiceName, BindAddress], str] = {}

    def sync(
        self,
        services: Mapping[ServiceName, tuple[int, int]],
        addresses: Iterable[bytes] | None = None,
    ) -> tuple[Problem, ...]:
        """Listen for just these Services; ports that failed before are tried again.

        Args:
            services: Service -> (port, distinct addresses of ready endpoints on this node).
            addresses: of this node, 16 bytes each, to listen on; None: all.

        Returns: the ports that cannot be listened on now, one problem for each Service.
        """
        with self._lock:
            self._ready = {service: ready for service, (_, ready) in services.items()}
        hosts = [ANY_ADDRESS] if addresses is None else sorted(filter(_can_bind, set(addresses)))
        wanted = {
            (service, BindAddress(host, port)): None
            for service, (port, _) in sorted(services.items())
            for host in hosts
        }
        for closing in [held for held in self._open if held not in wanted]:
            self._server.close(self._open.pop(closing))
        failing: dict[tuple[ServiceName, BindAddress], str] = {}
        for place in wanted:
            if place not in self._open and (error := self._listen(*place)):
                failing[place] = error
        self._report(failing)
        return tuple(self._problems(failing))

    @property
    def listening(self) -> tuple[tuple[ServiceName, BindAddress], ...]:
        """Who listens where."""
        return tuple(sorted(self._open))

    def _listen(self, service: ServiceName, where: BindAddress) -> str:
        """Why it cannot; "" if it does."""
        if len(self._open) >= MAX_PORTS:
            return f"more than {MAX_PORTS} health check sockets; restrict nodePortAddresses"
        try:
            listener = bind(where)
        except OSError as error:
            return f"{where}: {error.strerror}"
        self._open[service, where] = listener
        self._server.listen(listener, lambda _: self._answer(service))
        return ""

    def _answer(self, service: ServiceName) -> Response:
        with self._lock:
            ready = self._ready.get(service, 0)
        healthy = self._proxy_healthy()
        namespace, name = (msgspec.json.encode(text).decode() for text in service)
        body = (
            '{\n\t"service": {\n'
            f'\t\t"namespace": {namespace},\n\t\t"name": {name}\n\t}},\n'
            f'\t"localEndpoints": {ready},\n'
            f'\t"serviceProxyHealthy": {str(healthy).lower()}\n}}'
        )
        weight = ("X-Load-Balancing-Endpoint-Weight", str(ready))
        return Response(body, JSON, 200 if ready and healthy else 503, (weight,))

    def _report(self, failing: dict[tuple[ServiceName, BindAddress], str]) -> None:
        for place, error in failing.items():
            if self._failing.get(place) != error:
                (namespace, name), where = place
                log.warning(
                    "health check port %d of Service %s/%s not served, tried again at the next change: %s",
                    where.port,
                    namespace,
                    name,
                    error,
                )
        self._failing = failing

    @staticmethod
    def _problems(failing: dict[tuple[ServiceName, BindAddress], str]) -> Iterable[Problem]:
        reasons: dict[ServiceName, list[str]] = {}
        for (service, _), error in failing.items():
            reasons.setdefault(service, []).append(error)
        for (namespace, name), errors in reasons.items():
            reason = f"cannot listen on {', '.join(errors)}; free the port or choose another"
            yield Problem("Service", namespace, name, "spec.healthCheckNodePort", reason)


def _can_bind(address: bytes) -> bool:
    # IPv6 link-local addresses need an interface, and no load balancer asks there.
    return not (family_of(address) is Family.IPV6 and is_link_local(address))
