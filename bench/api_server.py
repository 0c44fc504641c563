"""`python -m bench.api_server DIR SERVICES ENDPOINTS`: a large cluster behind the tests' API server.

Prints the kubeconfig's path once it serves. Then each line on standard input, `FIRST COUNT SKIP`, replaces
the first endpoint of that many Services, and is answered by a line.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import objects
from bench.objects import Plan
from tests.fakes.api_server import ApiServer

LARGER = 10
"""Endpoints of one in six Services; the others have the rest."""


def cluster(services: int, endpoints: int) -> list[Plan]:
    """So many Services with so many endpoints together, in two sizes."""
    larger = services // 6
    each = (endpoints - larger * LARGER) // (services - larger)
    return [
        *objects.plans(services - larger, each),
        *objects.plans(larger, LARGER, first=objects.FIRST + services - larger),
    ]


def typed(kind: str, found: dict[str, Any]) -> dict[str, Any]:
    """An object of a list, as one that stands alone."""
    return {"apiVersion": objects.API_VERSION[kind], "kind": kind, **found}


def _all(plans: list[Plan]) -> Iterator[tuple[str, dict[str, Any]]]:
    for plan in plans:
        yield "Service", objects.service(plan)
        for one in objects.slices(plan):
            yield "EndpointSlice", one


def main(folder: str, services: str, endpoints: str) -> None:
    plans = cluster(int(services), int(endpoints))
    with ApiServer() as server:
        store = server.store
        for kind, found in _all(plans):
            # `put` copies each object and keeps a history: here nobody watches yet.
            store.version += 1
            found["metadata"]["resourceVersion"] = str(store.version)
            store.objects[kind][found["metadata"]["namespace"], found["metadata"]["name"]] = typed(
                kind, found
            )
        gc.freeze()
        print(server.kubeconfig(Path(folder) / "kubeconfig.yaml"), flush=True)
        for line in sys.stdin:
            first, count, skip = map(int, line.split())
            for plan in plans[first : first + count]:
                server.put(typed("EndpointSlice", objects.endpoint_slice(plan, 0, skip=skip)))
            print(store.version, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
