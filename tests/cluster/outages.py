"""Hours of trouble with an API server, lived through in moments: the real reflector, a clock that is turned.

`python -m tests.cluster.outages` prints what each trouble costs the API server: docs/reliability.md has it.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, urlsplit

from pyagent.cluster.connection import Answer, Connection
from pyagent.cluster.reflector import Reflector
from pyagent.cluster.resources import SERVICES
from pyagent.cluster.surroundings import Stopped, Surroundings
from pyagent.model.failures import ClusterUnreachable
from pyagent.model.source_events import Deleted, Replaced, SourceEvent, SourceState

HOUR = 3600.0


class Clock:
    """Seconds that pass when somebody waits, and not otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class Turned(Surroundings):
    """Surroundings on that clock; the source is stopped at a certain time."""

    def __init__(self, clock: Clock, until: float, seed: int) -> None:
        super().__init__(now=lambda: clock.now, random=random.Random(seed).random)
        self._clock = clock
        self._until = until

    def sleep(self, seconds: float) -> None:
        self._clock.pass_time(seconds)
        if self._clock.now >= self._until:
            raise Stopped


class Body:
    """An answer: pieces, each with the seconds until it comes; an exception breaks it off."""

    def __init__(
        self, clock: Clock, status: int, pieces: Iterator[tuple[float, bytes]], **headers: str
    ) -> None:
        self.status = status
        self._clock = clock
        self._pieces = pieces
        self._headers = headers

    def header(self, name: str) -> str:
        return self._headers.get(name.replace("-", "_"), "")

    def read_piece(self) -> bytes:
        for seconds, piece in self._pieces:
            self._clock.pass_time(seconds)
            return piece
        return b""

    def read_all(self, limit: int) -> bytearray:
        body = bytearray()
        while piece := self.read_piece():
            body += piece
        assert len(body) <= limit
        return body

    def close(self) -> None:
        """Nothing is held."""


class Cluster:
    """Services by name, each with the version of its last change, and the events since the beginning."""

    def __init__(self, version: int = 100_000) -> None:
        self.version = self.compacted = version
        self.services: dict[str, int] = {}
        self.history: list[tuple[int, bytes]] = []

    def put(self, name: str) -> None:
        self.version += 1
        event = "MODIFIED" if name in self.services else "ADDED"
        self.services[name] = self.version
        self.history.append((self.version, line(event, as_object(name, self.version))))

    def delete(self, name: str) -> None:
        self.version += 1
        del self.services[name]
        self.history.append((self.version, line("DELETED", as_object(name, self.version))))

    def since(self, version: int) -> Iterator[bytes]:
        return (text for at, text in self.history if at > version)

    def objects(self) -> list[dict[str, Any]]:
        return [as_object(name, version) for name, version in self.services.items()]


def as_object(name: str, version: int) -> dict[str, Any]:
    return {
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": str(version)},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]},
    }


