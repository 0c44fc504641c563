"""Merging again what was merged before, at the price of what changed."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence

from pyagent.desired.endpoints import Endpoints, SliceEndpoints, merge, with_port
from pyagent.model.difference import difference
from pyagent.model.service import Backend, ServicePortKey

Pieces = Sequence[tuple[SliceEndpoints, int]]

LEAST_SLICES = 4
KEPT = 64
"""Service ports whose last result is kept; most of it is shared with the desired state."""

SHARE = 8
"""At most one of so many endpoints may come or go."""


class Merger:
    """`merge`, with a memory of the service ports that were merged last."""

    def __init__(self) -> None:
        self._last: OrderedDict[ServicePortKey, tuple[Pieces, Endpoints]] = OrderedDict()

    def __call__(self, key: ServicePortKey, pieces: Pieces) -> Endpoints:
        last = self._last.pop(key, None)
        if len(pieces) < LEAST_SLICES:
            return merge(pieces)
        found = remerged(*last, pieces) if last is not None else None
        if found is None:
            found = merge(pieces)
        self._last[key] = pieces, found
        if len(self._last) > KEPT:
            self._last.popitem(last=False)
        return found


def remerged(before: Pieces, merged: Endpoints, after: Pieces) -> Endpoints | None:
    """`merge(after)`, made from `merged`, which is `merge(before)`; None if that takes a look at everything.

    Which of two endpoints with one address counts depends on all slices, and so does whether hints do.
    """
    old, new = ({(id(piece), port): piece for piece, port in side} for side in (before, after))
    gone = [(piece, key[1]) for key, piece in old.items() if key not in new]
    came = [(piece, key[1]) for key, piece in new.items() if key not in old]
    count = len(merged.backends)
    if (
        merged.hints
        or any(piece.endpoints.hints for piece, _ in came)
        or sum(len(piece.endpoints.backends) for piece, _ in before) != count
        or max(len(gone), len(came)) * SHARE > len(after)
    ):
        return None
    removed, added = _exchanged(gone, came)
    if (len(removed) + len(added)) * SHARE > count:
        return None
    backends = list(merged.backends)
    for backend in removed:
        at = _place(backends, backend)
        if at == len(backends) or backends[at] != backend:
            return None
        del backends[at]
    for backend in added:
        at = _place(backends, backend)
        if at < len(backends) and _identity(backends[at]) == _identity(backend):
            return None
        backends.insert(at, backend)
    return Endpoints(tuple(backends))


def _exchanged(gone: Pieces, came: Pieces) -> tuple[list[Backend], list[Backend]]:
    """What these slices took away and brought; for a slice that changed, only in what it did."""
    removed: list[Backend] = []
    added: list[Backend] = []
    successors = {(piece.name, port): piece for piece, port in came}
    for piece, port in gone:
        successor = successors.pop((piece.name, port), None)
        old = with_port(piece.endpoints, port).backends
        new = with_port(successor.endpoints, port).backends if successor is not None else ()
        found = difference(old, new)
        removed += found.gone
        added += found.came
    for (_, port), piece in successors.items():
        added += with_port(piece.endpoints, port).backends
    return removed, added


def _identity(backend: Backend) -> tuple[bytes, int]:
    return backend.address, backend.port


def _place(backends: list[Backend], backend: Backend) -> int:
    return bisect_left(backends, _identity(backend), key=_identity)
