"""The last changes of the desired state that were carried out, for whoever asks what happened."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping

import msgspec

from pyagent.agent.inbox import Applied
from pyagent.desired.snapshot import ServiceName, Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.address import format_endpoint
from pyagent.model.difference import difference
from pyagent.model.kube_objects import LABEL_SERVICE_NAME, EndpointSlice, KubeObject, Service
from pyagent.model.service import Backend, BackendSet, DesiredChange, ServicePort, ServicePortKey
from pyagent.model.source_events import Changed, Emit, SourceEvent
from pyagent.view.explain_facts import view_of

KEPT = 1000
SHOWN = 8
"""Of a list of backends in one entry; the rest is counted."""

MANY = 100
"""A plan that changes more service ports than this is one entry."""

MAX_VERSIONS = 4096


class Entry(msgspec.Struct, frozen=True, rename="camel"):
    """One service port changed. `time` is seconds since the epoch, when the maps had it."""

    time: float
    service: str  # namespace/name:port/PROTOCOL; "" for a plan of very many
    family: str
    what: str
    resource_version: str = ""  # of the newest object of the Service that had arrived, if sources tell


class Versions:
    """The resourceVersion of the newest object that arrived for each Service. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: OrderedDict[ServiceName, str] = OrderedDict()

    def noted(self, emit: Emit) -> Emit:
        """A place for events that notes their versions and hands them on to `emit`."""

        def hand_on(event: SourceEvent, /) -> None:
            if isinstance(event, Changed) and event.object.metadata.resourceVersion:
                self._note(event.object)
            emit(event)

        return hand_on

    def newest(self, service: ServiceName) -> str:
        """Empty if none arrived since the first lists, or it was long ago."""
        with self._lock:
            return self._newest.get(service, "")

    def _note(self, obj: KubeObject) -> None:
        metadata = obj.metadata
        name = metadata.name
        if isinstance(obj, EndpointSlice):
            name = (metadata.labels or {}).get(LABEL_SERVICE_NAME, "")
        elif not isinstance(obj, Service):
            return
        with self._lock:
            self._newest[metadata.namespace, name] = metadata.resourceVersion
            self._newest.move_to_end((metadata.namespace, name))
            if len(self._newest) > MAX_VERSIONS:
                self._newest.popitem(last=False)


class Journal:
    """Follows the plans; see `loop.Applied`. `entries` may be called from any thread.

    Args:
        version: resourceVersion of the newest object of a Service.
        tell: hears of each entry.
    """

    def __init__(
        self,
        version: Callable[[ServiceName], str],
        clock: Callable[[], float] = time.time,
        kept: int = KEPT,
        tell: Callable[[Entry], None] = lambda _entry: None,
    ) -> None:
        self._version = version
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=kept)
        self._ports: dict[ServicePortKey, ServicePort] = {}

    def __call__(self, change: DesiredChange, _desired: DesiredState, _snapshot: Snapshot) -> None:
        now = self._clock()
        fresh = list(self._entries_of(change.service_ports, now))
        with self._lock:
            self._entries.extend(fresh)
        for entry in fresh:
            self._tell(entry)

    def entries(self) -> list[Entry]:
        """Oldest first."""
        with self._lock:
            return list(self._entries)

    def _entries_of(
        self, changed: Mapping[ServicePortKey, ServicePort | None], now: float
    ) -> Iterator[Entry]:
        if len(changed) > MANY:
            gone = sum(1 for port in changed.values() if port is None)
            yield Entry(now, "", "", f"{len(changed) - gone} service ports came or changed, {gone} went")
        for key, port in changed.items():
            before = self._ports.pop(key, None)
            if port is not None:
                self._ports[key] = port
            if len(changed) > MANY:
                continue
            what = described(before, port)
            if what:
                version = self._version((key.namespace, key.name))
                yield Entry(now, str(key), key.family.label, what, version)


def in_turn(*followers: Applied) -> Applied:
    """All of them, one after the other."""

    def follow(change: DesiredChange, desired: DesiredState, snapshot: Snapshot, /) -> None:
        for follower in followers:
            follower(change, desired, snapshot)

    return follow


def described(before: ServicePort | None, after: ServicePort | None) -> str:
    """What became different, in one line; "" if nothing that clients could tell."""
    if after is None:
        return "gone" if before is not None else ""
    if before is None:
        return "new: " + "; ".join(_set_text(one) for one in after.sets)
    parts = [_difference(one, {s.key: s for s in before.sets}.get(one.key)) for one in after.sets]
    dialled = ({str(f) for f, _ in before.frontends}, {str(f) for f, _ in after.frontends})
    parts.append(_texts("frontends", dialled[1] - dialled[0], dialled[0] - dialled[1]))
    if before.affinity_seconds != after.affinity_seconds:
        parts.append(f"session affinity {before.affinity_seconds} s, now {after.affinity_seconds} s")
    if (before.policy, before.source_ranges) != (after.policy, after.source_ranges):
        parts.append("policy or source ranges changed")
    if before.service_type is not after.service_type:
        parts.append(f"type {before.service_type.label}, now {after.service_type.label}")
    return "; ".join(part for part in parts if part)


def _set_text(one: BackendSet) -> str:
    return f"{view_of(one.key)} has {_some([_endpoint(b) for b in one.backends]) or 'no backends'}"


def _difference(after: BackendSet, before: BackendSet | None) -> str:
    if before is None:
        return _set_text(after)
    found = difference(before.backends, after.backends)
    old = {(b.address, b.port): b for b in found.gone}
    new = {(b.address, b.port): b for b in found.came}
    parts = [
        _texts(
            view_of(after.key),
            {_endpoint(b) for identity, b in new.items() if identity not in old},
            {_endpoint(b) for identity, b in old.items() if identity not in new},
        )
    ]
    moved = sum(1 for identity, b in new.items() if identity in old and old[identity].state != b.state)
    if moved:
        parts.append(f"{view_of(after.key)}: {moved} changed their state")
    if not after.backends and before.when_empty is not after.when_empty:
        parts.append(f"{view_of(after.key)} answers {after.when_empty.label}")
    return "; ".join(part for part in parts if part)


def _texts(what: str, added: set[str], removed: set[str]) -> str:
    signed = [f"+{text}" for text in sorted(added)] + [f"-{text}" for text in sorted(removed)]
    return f"{what} {_some(signed)}" if signed else ""


def _endpoint(backend: Backend) -> str:
    return format_endpoint(backend.address, backend.port)


def _some(texts: list[str]) -> str:
    rest = len(texts) - SHOWN
    return " ".join(texts[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
