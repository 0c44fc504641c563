"""Whose connections are left alone: Pods that say so, or whose Namespace does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pyagent.desired.problems import Findings
from pyagent.model.address import parse_address
from pyagent.model.failures import InvalidField, sanitized
from pyagent.model.kube_objects import (
    ANNOTATION_MIRROR,
    TRANSLATE,
    WORKLOAD_KINDS,
    Kind,
    KubeObject,
    Metadata,
    Namespace,
    Pod,
)
from pyagent.model.source_events import Problem

_FINISHED = ("Succeeded", "Failed")


class PodFacts(msgspec.Struct, frozen=True, gc=False):
    """What we keep of a Pod."""

    namespace: str
    name: str
    uid: str = ""  # as in the names of its cgroups
    translate: bool | None = None  # None: as its Namespace says
    addresses: tuple[bytes, ...] = ()  # 16 bytes each; none of a Pod in the node's network namespace
    problems: tuple[Problem, ...] = ()


class OptedOut(msgspec.Struct, frozen=True):
    """A Pod whose connections are left alone.

    Attributes:
        addresses: those that no other Pod has, so that they name its network namespace; empty for a Pod in
            the node's, which it shares with others.
    """

    namespace: str
    name: str
    uid: str
    addresses: frozenset[bytes] = frozenset()


def opted_out_pods(pods: Iterable[PodFacts], namespaces: Mapping[str, bool | None]) -> frozenset[OptedOut]:
    """The Pods that are left alone.

    Args:
        namespaces: name -> what the Namespace says; one that is missing says nothing, so its Pods are
            translated unless they say otherwise.
    """
    left_alone: list[PodFacts] = []
    translated: set[bytes] = set()
    for pod in pods:
        says = pod.translate if pod.translate is not None else namespaces.get(pod.namespace)
        if says is False:
            left_alone.append(pod)
        else:
            translated.update(pod.addresses)
    return frozenset(
        OptedOut(pod.namespace, pod.name, pod.uid, frozenset(pod.addresses) - translated)
        for pod in left_alone
    )


class Workloads:
    """The Pods of this node and all Namespaces, as the sources last told. One loop owns it.

    Args:
        node_name: Pods of other nodes are passed over; one that names no node counts as ours.
    """

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name
        self._pods: dict[tuple[str, str], PodFacts] = {}
        self._namespaces: dict[str, bool | None] = {}
        self._problems: dict[tuple[str, str, str], tuple[Problem, ...]] = {}

    @property
    def opted_out(self) -> frozenset[OptedOut]:
        return opted_out_pods(self._pods.values(), self._namespaces)

    @property
    def problems(self) -> frozenset[Problem]:
        """What in these objects cannot be used now."""
        return frozenset(problem for found in self._problems.values() for problem in found)

    def replace(self, kind: Kind, objects: Iterable[KubeObject], problems: Sequence[Problem] = ()) -> None:
        """Take a whole list: what is not in it is gone."""
        if kind == "Pod":
            self._pods.clear()
        elif kind == "Namespace":
            self._namespaces.clear()
        self._problems = {key: found for key, found in self._problems.items() if key[0] != kind}
        for obj in objects:
            self.put(obj)
        for problem in problems:
            self.reject(problem)

    def put(self, obj: KubeObject) -> None:
        """Take one object that was added or modified."""
        match obj:
            case Pod():
                self._put_pod(obj)
            case Namespace():
                name = obj.metadata.name
                findings = Findings("Namespace", "", name)
                self._namespaces[name] = _says(obj.metadata, findings)
                self._note("Namespace", "", name, findings.problems())

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Forget one object."""
        self._note(kind, namespace, name, ())
        if kind == "Pod":
            self._pods.pop((namespace, name), None)
        elif kind == "Namespace":
            self._namespaces.pop(name, None)

    def reject(self, problem: Problem) -> None:
        """An object could not be decoded: it counts as deleted."""
        if problem.kind in WORKLOAD_KINDS:
            self.delete(problem.kind, problem.namespace, problem.name)
            self._note(problem.kind, problem.namespace, problem.name, (problem,))

    def forgive(self, problem: Problem) -> None:
        """Something that could not be decoded is mended or gone."""
        key = (problem.kind, problem.namespace, problem.name)
        self._note(*key, tuple(held for held in self._problems.get(key, ()) if held != problem))

    def _put_pod(self, pod: Pod) -> None:
        facts = read_pod(pod)
        key = (facts.namespace, facts.name)
        elsewhere = pod.spec is not None and pod.spec.nodeName not in (None, "", self._node_name)
        if elsewhere or (pod.status is not None and pod.status.phase in _FINISHED):
            # A finished Pod keeps its status, but its addresses may be another's by now.
            self.delete("Pod", *key)
            return
        self._pods[key] = facts
        self._note("Pod", *key, facts.problems)

    def _note(self, kind: str, namespace: str, name: str, problems: tuple[Problem, ...]) -> None:
        if problems:
            self._problems[kind, namespace, name] = problems
        else:
            self._problems.pop((kind, namespace, name), None)


def read_pod(pod: Pod) -> PodFacts:
    """What a Pod says about itself."""
    metadata, status = pod.metadata, pod.status
    findings = Findings("Pod", metadata.namespace, metadata.name)
    texts: list[tuple[str, str]] = []
    if status is not None and not (pod.spec and pod.spec.hostNetwork):
        texts += [(f"status.podIPs[{i}].ip", entry.ip) for i, entry in enumerate(status.podIPs or ())]
        if status.podIP and not status.podIPs:
            texts.append(("status.podIP", status.podIP))
    addresses: dict[bytes, None] = {}
    for field, text in texts:
        try:
            addresses[parse_address(text)] = None
        except InvalidField as error:
            findings.add(field, error)
    mirrored = (metadata.annotations or {}).get(ANNOTATION_MIRROR, "")
    return PodFacts(
        metadata.namespace,
        metadata.name,
        mirrored or metadata.uid,
        _says(metadata, findings),
        tuple(addresses),
        findings.problems(),
    )


def _says(metadata: Metadata, findings: Findings) -> bool | None:
    """What an object says; its annotation wins over its label."""
    for place, texts in (("annotations", metadata.annotations), ("labels", metadata.labels)):
        text = (texts or {}).get(TRANSLATE)
        if text in ("true", "false"):
            return text == "true"
        if text is not None:
            findings.add(f"metadata.{place}[{TRANSLATE}]", f'want "true" or "false", got {sanitized(text)}')
    return None
