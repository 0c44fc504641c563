"""The journal: what changed of which service port, told from one plan to the next."""

from __future__ import annotations

from pyagent.agent.journal import MANY, MAX_VERSIONS, SHOWN, Journal, Versions, in_turn
from pyagent.model.kube_objects import KubeObject
from pyagent.model.service import DesiredChange
from pyagent.model.source_events import Changed, Deleted, SourceEvent
from tests.unit.desired.objects import (
    Cluster,
    endpoint_slice,
    kind_of,
    node,
    ready,
    service,
    terminating,
    unready,
)


class Followed:
    """A cluster whose plans a journal follows."""

    def __init__(self, kept: int = 1000) -> None:
        self.cluster = Cluster()
        self.versions = Versions()
        self.time = 0.0
        self.journal = Journal(self.versions.newest, clock=lambda: self.time, kept=kept)
        self.passed: list[SourceEvent] = []
        self.emit = self.versions.noted(self.passed.append)

    def put(self, *objects: KubeObject) -> list[str]:
        """What the journal has of it."""
        for obj in objects:
            self.emit(Changed(kind_of(obj), obj))
        return self._follow(self.cluster.put(*objects))

    def delete(self, obj: KubeObject) -> list[str]:
        return self._follow(self.cluster.delete(obj))

    def _follow(self, change: DesiredChange) -> list[str]:
        before = len(self.journal.entries())
        self.time += 1
        self.journal(change, self.cluster.state, self.cluster.snapshot)
        return [entry.what for entry in self.journal.entries()[before:]]


def test_a_service_comes_changes_and_goes() -> None:
    followed = Followed()
    web = service()
    assert followed.put(web) == ["new: Cluster has no backends"]
    assert followed.put(endpoint_slice(ready("10.1.0.1"), ready("10.1.0.2"))) == [
        "Cluster +10.1.0.1:8080 +10.1.0.2:8080"
    ]
    assert followed.put(endpoint_slice(ready("10.1.0.2"), ready("10.1.0.3"))) == [
        "Cluster +10.1.0.3:8080 -10.1.0.1:8080"
    ]
    assert followed.put(endpoint_slice(ready("10.1.0.2"), unready("10.1.0.3"))) == ["Cluster -10.1.0.3:8080"]
    assert followed.put(endpoint_slice(terminating("10.1.0.2"))) == ["Cluster: 1 changed their state"]
    assert followed.delete(web) == ["gone"]
    times = [entry.time for entry in followed.journal.entries()]
    assert times == sorted(times)


def test_policies_affinity_type_and_frontends_are_told() -> None:
    followed = Followed()
    followed.put(service(), endpoint_slice(ready("10.1.0.1")))
    assert followed.put(service(sessionAffinity="ClientIP")) == ["session affinity 0 s, now 10800 s"]
    (what,) = followed.put(service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}]))
    assert "frontends +node:30080/TCP" in what
    assert "type ClusterIP, now NodePort" in what
    (what,) = followed.put(service(internalTrafficPolicy="Local"))
    assert "Local has no backends" in what
    assert "policy or source ranges changed" in what


def test_what_changes_nothing_is_no_entry() -> None:
    followed = Followed()
    followed.put(service(), endpoint_slice(ready("10.1.0.1")))
    assert followed.put(service(), endpoint_slice(ready("10.1.0.1"), unready("10.1.0.9"))) == []
    assert followed.put(node("node-z", "192.168.0.9")) == []


def test_an_entry_carries_the_newest_version_of_its_service() -> None:
    followed = Followed()
    followed.put(service())
    followed.put(endpoint_slice(ready("10.1.0.1"), resourceVersion="41"))
    followed.put(endpoint_slice(ready("10.1.0.2"), resourceVersion="42"))
    assert [entry.resource_version for entry in followed.journal.entries()] == ["", "41", "42"]


def test_a_plan_of_very_many_is_one_entry_and_what_follows_is_told_singly() -> None:
    followed = Followed()
    services = [service(f"s-{i}", f"10.96.1.{i}") for i in range(MANY + 1)]
    assert followed.put(*services) == [f"{MANY + 1} service ports came or changed, 0 went"]
    assert followed.put(endpoint_slice(ready("10.1.0.1"), service="s-7")) == ["Cluster +10.1.0.1:8080"]


def test_only_the_latest_are_kept_and_long_lists_are_counted() -> None:
    followed = Followed(kept=3)
    followed.put(service())
    for count in range(1, 6):
        followed.put(endpoint_slice(*(ready(f"10.1.{count}.{i}") for i in range(1, 9))))
    entries = followed.journal.entries()
    assert len(entries) == 3
    assert entries[-1].what.count(":8080") == SHOWN
    assert entries[-1].what.endswith("and 8 more")


def test_events_are_handed_on_and_the_versions_are_bounded() -> None:
    followed = Followed()
    deleted = Deleted("Service", "shop", "web")
    followed.emit(deleted)
    for i in range(MAX_VERSIONS + 10):
        obj = endpoint_slice(service=f"s-{i}", resourceVersion=str(i))
        followed.emit(Changed("EndpointSlice", obj))
    assert len(followed.passed) == MAX_VERSIONS + 11
    assert followed.passed[0] is deleted
    assert followed.versions.newest(("shop", "s-0")) == ""
    assert followed.versions.newest(("shop", f"s-{MAX_VERSIONS + 9}")) == str(MAX_VERSIONS + 9)


def test_several_follow_in_their_order() -> None:
    seen: list[int] = []
    follow = in_turn(lambda *_: seen.append(1), lambda *_: seen.append(2))
    cluster = Cluster()
    follow(cluster.state.full(), cluster.state, cluster.snapshot)
    assert seen == [1, 2]
