"""Objects with resource versions and a history, as etcd and the watch cache keep them."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Object = dict[str, Any]
Key = tuple[str, str]  # namespace, name


class Resource(NamedTuple):
    kind: str
    api_version: str
    path: str
    namespaced: bool


RESOURCES = (
    Resource("Service", "v1", "/api/v1/services", True),
    Resource("Node", "v1", "/api/v1/nodes", False),
    Resource("EndpointSlice", "discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1/endpointslices", True),
    Resource("ServiceCIDR", "networking.k8s.io/v1", "/apis/networking.k8s.io/v1/servicecidrs", False),
    Resource("Pod", "v1", "/api/v1/pods", True),
    Resource("Namespace", "v1", "/api/v1/namespaces", False),
    Resource("ConfigMap", "v1", "/api/v1/configmaps", True),
)
BY_KIND = {resource.kind: resource for resource in RESOURCES}


class Record(NamedTuple):
    """One change in the history."""

    version: int
    kind: str
    before: Object | None
    after: Object | None


@dataclass
class Store:
    version: int = 1000
    objects: dict[str, dict[Key, Object]] = field(default_factory=lambda: {r.kind: {} for r in RESOURCES})
    history: list[Record] = field(default_factory=list)
    compacted: int = 1000  # versions before this one are gone
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, obj: Object) -> str:
        with self.changed:
            kind = obj["kind"]
            new = copy.deepcopy(obj)
            meta = new.setdefault("metadata", {})
            if BY_KIND[kind].namespaced:
                meta.setdefault("namespace", "default")
            key = (str(meta.get("namespace", "")), str(meta["name"]))
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            new.setdefault("apiVersion", BY_KIND[kind].api_version)
            before = self.objects[kind].get(key)
            self.objects[kind][key] = new
            self.history.append(Record(self.version, kind, before, new))
            self.changed.notify_all()
            return str(self.version)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        with self.changed:
            before = self.objects[kind].pop((namespace, name))
            self.version += 1
            self.history.append(Record(self.version, kind, before, None))
            self.changed.notify_all()

    def compact(self) -> None:
        """Forget the history: a watch from an older version gets 410."""
        with self.changed:
            self.version += 1
            self.compacted = self.version
            self.history.clear()
            self.changed.notify_all()

    def live(self) -> None:
        """Something else in the cluster is written, as Leases are all the time."""
        with self.changed:
            self.version += 1

    def backup(self) -> tuple[int, dict[str, dict[Key, Object]]]:
        with self.changed:
            return self.version, copy.deepcopy(self.objects)

    def restore(self, backup: tuple[int, dict[str, dict[Key, Object]]]) -> None:
        """Go back to older data, as an etcd restored without a version bump does."""
        with self.changed:
            self.version, self.objects = backup[0], copy.deepcopy(backup[1])
            self.compacted = min(self.compacted, self.version)
            self.history.clear()
            self.changed.notify_all()


def selected(obj: Object | None, labels: str, fields: str) -> bool:
    """Whether the selectors that the agent uses accept the object."""
    if obj is None:
        return False
    held = obj.get("metadata", {}).get("labels") or {}
    for term in filter(None, labels.split(",")):
        if term.startswith("!"):
            if term[1:] in held:
                return False
        else:
            name, _, value = term.partition("=")
            if held.get(name) != value:
                return False
    for term in filter(None, fields.split(",")):
        name, _, value = term.partition("=")
        negated = name.endswith("!")
        at: Any = obj
        for part in name.rstrip("!").split("."):
            at = at.get(part, "") if isinstance(at, dict) else ""
        if (at == value) == negated:
            return False
    return True
