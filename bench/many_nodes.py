"""`python -m bench.many_nodes`: what a cluster's nodes cost its API servers, as tables.

Sizes come from objects as the bench writes them, delays from the agent's own back-off (`cluster/backoff.py`).
The rest is a model: servers are links of a certain speed that send a limited number of lists at a time. It
needs no root and no network, and prints the same every time.
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from bench import objects
from bench.objects import Plan
from bench.tables import Table, duration, rendered, size
from pyagent.cluster.backoff import Backoff
from pyagent.cluster.surroundings import DEFAULT_TIMING

NODES, SERVICES, ENDPOINTS = 5_000, 10_000, 250_000
SERVERS, LINK = 3, 1.25e9  # API servers; bytes a second of each, 10 Gbit/s
EVENTS_OF_A_POD = 3  # replaced: the new one is ready, the old one terminates, the old one is gone
SEATS, QUEUE_SECONDS, RETRY_AFTER = 60, 15.0, 1.0
"""Of priority and fairness: lists at a time, the longest wait for a seat, what a refusal asks for."""

KINDS = 4  # watches of a node: Services, EndpointSlices, ServiceCIDRs, its own Node
EVENT_CPU = 0.00025  # seconds of one core for a slice of ten endpoints, `bench planning`

Delay = Callable[[Backoff], float]


class Storm(NamedTuple):
    """How clients came back after an outage. `peak` counts requests in the busiest second."""

    peak_down: int
    peak_up: int
    refused: int
    half: float  # seconds after the servers are back until half, and all, have what they want
    last: float


def bytes_of_slice(endpoints: int) -> int:
    """Of one EndpointSlice, as JSON."""
    return len(json.dumps(objects.endpoint_slice(Plan("service", 1, endpoints, 0), 0), separators=(",", ":")))


def bytes_of_service() -> int:
    return len(json.dumps(objects.service(Plan("service-1000", 1, 1, 0)), separators=(",", ":")))


def list_bytes() -> int:
    """All Services and EndpointSlices once."""
    return SERVICES * (bytes_of_service() + bytes_of_slice(ENDPOINTS // SERVICES))


def come_back(clients: int, down: float, wanted: int, servers: int, jitter: bool = True) -> Storm:
    """Clients whose streams end at second 0, and whose servers answer again after `down` seconds.

    Args:
        clients: each asks again until it was answered.
        wanted: bytes of the answer; 0 resumes a watch, which takes no time.
    """
    chance = random.Random(1)
    backoffs = [Backoff(chance.random if jitter else lambda: 1.0) for _ in range(clients)]
    asks: list[tuple[float, int]] = [(0.0, i) for i in range(clients)]
    busy: list[float] = []  # ends of the answers under way
    waiting: deque[tuple[float, int]] = deque()
    seats, each = SEATS * servers, wanted / (LINK * servers / (SEATS * servers))
    before: Counter[int] = Counter()
    after: Counter[int] = Counter()
    done: list[float] = []
    refused = 0
    while asks or waiting:
        at = asks[0][0] if asks else float("inf")
        while waiting and (free := busy[0] if len(busy) >= seats else waiting[0][0]) <= at:
            came, client = waiting.popleft()
            if free - came > QUEUE_SECONDS:
                refused += 1
                delay = max(
                    backoffs[client].next(), RETRY_AFTER * (1 + (0.2 * chance.random() if jitter else 0))
                )
                heapq.heappush(asks, (came + QUEUE_SECONDS + delay, client))
                at = asks[0][0]
                continue
            if len(busy) >= seats:
                heapq.heappop(busy)
            end = max(free, came) + each
            heapq.heappush(busy, end)
            done.append(end)
        if not asks:
            continue
        at, client = heapq.heappop(asks)
        if at < down:
            before[int(at)] += 1
            heapq.heappush(asks, (at + backoffs[client].next(), client))
            continue
        after[int(at)] += 1
        if wanted:
            waiting.append((at, client))
        else:
            done.append(at)
    done.sort()
    return Storm(
        max(before.values(), default=0),
        max(after.values(), default=0),
        refused,
        done[len(done) // 2] - down,
        done[-1] - down,
    )


def changes() -> Table:
    """What one replaced pod makes the API servers send."""
    rows = []
    for endpoints in (1, 10, 25, 100, 5000):
        slice_bytes = bytes_of_slice(min(endpoints, objects.MAX_SLICE))
        each = EVENTS_OF_A_POD * slice_bytes
        whole = each * NODES
        rows.append((
            f"{endpoints:,}", size(slice_bytes), f"{EVENTS_OF_A_POD * NODES:,}", size(each), size(whole),
            duration(whole / (LINK * SERVERS)), size(each * endpoints), size(whole * endpoints),
        ))  # fmt: skip
    columns = (
        "endpoints of the Service", "its slice", "events", "to a node", "to all", "time on the links",
        "all pods, to a node", "all pods, to all",
    )  # fmt: skip
    return Table(f"One pod replaced, {NODES:,} nodes", columns, rows)


def slicing() -> Table:
    """The same for smaller slices: `--max-endpoints-per-slice` of kube-controller-manager."""
    rows = []
    for most in (100, 50, 20, 10):
        slices = 5000 // most
        whole = bytes_of_slice(most) * EVENTS_OF_A_POD * NODES
        rows.append((str(most), str(slices), size(whole), size(bytes_of_slice(most) * slices)))
    columns = ("endpoints in a slice", "slices", "one pod replaced, to all", "its list")
    return Table("A Service of 5,000 endpoints, by size of its slices", columns, rows)


def churn() -> Table:
    """Pods replaced all over the cluster."""
    slice_bytes = bytes_of_slice(ENDPOINTS // SERVICES)
    rows = []
    for pods in (1, 10, 50, 200):
        events = pods * EVENTS_OF_A_POD
        to_node = events * slice_bytes
        rows.append((
            str(pods), f"{events}", f"{size(to_node)}/s", f"{size(to_node * NODES)}/s",
            f"{to_node * NODES / (LINK * SERVERS):.0%}", f"{events * EVENT_CPU:.1%}",
        ))  # fmt: skip
    columns = (
        "pods replaced a second", "events a second", "to a node", "to all", "of the links", "CPU of an agent",
    )  # fmt: skip
    return Table(f"Churn, {ENDPOINTS // SERVICES} endpoints in a slice", columns, rows)


def resumes() -> Table:
    """A server that was away: watches come back."""
    clients = NODES * KINDS
    rows = []
    for down in (1.0, 10.0, 60.0, 600.0):
        for jitter in (True, False):
            found = come_back(clients, down, 0, SERVERS, jitter)
            what = f"{down:,.0f} s" + ("" if jitter else ", without jitter")
            rows.append((
                what, f"{found.peak_down:,}", f"{found.peak_up:,}", duration(found.half), duration(found.last)
            ))  # fmt: skip
    columns = (
        "away for",
        "requests in the busiest second meanwhile",
        "afterwards",
        "half are back",
        "all are back",
    )
    return Table(f"{clients:,} watches that resume", columns, rows)


def relists() -> Table:
    """All history is gone: every node lists everything."""
    whole = list_bytes()
    rows = []
    for servers in (1, 3):
        for down in (10.0, 60.0):
            found = come_back(NODES, down, whole, servers)
            rows.append((
                f"{servers}", f"{down:.0f} s", size(whole * NODES), f"{found.peak_up:,}",
                f"{found.refused:,}", duration(found.half), duration(found.last),
            ))  # fmt: skip
    columns = (
        "API servers", "away for", "sent", "busiest second", "refused, tried again", "half have them",
        "all have",
    )  # fmt: skip
    notes = (f"A list of everything is {size(whole)}. Nodes serve what they hold until theirs has come.",)
    return Table(f"{NODES:,} nodes that list everything anew", columns, rows, notes)


def relists_in_peace() -> Table:
    """Lists that are made now and then though nothing was missed."""
    rows = []
    for kind, whole in (
        ("Services", SERVICES * bytes_of_service()),
        ("EndpointSlices", SERVICES * bytes_of_slice(ENDPOINTS // SERVICES)),
    ):
        timing = DEFAULT_TIMING
        paced = max(timing.relist_after, whole / timing.relist_bytes_a_second)
        for every in dict.fromkeys((timing.relist_after, paced)):
            to_all = whole * NODES / every
            share = f"{to_all / (LINK * SERVERS):.1%}"
            rows.append((
                kind, size(whole), f"{every:,.0f} s", f"{NODES / every:.2f}", f"{size(to_all)}/s", share
            ))  # fmt: skip
    columns = ("kind", "its list", "every", "lists a second", "to all", "of the links")
    return Table("Lists in peace", columns, rows)


def main() -> None:
    print(f"# {NODES:,} nodes, {SERVICES:,} Services, {ENDPOINTS:,} endpoints, {SERVERS} API servers\n")
    for table in (changes(), slicing(), churn(), resumes(), relists(), relists_in_peace()):
        print(rendered(table))


if __name__ == "__main__":
    main()