def line(kind: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    meta = {"resourceVersion": str(version)}
    return line("BOOKMARK", {"kind": "Service", "apiVersion": "v1", "metadata": meta})


Trouble = Callable[["Server", dict[str, str]], Body]


class Server:
    """Stands where a `Connection` does; healthy unless there is trouble."""

    def __init__(self, clock: Clock, cluster: Cluster, trouble: Trouble, until: float) -> None:
        self.clock = clock
        self.cluster = cluster
        self.older = Cluster(1000)
        self.after = cluster
        self.chance = random.Random(7).random
        self.times: list[float] = []
        self.renewals = 0
        self._trouble = trouble
        self._until = until

    def get(self, path: str, _timeout: float, _accept: str = "") -> Answer:
        self.times.append(self.clock.now)
        query = dict(parse_qsl(urlsplit(path).query))
        if self.clock.now < self._until:
            return cast("Answer", self._trouble(self, query))
        return cast("Answer", serves(self, self.after, query))

    def renew(self) -> None:
        self.renewals += 1

    def close(self) -> None:
        """Nothing is held."""

    def cut(self) -> None:
        """Nobody waits."""

    def listed(
        self,
        pause: float = 0.0,
        objects: list[dict[str, Any]] | None = None,
        cluster: Cluster | None = None,
    ) -> Body:
        cluster = cluster or self.cluster
        items = cluster.objects() if objects is None else objects
        meta = {"resourceVersion": str(cluster.version)}
        text = json.dumps(
            {"kind": "ServiceList", "apiVersion": "v1", "metadata": meta, "items": items}
        ).encode()
        size = max(1, len(text) // 60)
        pieces = (text[at : at + size] for at in range(0, len(text), size))
        return Body(self.clock, 200, ((pause, piece) for piece in pieces))

    def refused(self, code: int, **headers: str) -> Body:
        return Body(self.clock, code, iter([(0.0, b'{"kind":"Status"}')]), **headers)


def is_list(query: dict[str, str]) -> bool:
    return query.get("watch") != "true"


def healthy(server: Server, query: dict[str, str]) -> Body:
    return serves(server, server.cluster, query)


def serves(server: Server, cluster: Cluster, query: dict[str, str]) -> Body:
    """As a watch cache does: nothing that is not newer than what was asked for."""
    if is_list(query):
        return server.listed(cluster=cluster)
    if "resourceVersion" not in query:
        return server.refused(422)  # no streamed lists: the costlier way
    seen = int(query["resourceVersion"])

    def pieces() -> Iterator[tuple[float, bytes]]:
        left = float(query["timeoutSeconds"])
        for text in cluster.since(seen):
            yield 0.0, text
        while left > 60:
            left -= 60
            cluster.version += 1  # some Lease
            if cluster.version <= seen:
                server.clock.pass_time(90.0)
                raise ClusterUnreachable("timed out")
            yield 60.0, bookmark(cluster.version)
        server.clock.pass_time(left)

    if seen < cluster.compacted:
        return too_old(server)
    return Body(server.clock, 200, pieces())


def too_old(server: Server) -> Body:
    return Body(server.clock, 200, iter([(0.0, line("ERROR", {"kind": "Status", "code": 410}))]))


def unreachable(seconds: float) -> Trouble:
    def trouble(server: Server, _query: dict[str, str]) -> Body:
        server.clock.pass_time(seconds)
        raise ClusterUnreachable(
            "API server 192.0.2.1:6443: " + ("timed out" if seconds else "connection refused")
        )

    return trouble


def answers(code: int, **headers: str) -> Trouble:
    return lambda server, _query: server.refused(code, **headers)


def expires(server: Server, query: dict[str, str]) -> Body:
    """Lists go well, every watch is told that its version is too old."""
    if is_list(query) or "resourceVersion" not in query:
        return healthy(server, query)
    return too_old(server)


def cuts(seconds: float) -> Trouble:
    def trouble(server: Server, query: dict[str, str]) -> Body:
        if is_list(query) or "resourceVersion" not in query:
            return healthy(server, query)

        def pieces() -> Iterator[tuple[float, bytes]]:
            server.clock.pass_time(seconds)
            yield from ()

        return Body(server.clock, 200, pieces())

    return trouble


def two_histories(server: Server, query: dict[str, str]) -> Body:
    """Behind one address, by chance: a server as it should be, and one whose data is older."""
    return serves(server, server.cluster if server.chance() < 0.5 else server.older, query)


def slow_lists(server: Server, query: dict[str, str]) -> Body:
    """A list takes minutes, and each watch ends in the need for another."""
    return server.listed(pause=2.0) if is_list(query) else expires(server, query)


def empty_lists(server: Server, query: dict[str, str]) -> Body:
    """What the server has at hand is empty, and every watch needs a new list; a quorum knows better."""
    if is_list(query):
        return server.listed(objects=[] if "resourceVersion" in query else None)
    return expires(server, query)


class Scenario(NamedTuple):
    name: str
    trouble: Trouble
    most: int  # requests an hour and kind


SCENARIOS = (
    Scenario("nothing is wrong", healthy, 20),
    Scenario("connection refused", unreachable(0.0), 170),
    Scenario("no answer to a connect", unreachable(5.0), 140),
    Scenario("503 to everything", answers(503), 170),
    Scenario("429 with Retry-After: 60", answers(429, Retry_After="60"), 60),
    Scenario("401 to everything", answers(401), 340),
    Scenario("403 to everything", answers(403), 170),
    Scenario("410 to every watch", expires, 340),
    Scenario("streams cut at once", cuts(0.0), 170),
    Scenario("streams cut after a second", cuts(1.0), 400),
    Scenario("two servers, one with older data", two_histories, 340),
    Scenario("lists that take two minutes, then 410", slow_lists, 60),
    Scenario("empty lists that a quorum denies, then 410", empty_lists, 510),
)


class Follower:
    """An `Emit` that knows what somebody holds who follows, and keeps nothing else."""

    def __init__(self, clock: Clock) -> None:
        self.held: set[str] = set()
        self.emptied = False
        self.replaced_at = 0.0
        self._clock = clock
        self.complaints: set[str] = set()
        self.lists = 0

    def __call__(self, event: SourceEvent, /) -> None:
        match event:
            case Replaced():
                self.lists += 1
                self.replaced_at = self._clock.now
                self.emptied = self.emptied or not event.objects
                self.held = {one.metadata.name for one in event.objects}
            case Deleted():
                self.held.discard(event.name)
            case SourceState() if event.error:
                self.complaints.add(event.error)


class Course(NamedTuple):
    """What came of it."""

    server: Server
    follower: Follower
    hours: float
    peak: int  # bytes that Python had more than at the start

    def requests_per_hour(self) -> float:
        return len([at for at in self.server.times if at < 1000 + self.hours * HOUR]) / self.hours

    def noticed_after(self) -> float:
        """Seconds until the last list, from the end of the trouble on."""
        return self.follower.replaced_at - 1000 - self.hours * HOUR

    def longest_silence(self) -> float:
        """Seconds between two requests, once the trouble lasts."""
        lasting = [at for at in self.server.times if 1600 < at < 1000 + self.hours * HOUR]
        return max(after - before for before, after in pairwise(lasting))


def live_through(
    scenario: Scenario,
    hours: float = 6.0,
    seed: int = 1,
    leap: float = 0.0,
    restored: bool = False,
    measure: bool = False,
) -> Course:
    """A first list; then trouble for hours, in which one Service goes and one comes; then five good minutes.

    Args:
        leap: seconds by which the clock jumps forward in the middle of it, as after a pause of the machine.
        restored: it ends with a server that has another, older history, and with ten good minutes.
        measure: the memory too, which takes four times as long.
    """
    clock, cluster = Clock(), Cluster()
    ends = clock.now + hours * HOUR
    changed = clock.now + hours * HOUR / 2
    server = Server(clock, cluster, _after_first_list(scenario.trouble, changed, leap), ends)
    for number in range(20):
        cluster.put(f"s{number}")
        server.older.put(f"s{number}")
    server.older.put("once")
    if restored:
        server.after = server.older
    around = Turned(clock, ends + (600 if restored else 300) + leap, seed)
    follower = Follower(clock)
    reflector = Reflector(SERVICES, cast("Connection", server), follower, around)
    peak = _run_measured(reflector) if measure else 0
    if not measure:
        reflector.run()
    return Course(server, follower, hours, peak)


def _run_measured(reflector: Reflector) -> int:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    reflector.run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


def _after_first_list(trouble: Trouble, changed: float, leap: float) -> Trouble:
    state = {"listed": False, "changed": False}

    def answer(server: Server, query: dict[str, str]) -> Body:
        if server.clock.now >= changed and not state["changed"]:
            state["changed"] = True
            server.cluster.delete("s0")
            server.cluster.put("new")
            server.clock.pass_time(leap)
        if state["listed"]:
            return trouble(server, query)
        state["listed"] = is_list(query)
        return healthy(server, query)

    return answer


def main() -> None:
    """Print the table."""
    courses = [(scenario, live_through(scenario, measure=True)) for scenario in SCENARIOS]
    print("| trouble for six hours | requests an hour, each kind | longest silence | memory at most |")
    print("|---|---:|---:|---:|")
    for scenario, course in courses:
        rate, silence, peak = course.requests_per_hour(), course.longest_silence(), course.peak / 1024
        print(f"| {scenario.name} | {rate:.0f} | {silence:.0f} s | {peak:.0f} KiB |")
    print("\nSeconds until a server is noticed that has older data after:")
    for scenario in SCENARIOS:
        noticed = live_through(scenario, hours=0.2, restored=True).noticed_after()
        print(f"{noticed:5.0f}  {scenario.name}")


if __name__ == "__main__":
    main()
