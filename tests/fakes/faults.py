"""What can be made to go wrong in the test API server, and for which requests."""

from __future__ import annotations

import threading
from dataclasses import dataclass

ACTIONS = frozenset(
    {
        "status",  # answer with `code` (and Retry-After)
        "error_in_stream",  # HTTP 200, then `after` events, then an ERROR Status with `code`
        "half_line",  # half an event, then a connection reset
        "garbage_line",  # a line that is no JSON
        "reset",  # connection reset before any answer
        "stall",  # header, then silence
        "stall_early",  # silence from the start
        "cut",  # the stream ends properly after `seconds`
        "slow",  # the list arrives in pieces, `seconds` each
        "empty_list",  # a list without items, or `keep` of them
        "wrong_json",  # a list cut in the middle
    }
)


@dataclass
class Fault:
    action: str
    verb: str = ""  # "list", "watch" or "" for both
    kind: str = ""
    count: int = 1  # -1: until cleared
    code: int = 500
    after: int = 0
    keep: int = 0
    seconds: float = 0.0
    retry_after: int = 0
    message: str = "injected"
    watch_list: bool | None = None  # only streams with (True) or without (False) sendInitialEvents
    quorum: bool | None = None  # only requests without (True) or with (False) a resourceVersion
    page: str = ""  # "next": only pages of a list after the first; "first": others

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"unknown fault {self.action!r}; one of {', '.join(sorted(ACTIONS))}")


class Faults:
    """The faults still to come; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._pending.clear()

    def take(
        self, verb: str, kind: str, watch_list: bool = False, quorum: bool = True, page: str = "first"
    ) -> Fault | None:
        with self._lock:
            for fault in self._pending:
                if fault.verb not in ("", verb) or fault.kind not in ("", kind):
                    continue
                if fault.watch_list not in (None, watch_list) or fault.quorum not in (None, quorum):
                    continue
                if fault.page not in ("", page):
                    continue
                if fault.count > 0:
                    fault.count -= 1
                    if fault.count == 0:
                        self._pending.remove(fault)
                return fault
        return None
