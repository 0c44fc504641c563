"""Facts that an operator must act on, as notices. Who finds a fact tells `Facts`, as ever; this listens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from pyagent.agent.facts import Facts
from pyagent.datapath.draft import Unfit
from pyagent.model.notice import Notice
from pyagent.model.service import ServicePortKey
from pyagent.model.source_events import Problem

NEARLY_FULL, ROOM_AGAIN = 0.8, 0.7
NAMED = 5
"""So many of those that found no room are named in the Node's Event; each Service has its own."""


class Announcer:
    """Where notices go: nowhere, until somebody takes them."""

    def __init__(self) -> None:
        self._takers: list[Callable[[Notice], None]] = []

    def send_to(self, put: Callable[[Notice], None]) -> None:
        """`put` never blocks and never raises."""
        self._takers.append(put)

    def __call__(self, notice: Notice) -> None:
        for put in self._takers:
            put(notice)


def starting(version: str) -> Notice:
    """As kube-proxy tells when it starts."""
    return Notice("Node", "Starting", "StartKubesock", f"kubesock {version} is starting", warning=False)


def cannot_listen(server: str, where: str) -> Notice:
    """As kube-proxy tells of its own two servers (cmd/kube-proxy/app/server.go), `health` and `metrics`."""
    reason = "FailedToStartProxierHealthcheck" if server == "health" else "FailedToStartMetricServer"
    text = f"{server} server cannot listen on {where}, tried again; free the port or give another address"
    return Notice("Node", reason, "StartKubesock", text)


def of_problem(problem: Problem, node_name: str) -> Notice | None:
    """The notice about something that cannot be used; None where no Service is to be mended."""
    if problem.kind != "Service":
        return None
    text = f"{problem.field}: {problem.reason}" if problem.field else problem.reason
    if problem.field == "spec.healthCheckNodePort" and problem.reason.startswith("cannot listen"):
        # kube-proxy's reason (pkg/proxy/healthcheck, service_health.go)
        reason, action, everywhere = "FailedToStartServiceHealthcheck", "Listening", False
        text = f"node {node_name}: {text}"
    else:
        reason, action, everywhere = _reason(problem), "Translate", True
    return Notice("Service", reason, action, text, problem.namespace, problem.name, everywhere=everywhere)


def _reason(problem: Problem) -> str:
    if "already belongs to Service" in problem.reason or "is also the ClusterIP of" in problem.reason:
        return "AddressConflict"
    if problem.field.startswith("spec.loadBalancerSourceRanges"):
        return "UnusableSourceRange"
    if "is not served" in problem.reason and problem.field.startswith(("spec.externalIPs", "status.")):
        return "ExternalAddressRefused"
    return "InvalidField"


def of_unfit(found: Iterable[Unfit]) -> list[Notice]:
    """What found no room: a notice for each map, and one for each Service."""
    by_map: dict[str, dict[str, None]] = {}
    services: dict[tuple[str, str, str], None] = {}
    for unfit in found:
        subject = unfit.subject
        if isinstance(subject, ServicePortKey):
            services[subject.namespace, subject.name, unfit.map] = None
            by_map.setdefault(unfit.map, {})[f"{subject.namespace}/{subject.name}"] = None
        else:
            by_map.setdefault(unfit.map, {})
    notices = []
    for name, unserved in sorted(by_map.items()):
        first = list(unserved)[:NAMED]
        more = f" and {len(unserved) - NAMED} more" if len(unserved) > NAMED else ""
        who = f"; not served in full: {', '.join(first)}{more}" if first else ""
        notices.append(Notice("Node", "MapFull", "Translate", f"map {name} has no room{who}"))
    for namespace, service, name in services:
        text = f"not served in full: map {name} has no room; delete Services or split the cluster"
        notices.append(Notice("Service", "MapFull", "Translate", text, namespace, service, everywhere=True))
    return notices


class MapRoom:
    """Tells once when a map fills up, and again only after it had room in between.

    Args:
        usage: map -> (entries, capacity).
    """

    def __init__(
        self, tell: Callable[[Notice], None], usage: Callable[[], Mapping[str, tuple[int, int]]]
    ) -> None:
        self._tell = tell
        self._usage = usage
        self._full: set[str] = set()

    def __call__(self, *_what_changed: object) -> None:
        """After each plan; see `inbox.Applied`."""
        for name, (used, capacity) in self._usage().items():
            if used >= NEARLY_FULL * capacity and name not in self._full:
                self._full.add(name)
                text = f"map {name} is more than {NEARLY_FULL:.0%} full of {capacity} entries"
                self._tell(Notice("Node", "MapNearlyFull", "Translate", text))
            elif used < ROOM_AGAIN * capacity:
                self._full.discard(name)


class AnnouncingFacts(Facts):
    """`Facts` that also tell notices."""

    def __init__(self, node_name: str, **more: Any) -> None:
        """Args: more: those of `Facts`."""
        super().__init__(**more)
        self.tell = Announcer()
        self._node_name = node_name
        self._attached: dict[str, bool] = {}
        self._had_no_room: frozenset[Unfit] = frozenset()

    def problems_changed(self, new: Iterable[Problem], cleared: Iterable[Problem]) -> None:
        fresh = tuple(new)
        super().problems_changed(fresh, cleared)
        for problem in fresh:
            notice = of_problem(problem, self._node_name)
            if notice is not None:
                self.tell(notice)

    def repaired(self, what: str) -> None:
        super().repaired(what)
        self.tell(Notice("Node", "Repaired", "Repair", f"{what}; find out who does that"))

    def hooks(self, states: Iterable[tuple[str, bool]]) -> None:
        fresh = dict(states)
        super().hooks(fresh.items())
        lost = [name for name, attached in fresh.items() if self._attached.get(name) and not attached]
        if lost:
            text = f"{', '.join(lost)}: detached and cannot be attached again; see the agent's log"
            self.tell(Notice("Node", "HookDetached", "Repair", text))
        self._attached = fresh

    def unfit(self, found: Iterable[Unfit]) -> None:
        now = frozenset(found)
        super().unfit(now)
        news = sorted(now - self._had_no_room, key=str)
        self._had_no_room = now
        for notice in of_unfit(news):
            self.tell(notice)

    def sockets_kept(self, reasons: Collection[str]) -> None:
        super().sockets_kept(reasons)
        for reason in dict.fromkeys(reasons):
            text = f"UDP sockets stay on backends that are gone: {reason}"
            self.tell(Notice("Node", "StaleSockets", "EndSockets", text))
