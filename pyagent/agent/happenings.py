"""What the agent itself does, as events for listeners."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pyagent.agent.journal import Entry
from pyagent.kernel.connections import Connection
from pyagent.model.address import format_endpoint
from pyagent.model.notice import Notice
from pyagent.view.event_stream import Change, Noted, SocketEnded


def change(entry: Entry) -> Change:
    """An entry of the journal."""
    return Change(entry.time, entry.service, entry.family, entry.what, entry.resource_version)


def sockets_ended(ended: Iterable[Connection], clock: Callable[[], float] = time.time) -> list[SocketEnded]:
    """Sockets that the reaper has just destroyed."""
    now = clock()
    return [
        SocketEnded(
            now,
            one.service_port,
            one.service_port_incarnation,
            one.protocol,
            format_endpoint(one.frontend, one.frontend_port),
            format_endpoint(one.peer, one.peer_port),
            format_endpoint(one.source, one.source_port),
            one.netns,
            one.cookie,
        )
        for one in ended
    ]


def noted(notice: Notice, clock: Callable[[], float] = time.time) -> Noted:
    """What the cluster is told as an Event."""
    return Noted(clock(), notice.reason, notice.text, notice.namespace, notice.name, notice.warning)
