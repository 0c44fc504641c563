"""Objects as the API server has them, and a recorder of what a source emits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pyagent.model.source_events import Changed, Deleted, Malformed, Replaced, SourceEvent, SourceState

E = TypeVar("E", bound=SourceEvent)
PATIENCE = 20.0  # seconds until a test gives up; nothing is asserted about how long things take


def service(name: str, namespace: str = "shop", ip: str = "10.96.0.10", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}], **spec},
    }


def endpoint_slice(name: str, service_name: str, *addresses: str, namespace: str = "shop") -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 6443}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
    }


def node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


class Recorder:
    """An `Emit` that remembers, replays into a picture of the cluster, and can be waited for."""

    def __init__(self) -> None:
        self.events: list[SourceEvent] = []
        self._changed = threading.Condition()
        self._held: dict[str, dict[tuple[str, str], Any]] = {}

    def __call__(self, event: SourceEvent, /) -> None:
        with self._changed:
            self.events.append(event)
            match event:
                case Replaced():
                    self._held[event.kind] = {
                        (o.metadata.namespace, o.metadata.name): o for o in event.objects
                    }
                case Changed():
                    meta = event.object.metadata
                    self._held.setdefault(event.kind, {})[(meta.namespace, meta.name)] = event.object
                case Deleted():
                    self._held.setdefault(event.kind, {}).pop((event.namespace, event.name), None)
                case Malformed():
                    problem = event.problem
                    self._held.setdefault(event.kind, {}).pop((problem.namespace, problem.name), None)
            self._changed.notify_all()

    def names(self, kind: str = "Service") -> set[str]:
        """What somebody who followed all events holds now."""
        with self._changed:
            return {name for _, name in self._held.get(kind, {})}

    def held(self, kind: str, namespace: str, name: str) -> Any:
        with self._changed:
            return self._held.get(kind, {}).get((namespace, name))

    def of(self, event_type: type[E], kind: str = "Service") -> list[E]:
        with self._changed:
            return [e for e in self.events if isinstance(e, event_type) and e.kind == kind]

    def states(self, kind: str = "Service") -> list[SourceState]:
        return self.of(SourceState, kind)

    def errors(self, kind: str = "Service") -> list[str]:
        return [state.error for state in self.states(kind) if state.state == "disconnected"]

    def wait(self, until: Callable[[], bool], what: str = "the event") -> None:
        deadline = time.monotonic() + PATIENCE
        while not until():
            with self._changed:
                self._changed.wait(0.02)
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come; events: {self.events[-8:]}")

    def wait_for_names(self, names: set[str], kind: str = "Service") -> None:
        self.wait(lambda: self.names(kind) == names, f"{kind} {names}, have {self.names(kind)}")

    def wait_for_watching(self, kind: str = "Service", times: int = 1) -> None:
        self.wait(lambda: sum(s.state == "watching" for s in self.states(kind)) >= times, "a watch")
