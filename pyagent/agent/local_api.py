"""The agent's read-only socket: what only it knows, as JSON over HTTP, for readers on this machine.

/v1/services/NAMESPACE/NAME  why each endpoint is in a set or not
/v1/addresses/ADDRESS        the same for the Services that have an address
/v1/diff                     in what the maps differ from what they should hold
/v1/config                   every setting in force, and where it came from
/v1/sync                     sources, their ages, the last plan, problems
/v1/journal                  the last changes that were carried out
/v1/events?…                 what happens, as it happens: see `view/event_stream.py`
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from pyagent.agent.facts import Facts
from pyagent.agent.http_exchange import JSON, Request, Response
from pyagent.agent.http_server import HttpServer
from pyagent.agent.inbox import Standing
from pyagent.agent.journal import Journal
from pyagent.agent.local_answers import service_facts, services_at, sync
from pyagent.agent.local_diff import Meant, differences, meant
from pyagent.agent.state_files import is_in_use, is_ours_alone
from pyagent.datapath.decoded import RawMaps
from pyagent.model.address import parse_address
from pyagent.model.failures import InvalidField, KubesockError, UsageError
from pyagent.view.agent_socket import FOLDER_HEADER, SOCKET, in_folder
from pyagent.view.event_stream import PATH as EVENTS
from pyagent.view.event_stream import Wish, wish_of
from pyagent.view.explain_facts import NodeFacts

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 8
LOOP_SECONDS = 10.0
"""How long an answer may wait for the loop, which may be carrying out a plan."""

MAX_DIFFERENCES = 1000
BACKLOG = 8
T = TypeVar("T")


class Asked(Protocol):
    """Answers questions about the loop's state; see `Loop.ask`."""

    def __call__(self, question: Callable[[Standing], T], /) -> Future[T]: ...


class Listeners(Protocol):
    """Where those go who want to hear what happens; see `EventHub`."""

    @property
    def is_full(self) -> bool: ...

    def attach(self, client: socket.socket, wish: Wish, /) -> None: ...


class Knowledge(NamedTuple):
    """Where answers come from.

    Attributes:
        raw: a full dump of the maps; called in the loop's thread, between two plans.
        ranges: entries of the map `source_ranges`; as `raw`.
        besides: what no plan writes and somebody else changed; as `raw`.
        config: rows of `described()`.
        events: whom listeners are handed to.
    """

    ask: Asked
    raw: Callable[[], RawMaps]
    ranges: Callable[[], list[tuple[bytes, bytes]]]
    besides: Callable[[], list[str]]
    facts: Facts
    journal: Journal
    config: Callable[[], list[dict[str, str]]]
    events: Listeners


class Unanswerable(KubesockError):
    """The question is right, but there is no answer now."""


