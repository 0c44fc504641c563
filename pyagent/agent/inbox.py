"""What comes to the loop besides the sources' events, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import msgspec

from pyagent.agent.clients import ClientsChanged
from pyagent.agent.event_hub import EventsWanted
from pyagent.agent.growth import LargerReady
from pyagent.agent.opt_out import PodCgroupsChanged
from pyagent.agent.stale import BackendsUsed
from pyagent.datapath.held import Freed, HeldState
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.service import DesiredChange
from pyagent.model.source_events import SourceEvent


class InterfacesChanged(msgspec.Struct, frozen=True):
    """This node's interface addresses, 16 bytes each; link-local ones apart."""

    addresses: frozenset[bytes]
    link_local: frozenset[bytes] = frozenset()


class GraceEnded(msgspec.Struct, frozen=True):
    """No running program can still see what these plans freed."""

    freed: tuple[Freed, ...]


class ProgramsLoaded(msgspec.Struct, frozen=True):
    """The programs are ready to be attached; `error` if they are not."""

    error: BaseException | None = None


class Failed(msgspec.Struct, frozen=True):
    """The agent cannot or must not go on."""

    error: BaseException


class FlowsCrowded(msgspec.Struct, frozen=True):
    """Connections from outside come so fast that their map should grow now, not with the next round."""


class Standing(NamedTuple):
    """The loop's state, for questions that only it can answer. Read it, keep nothing of it."""

    snapshot: Snapshot
    desired: DesiredState
    held: HeldState
    planned: bool


class Question(msgspec.Struct, frozen=True):
    """To be asked in the loop's thread."""

    ask: Callable[[Standing], Any]
    answer: Future[Any]


class Stop(msgspec.Struct, frozen=True):
    """The last event that is taken."""


InboxEvent = (
    SourceEvent
    | InterfacesChanged
    | GraceEnded
    | ProgramsLoaded
    | Failed
    | FlowsCrowded
    | BackendsUsed
    | ClientsChanged
    | EventsWanted
    | LargerReady
    | PodCgroupsChanged
    | Question
    | Stop
)


class Applied(Protocol):
    """Called after each carried-out plan, in the loop's thread."""

    def __call__(self, change: DesiredChange, desired: DesiredState, snapshot: Snapshot, /) -> None: ...
