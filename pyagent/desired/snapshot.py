"""The objects as they are now, in compact form, and which Services an update must look at again."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from sys import intern
from typing import Any

import msgspec

from pyagent.desired.endpoints import SliceEndpoints, read_slice
from pyagent.desired.names import MAX_LABEL, MAX_NAME, is_label, is_name
from pyagent.desired.narrow import ReadSlice
from pyagent.desired.nodes import NodeFacts, read_node
from pyagent.desired.problems import MAX_FINDINGS, Findings
from pyagent.desired.service_addresses import ServiceRanges, read_service_cidr
from pyagent.desired.slim import slim_service
from pyagent.model.address import Network
from pyagent.model.failures import sanitized
from pyagent.model.kube_objects import (
    CLUSTER_SCOPED,
    LABEL_HEADLESS,
    LABEL_SERVICE_NAME,
    STRUCT_OF,
    EndpointSlice,
    Kind,
    KubeObject,
    Metadata,
    Node,
    Service,
    ServiceCIDR,
)
from pyagent.model.source_events import Problem

ServiceName = tuple[str, str]
"""(namespace, name)."""

ObjectKey = tuple[str, str, str]
"""(kind, namespace, name)."""


MAX_OBJECTS = 500_000
"""Of a kind, as many as a list may have; more than that is a mistake, or meant to use up memory."""

MAX_UNUSABLE = 50_000
"""Objects whose problems are kept."""

_FULL = "more than {:,} objects; those added since are not served: delete some, then restart the agent"
_MORE = Problem("object", "", "", "", f"more than {MAX_UNUSABLE:,} cannot be used; the others are not named")


class Dirty(msgspec.Struct):
    """What changed since the last look."""

    services: dict[ServiceName, None]  # a set in the order of arrival
    nodes: set[str]
    service_cidrs: bool
    problems: dict[ObjectKey, tuple[Problem, ...]]  # as they are now; () when gone


class Snapshot:
    """Every object we follow, as the sources last told.

    Annotations and other fields that no rule reads are dropped on arrival, and a change of nothing but
    them marks nothing. Not thread-safe: one loop owns it.

    Args:
        node_name: this node's name; its Node object outlives its deletion, as in kube-proxy, so that a
            node on its way out keeps its zone.
    """

    def __init__(self, node_name: str) -> None:
        self.node_name = node_name
        self._services: dict[ServiceName, Service] = {}
        self._slices: dict[ServiceName, SliceEndpoints] = {}
        self._slices_of: dict[ServiceName, tuple[SliceEndpoints, ...]] = {}
        self._nodes: dict[str, NodeFacts] = {}
        self._service_cidrs: dict[str, ServiceRanges] = {}
        self._problems: dict[ObjectKey, tuple[Problem, ...]] = {}
        self._listed: set[Kind] = set()
        self._remembered: set[Kind] = set()
        self._dirty = Dirty({}, set(), False, {})

    @property
    def services(self) -> Mapping[ServiceName, Service]:
        return self._services

    @property
    def nodes(self) -> Mapping[str, NodeFacts]:
        """By name; the own one included."""
        return self._nodes

    @property
    def service_cidrs(self) -> Mapping[str, ServiceRanges]:
        """By the name of the ServiceCIDR object."""
        return self._service_cidrs

    def slices_of(self, service: ServiceName) -> tuple[SliceEndpoints, ...]:
        """A Service's slices, ordered by name."""
        return self._slices_of.get(service, ())

    @property
    def remembered(self) -> Set[Kind]:
        """Kinds of which nothing is known but what `remember` was told."""
        return self._remembered

    def remember(self, nodes: Iterable[NodeFacts], ranges: Iterable[Network]) -> None:
        """Use what an earlier agent knew of kinds that were not listed yet, until they are."""
        if "Node" not in self._listed:
            self._remembered.add("Node")
            for facts in nodes:
                self._nodes.setdefault(facts.name, facts)
            self._dirty.nodes.update(self._nodes)
        if "ServiceCIDR" not in self._listed:
            self._remembered.add("ServiceCIDR")
            for network in ranges:
                self._service_cidrs[str(network)] = ServiceRanges((network,))
            self._dirty.service_cidrs = True

    def replace(self, kind: Kind, objects: Iterable[KubeObject], problems: Sequence[Problem] = ()) -> None:
        """Take a whole list: what is not in it is gone.

        Args:
            problems: what the source could not decode; those objects are not in the list.
        """
        self._listed.add(kind)
        if kind == "Node" and kind in self._remembered and self._nodes.pop(self.node_name, None) is not None:
            self._dirty.nodes.add(self.node_name)  # never seen, so it does not outlive this
        self._remembered.discard(kind)
        listed: set[tuple[str, str]] = set()
        for obj in objects:
            listed.add((obj.metadata.namespace if kind not in CLUSTER_SCOPED else "", obj.metadata.name))
            self._take(kind, obj)
        for namespace, name in self._names(kind) - listed:
            self.delete(kind, namespace, name)
        for problem in problems:
            self._reproach(problem)

    def put(self, kind: Kind, obj: KubeObject) -> None:
        """Take one object that was added or modified; none that is new where there are too many."""
        held = self._held(kind)
        if len(held) >= MAX_OBJECTS:
            name = obj.metadata.name
            if (name if kind in CLUSTER_SCOPED else (obj.metadata.namespace, name)) not in held:
                self._note((kind, "", ""), (Problem(kind, "", "", "", _FULL.format(MAX_OBJECTS)),))
                return
        self._take(kind, obj)

    def _held(self, kind: str) -> Collection[object]:
        everything: dict[str, Collection[object]] = {
            "Service": self._services,
            "EndpointSlice": self._slices,
            "Node": self._nodes,
            "ServiceCIDR": self._service_cidrs,
        }
        return everything.get(kind, ())

    def _take(self, kind: Kind, obj: KubeObject) -> None:
        namespace = "" if kind in CLUSTER_SCOPED else obj.metadata.namespace
        reason = _why_no_object(kind, obj.metadata)
        if reason is not None:
            self.delete(kind, namespace, obj.metadata.name)
            field, text = reason
            shown = Findings(kind, _shown(namespace), _shown(obj.metadata.name))
            shown.add(field, text)
            self._note((kind, namespace, obj.metadata.name), shown.problems())
        elif isinstance(obj, Service):
            self._put_service((intern(namespace), obj.metadata.name), obj)
        elif isinstance(obj, EndpointSlice):
            self._put_slice((intern(namespace), obj.metadata.name), obj)
        elif isinstance(obj, Node):
            self._put_node(read_node(obj))
        elif isinstance(obj, ServiceCIDR):
            self._put_service_cidr(obj)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Forget one object; one that is unknown is none of our business."""
        own = self._nodes.get(name) if kind == "Node" and name == self.node_name else None
        self._note((kind, namespace, name), own.problems if own else ())
        if kind == "Service":
            if self._services.pop((namespace, name), None) is not None:
                self._dirty.services[namespace, name] = None
        elif kind == "EndpointSlice":
            self._remove_slice((namespace, name))
        elif kind == "Node":
            if own is None and self._nodes.pop(name, None) is not None:
                self._dirty.nodes.add(name)
        elif kind == "ServiceCIDR" and self._service_cidrs.pop(name, None) is not None:
            self._dirty.service_cidrs = True

    def reject(self, kind: str, problem: Problem) -> None:
        """An object could not be decoded: it counts as deleted, and the problem stands until it changes.

        Of a kind that is none of ours (a file, say), or without a name, there can be several problems; the
        latest are kept.
        """
        if kind in STRUCT_OF and problem.name:
            self.delete(kind, problem.namespace, problem.name)
        self._reproach(problem)

    def forgive(self, problem: Problem) -> None:
        """A problem told by `reject` holds no more."""
        key = (problem.kind, problem.namespace, problem.name)
        self._note(key, tuple(held for held in self._problems.get(key, ()) if held != problem))

    def take_dirty(self) -> Dirty:
        """What changed since the last call."""
        dirty, self._dirty = self._dirty, Dirty({}, set(), False, {})
        return dirty

    def everything(self) -> Dirty:
        """All there is, and what is marked now: brings a desired state of any age up to date."""
        return Dirty(
            dict.fromkeys(self._services) | self._dirty.services,
            set(self._nodes) | self._dirty.nodes,
            True,
            self._dirty.problems | self._problems,
        )

    def _put_service(self, name: ServiceName, service: Service) -> None:
        self._note(("Service", *name), ())
        old = self._services.get(name)
        slim = slim_service(service)
        if old != slim:
            self._services[name] = slim
            self._dirty.services[name] = None

    def _put_slice(self, name: ServiceName, obj: EndpointSlice) -> None:
        fresh = obj.read if isinstance(obj, ReadSlice) else self._read_slice(name, obj)
        if fresh is None:
            return
        owner = (name[0], fresh.service)
        self._note(("EndpointSlice", *name), fresh.problems)
        old = self._slices.get(name)
        if old == fresh:
            return
        if old is not None:
            self._remove_slice(name)
        self._slices[name] = fresh
        others = self._slices_of.get(owner)
        self._slices_of[owner] = _with(others, fresh) if others else (fresh,)
        self._dirty.services[owner] = None

    def _read_slice(self, name: ServiceName, obj: EndpointSlice) -> SliceEndpoints | None:
        """None if it is not to be served; it is gone then."""
        labels = obj.metadata.labels or {}
        service = labels.get(LABEL_SERVICE_NAME, "")
        if LABEL_HEADLESS in labels:
            self.delete("EndpointSlice", *name)
            return None
        if not is_name(service, MAX_LABEL):
            self.delete("EndpointSlice", *name)
            findings = Findings("EndpointSlice", *name)
            findings.add(f"metadata.labels[{LABEL_SERVICE_NAME}]", _label_reason(service))
            self._note(("EndpointSlice", *name), findings.problems())
            return None
        return read_slice(obj, intern(service), self.node_name)

    def _remove_slice(self, name: ServiceName) -> None:
        old = self._slices.pop(name, None)
        if old is None:
            return
        owner = (name[0], old.service)
        rest = tuple(piece for piece in self._slices_of[owner] if piece is not old)
        if rest:
            self._slices_of[owner] = rest
        else:
            del self._slices_of[owner]
        self._dirty.services[owner] = None

    def _put_node(self, facts: NodeFacts) -> None:
        self._note(("Node", "", facts.name), facts.problems)
        if self._nodes.get(facts.name) != facts:
            self._nodes[facts.name] = facts
            self._dirty.nodes.add(facts.name)

    def _put_service_cidr(self, obj: ServiceCIDR) -> None:
        ranges = read_service_cidr(obj)
        self._note(("ServiceCIDR", "", obj.metadata.name), ranges.problems)
        if self._service_cidrs.get(obj.metadata.name) != ranges:
            self._service_cidrs[obj.metadata.name] = ranges
            self._dirty.service_cidrs = True

    def _reproach(self, problem: Problem) -> None:
        key = (problem.kind, problem.namespace, problem.name)
        others = [known for known in self._problems.get(key, ()) if known != problem]
        self._note(key, (*others, problem)[-MAX_FINDINGS:])

    def _note(self, key: ObjectKey, problems: tuple[Problem, ...]) -> None:
        if not problems and not self._problems:
            return
        if problems and key not in self._problems and len(self._problems) >= MAX_UNUSABLE:
            key, problems = ("", "", ""), (_MORE,)
        if problems:
            self._problems[key] = problems
        elif self._problems.pop(key, None) is None:
            return
        self._dirty.problems[key] = problems
        if not problems and len(self._problems) < MAX_UNUSABLE and ("", "", "") in self._problems:
            self._note(("", "", ""), ())

    def _names(self, kind: Kind) -> set[tuple[str, str]]:
        """Objects of a kind that we hold, or hold a problem of."""
        held: Iterable[Any] = self._held(kind)
        known = {("", name) for name in held} if kind in CLUSTER_SCOPED else set(held)
        return known | {key[1:] for key in self._problems if key[0] == kind}


def _with(pieces: tuple[SliceEndpoints, ...], fresh: SliceEndpoints) -> tuple[SliceEndpoints, ...]:
    ordered = list(pieces)
    insort(ordered, fresh, key=lambda piece: piece.name)
    return tuple(ordered)


def _why_no_object(kind: Kind, metadata: Metadata) -> tuple[str, str] | None:
    """(field, reason) if the object cannot be told apart from others; names become keys and screen text."""
    longest = MAX_LABEL if kind == "Service" else MAX_NAME
    if not is_name(metadata.name, longest):
        return "metadata.name", f"not a name of at most {longest} letters, digits, '-' and '.'"
    if kind not in CLUSTER_SCOPED and not is_label(metadata.namespace):
        return "metadata.namespace", f"not a namespace of at most {MAX_LABEL} letters, digits and '-'"
    return None


def _label_reason(service: str) -> str:
    if not service:
        return "missing; without it the slice belongs to no Service"
    return f"not the name of a Service: {sanitized(service)}"


def _shown(name: str) -> str:
    return name if is_name(name) else sanitized(name)
