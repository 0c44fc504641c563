"""Looks at the node for the screens: pins, sockets, links, /proc, and the agent where it answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.links import pinned_states
from pyagent.kernel.namespace_owners import NetnsOwner, SocketKey, owners, processes
from pyagent.model.failures import KubesockError
from pyagent.view.agent_socket import ask
from pyagent.view.event_listener import Listener
from pyagent.view.node_status import LINKS, hook_statuses
from pyagent.view.pins import ALL, read_live
from pyagent.view.socket_walk import SHARE, SocketWalker, Walk
from pyagent.view.terminal.event_tail import ASKED, EventTail
from pyagent.view.terminal.sample import MOST_WITH_PROCESSES, Answer, Events, HookRuns, Needs, Sample

ALWAYS = frozenset({"backends", "chosen", "refused"})
"""What rates are made of; a few milliseconds at most, for they are copied memory."""

ANSWER_SECONDS = 2.0
LISTEN_AGAIN_SECONDS = 3.0


class NodeReader:
    """The real node; see `sample.Reader`.

    Args:
        bpffs: the agent's `--bpffs`.
        cgroup: where the hooks should be; None: wherever they are.
    """

    def __init__(
        self,
        bpffs: Path,
        state_dir: Path,
        cgroup: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bpffs = bpffs
        self._state_dir = state_dir
        self._cgroup = cgroup
        self._clock = clock
        self._walker = SocketWalker(bpffs, clock)
        self._clients = _Clients(clock)
        self._statistics: int | None = None
        self._tail: EventTail | None = None
        self._listen_at = float("-inf")

    def look(self, needs: Needs) -> Sample:
        """Everything that is needed, once."""
        self._count_runs(needs.hooks)
        live = read_live(self._bpffs, ALL if needs.facts else needs.maps | ALWAYS, facts=needs.facts)
        sample = Sample(live, self._clock())
        if needs.sockets is not None:
            sample = sample._replace(walk=self._walker.look(needs.sockets))
            if needs.sockets:
                self._clients.follow(sample.walk)
                sample = sample._replace(owners=self._clients.owners, processes=self._clients.processes)
        if needs.hooks:
            sample = sample._replace(hooks=self._hooks())
        if needs.page:
            sample = sample._replace(answer=self._ask(needs.page))
        return sample._replace(events=self._events(needs.events))

    def close(self) -> None:
        self._count_runs(wanted=False)
        self._events(wanted=False)

    def _count_runs(self, wanted: bool) -> None:
        """Statistics cost every run of every program a few nanoseconds: only while somebody looks."""
        if wanted and self._statistics is None:
            self._statistics = bpf.enable_run_statistics()
        elif not wanted and self._statistics is not None:
            os.close(self._statistics)
            self._statistics = None

    def _events(self, wanted: bool) -> Events:
        """Listening sets the hooks to work: only while somebody looks. What failed is tried again."""
        now = self._clock()
        if self._tail is not None and (not wanted or (self._tail.ended and now >= self._listen_at)):
            self._tail.stop()
            self._tail = None
        if not wanted:
            return Events()
        if self._tail is None:
            self._listen_at = now + LISTEN_AGAIN_SECONDS
            self._tail = EventTail(lambda: Listener(self._bpffs, self._state_dir, ASKED))
        return self._tail.so_far(ANSWER_SECONDS)

    def _hooks(self) -> tuple[HookRuns, ...]:
        found = []
        for status in hook_statuses(pinned_states(self._bpffs / LINKS), self._cgroup):
            runs = nanoseconds = 0
            if status.program_id:
                try:
                    program = bpf.program_fd_by_id(status.program_id)
                except FileNotFoundError:
                    continue  # replaced in this moment
                try:
                    info = bpf.program_info(program)
                    runs, nanoseconds = info.run_count, info.run_time_ns
                finally:
                    os.close(program)
            found.append(HookRuns(status, runs, nanoseconds))
        return tuple(found)

    def _ask(self, page: str) -> Answer:
        try:
            return Answer(ask(self._state_dir, self._bpffs, page, dict[str, Any], ANSWER_SECONDS))
        except KubesockError as error:
            return Answer(error=str(error))


class _Clients:
    """Names of network namespaces and processes, looked up when sockets of new ones come, and then seldom."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.owners: dict[int, NetnsOwner] = {}
        self.processes: dict[int, dict[SocketKey, tuple[str, ...]]] = {}
        self._cookies: frozenset[int] = frozenset()
        self._not_before = 0.0

    def follow(self, walk: Walk) -> None:
        cookies = frozenset(one.cookie for one in walk.found)
        now = self._clock()
        if cookies <= self._cookies or now < self._not_before:
            return
        self.owners = owners({one.netns for one in walk.found})
        few = walk.total <= MOST_WITH_PROCESSES
        self.processes = {netns: processes(owner) for netns, owner in self.owners.items()} if few else {}
        self._cookies = cookies
        self._not_before = now + (self._clock() - now) / SHARE
