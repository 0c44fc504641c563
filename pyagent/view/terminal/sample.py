"""What one look at the node brought, and what a look needs to bring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from pyagent.kernel.namespace_owners import NetnsOwner
from pyagent.view.connection_table import Processes
from pyagent.view.live import LiveMaps
from pyagent.view.node_status import HookStatus
from pyagent.view.socket_walk import Walk
from pyagent.view.tables import Row

KEEP_SOCKETS = 10_000
"""Rows of the connections view; more are counted but not listed, for memory is bounded."""


MOST_WITH_PROCESSES = 20_000
"""Among more sockets nobody looks for the processes that hold them: /proc would take seconds."""


class Needs(NamedTuple):
    """What a view is made of.

    Attributes:
        maps: to be read.
        facts: also fill and memory of every map.
        sockets: how many to list; 0: they are only counted; None: nobody needs them.
        hooks: links and the kernel's statistics of the programs.
        page: what to ask the agent, a path on its socket; empty: nothing.
        events: what happens, as long as looks need it.
    """

    maps: frozenset[str]
    facts: bool = False
    sockets: int | None = None
    hooks: bool = False
    page: str = ""
    events: bool = False


class HookRuns(NamedTuple):
    """A hook with the kernel's statistics: totals since they were first switched on."""

    status: HookStatus
    runs: int
    nanoseconds: int


class Answer(NamedTuple):
    """What the agent said; `error` if it did not."""

    fields: Mapping[str, Any] = {}
    error: str = ""


class Events(NamedTuple):
    """What has happened since somebody listens.

    Attributes:
        rows: the newest ones, newest first.
        total: how many there were.
        agent: an agent tells, so that its own deeds are among them.
        error: why nothing is heard; empty if all is well.
        sample: of the hooks' events one in this many, chosen in the kernel.
    """

    rows: tuple[Row, ...] = ()
    total: int = 0
    agent: bool = True
    error: str = ""
    sample: int = 1


class Sample(NamedTuple):
    """One look. What was not needed is empty. `taken` is seconds on the monotonic clock."""

    live: LiveMaps
    taken: float
    walk: Walk = Walk()
    owners: Mapping[int, NetnsOwner] = {}
    processes: Processes | None = None
    hooks: tuple[HookRuns, ...] = ()
    answer: Answer = Answer()
    events: Events = Events()


class Reader(Protocol):
    """Looks at the node. Used by one thread at a time."""

    def look(self, needs: Needs) -> Sample:
        """
        Raises:
            KubesockError, OSError: the pins cannot be read; the text has the remedy.
        """

    def close(self) -> None:
        """Let go of everything, such as the kernel's statistics."""