class LocalApi:
    """Serves the socket in a thread of its own: a long answer must not delay the health pages."""

    def __init__(self, state_dir: Path, bpffs: Path, knowledge: Knowledge, group: int | None = None) -> None:
        """Args: group: whose members may ask too."""
        self._state_dir = state_dir
        self._group = group
        self._folder = str(bpffs.resolve())
        self._knowledge = knowledge
        self._server = HttpServer("local-api", max_connections=MAX_CONNECTIONS)
        self._inode = 0

    def start(self) -> None:
        """Listen. An agent that cannot still serves the node: that is told in the log, and all."""
        try:
            self._server.listen(self._bound(), self.answer)
        except (OSError, KubesockError) as error:
            log.error("readers cannot ask this agent, %s: %s", self._state_dir / SOCKET, error)
            return
        self._server.start()

    def stop(self) -> None:
        if not self._inode:
            return
        self._server.stop()
        path = self._state_dir / SOCKET
        with contextlib.suppress(OSError):  # somebody else's by now, or gone
            if path.lstat().st_ino == self._inode:
                path.unlink()

    def _bound(self) -> socket.socket:
        self._state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_room(self._state_dir)
        listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            # The file's mode is the socket's from its first moment on (net/unix/af_unix.c, unix_bind_bsd).
            os.fchmod(listener.fileno(), 0o600)
            with in_folder(self._state_dir) as path:
                listener.bind(path)
            self._admit()
            listener.listen(BACKLOG)
            self._inode = (self._state_dir / SOCKET).lstat().st_ino
        except BaseException:
            listener.close()
            raise
        return listener

    def _admit(self) -> None:
        """Root alone, or a group too: it may pass through the folder, not list or lock it."""
        modes = {self._state_dir: 0o700} if is_ours_alone(self._state_dir) else {}
        if self._group is not None:
            modes = {self._state_dir / SOCKET: 0o660, **dict.fromkeys(modes, 0o710)}
        try:
            for ours, mode in modes.items():
                if self._group is not None:
                    os.chown(ours, -1, self._group, follow_symlinks=False)
                ours.chmod(mode)
        except OSError as error:
            log.error("modes in %s stay as they are: %s; needs CAP_CHOWN", self._state_dir, error.strerror)

    def answer(self, request: Request) -> Response:
        """The page of a path."""
        try:
            if request.path == EVENTS:
                return self._listener(request.query)
            value = self._value(request.path)
        except (Unanswerable, UsageError) as error:
            return Response(f"{error}\n", status=503, headers=((FOLDER_HEADER, self._folder),))
        if value is None:
            return Response("404 page not found\n", status=404, headers=((FOLDER_HEADER, self._folder),))
        return Response(msgspec.json.encode(value), JSON, headers=((FOLDER_HEADER, self._folder),))

    def _listener(self, query: str) -> Response:
        wish, hub = wish_of(query), self._knowledge.events
        if hub.is_full:
            raise Unanswerable("there are as many listeners as it takes; end one of them")
        return Response(
            b"",
            "application/x-ndjson",
            headers=((FOLDER_HEADER, self._folder),),
            take_over=lambda client: hub.attach(client, wish),
        )

    def _value(self, path: str) -> object:
        knows = self._knowledge
        match path.split("/")[1:]:
            case ["v1", "services", namespace, name]:
                return self._of_loop(lambda standing: service_facts(standing, [(namespace, name)]))
            case ["v1", "addresses", text]:
                return self._services_at(text)
            case ["v1", "diff"]:
                return self._diff()
            case ["v1", "config"]:
                return {"settings": knows.config()}
            case ["v1", "sync"]:
                return sync(knows.facts.view())
            case ["v1", "journal"]:
                return {"entries": knows.journal.entries()}
        return None

    def _services_at(self, text: str) -> NodeFacts:
        try:
            address = parse_address(text)
        except InvalidField as error:
            raise UsageError(str(error)) from None
        return self._of_loop(lambda standing: service_facts(standing, services_at(standing, address)))

    def _diff(self) -> dict[str, Any]:
        """The loop takes the dump between two plans; the comparison is made here, at leisure."""

        knows = self._knowledge

        def dump(standing: Standing) -> tuple[Meant, RawMaps, dict[bytes, bytes], list[str]] | None:
            if not standing.planned:
                return None
            wanted = meant(standing.desired.full(), standing.held)
            return wanted, knows.raw(), dict(knows.ranges()), knows.besides()

        dumped = self._of_loop(dump)
        if dumped is None:
            raise Unanswerable("no plan was carried out yet: " + "; ".join(self._knowledge.facts.ready()[1]))
        found = list(differences(*dumped))
        return {"differences": found[:MAX_DIFFERENCES], "count": len(found)}

    def _of_loop(self, question: Callable[[Standing], T]) -> T:
        try:
            return self._knowledge.ask(question).result(timeout=LOOP_SECONDS)
        except TimeoutError:
            raise Unanswerable(f"the loop is busy for more than {LOOP_SECONDS:g} s; try again") from None


def _make_room(state_dir: Path) -> None:
    """Remove what an agent before left. Never follows a link, never takes a living agent's place.

    Raises:
        UsageError: the place is taken.
    """
    path = state_dir / SOCKET
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(kind) and is_in_use(state_dir):
        raise UsageError("another agent listens there; give each agent its own --state-dir")
    if not (stat.S_ISSOCK(kind) or stat.S_ISLNK(kind)):
        raise UsageError("it is in the way and no socket; remove it")
    path.unlink()
