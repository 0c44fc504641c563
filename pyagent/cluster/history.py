"""Whether an API server still has the history that is followed.

The versions of one restored from a backup begin again further back. A watch resumed there stays silent: the
watch cache passes on only what is newer than the version asked for, bookmarks too (kube-apiserver,
storage/cacher/cache_watcher.go, `process`). Only a read tells.
"""

from __future__ import annotations

import math
import re

CUTS = 5
BETWEEN_CUTS = 300.0
"""A proxy that cuts every stream costs a few reads and then one in this time, the length of a watch. A few,
because a server that is going down may still answer the first."""
AFTER_REFUSAL = 60.0

_NUMBER = re.compile(r"0|[1-9][0-9]*")


def is_older(version: str, than: str) -> bool:
    """Whether one version of a kind came before another, as KEP-5504 compares them: numbers of any length.

    False where one of them is no such number: nothing is known then.
    """
    if not (_NUMBER.fullmatch(version) and _NUMBER.fullmatch(than)):
        return False
    return (len(version), version) < (len(than), than)


class Doubt:
    """When to ask a server for its version, before a watch is resumed. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._due = math.inf
        self._free_at = -math.inf  # when all CUTS reads may be done at once

    def stream_cut(self, now: float) -> None:
        """A stream ended before its time."""
        self._due = min(self._due, max(now, self._free_at - (CUTS - 1) * BETWEEN_CUTS))

    def no_server(self, now: float) -> None:
        """A request failed: whoever answers next may have been started anew."""
        self._due = min(self._due, now)

    def refused(self, now: float) -> None:
        """The server was there and did not say: the watch is resumed, and it is asked again later."""
        self._due = now + AFTER_REFUSAL

    def asking(self, now: float) -> None:
        self._free_at = min(max(self._free_at, now) + BETWEEN_CUTS, now + CUTS * BETWEEN_CUTS)

    def settle(self) -> None:
        """It has the history that we follow, or was asked for all there is."""
        self._due = math.inf

    def left(self, now: float) -> float:
        """Seconds until it is to be asked; infinite without a doubt."""
        return max(0.0, self._due - now)
