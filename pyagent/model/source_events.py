"""What sources say to the agent. A source never changes anything itself; it only emits these."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from pyagent.model.kube_objects import Kind, KubeObject


class Problem(msgspec.Struct, frozen=True):
    """Something in the input cannot be used. Reported once for the same object, field and reason."""

    kind: str
    namespace: str
    name: str
    field: str  # e.g. "spec.ports[3].port"; "" for the whole object
    reason: str  # an instruction where possible
    origin: str = ""  # file and line, or empty

    def __str__(self) -> str:
        subject = (
            f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
        )
        where = f" ({self.origin})" if self.origin else ""
        return f"{subject}: {self.field + ': ' if self.field else ''}{self.reason}{where}"


class Replaced(msgspec.Struct, frozen=True):
    """A whole list arrived: objects of this kind that are not in it are gone."""

    kind: Kind
    objects: list[KubeObject]
    problems: tuple[Problem, ...] = ()
    received: float = 0.0  # monotonic seconds when the last byte arrived


class Changed(msgspec.Struct, frozen=True):
    """One object was added or modified."""

    kind: Kind
    object: KubeObject
    received: float = 0.0


class Deleted(msgspec.Struct, frozen=True):
    """One object is gone."""

    kind: Kind
    namespace: str
    name: str
    received: float = 0.0


class Malformed(msgspec.Struct, frozen=True):
    """An object could not be decoded. It counts as absent, as if it had been deleted."""

    kind: str
    problem: Problem
    received: float = 0.0


class Mended(msgspec.Struct, frozen=True):
    """A problem told by `Malformed` holds no more. What became of the object is told on its own."""

    kind: str
    problem: Problem
    received: float = 0.0


class SourceState(msgspec.Struct, frozen=True):
    """How a source stands with one kind; emitted at every transition."""

    kind: Kind
    state: Literal["connecting", "listing", "watching", "disconnected"]
    error: str = ""  # cause and remedy while disconnected
    resource_version: str = ""


class Scoped(msgspec.Struct, frozen=True):
    """From now on all objects of this kind are followed, or only this node's own. Their list comes next."""

    kind: Kind
    everything: bool


SourceEvent = Replaced | Changed | Deleted | Malformed | Mended | SourceState | Scoped


class Emit(Protocol):
    """Where a source puts its events. Thread-safe, never blocks for long, never raises."""

    def __call__(self, event: SourceEvent, /) -> None: ...


class Source(Protocol):
    """Threads that follow the cluster's objects, or a directory of manifests."""

    def start(self, emit: Emit) -> None: ...

    def stop(self) -> None:
        """Stop all threads within two seconds; nothing is emitted afterwards."""
