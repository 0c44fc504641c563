"""The loop: events in, one plan out, over and over. The only code that writes maps.

Everything that happens comes through one inbox, in the order it happened: what sources tell, changed
interface addresses, ended grace periods. What has gathered while a plan was carried out goes into the next
one, so a burst costs one plan and a single change does not wait.
"""

from __future__ import annotations

import gc
import logging
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from pyagent.agent.clients import ClientsChanged, ClientWrites
from pyagent.agent.facts import Facts
from pyagent.agent.grace import GraceKeeper
from pyagent.agent.latency import TriggerTimes
from pyagent.agent.stale import BackendsUsed, Judge, Reaper
from pyagent.datapath.held import Freed, HeldState
from pyagent.datapath.plan import Plan, plan
from pyagent.datapath.restored import restore
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.probe import silent_hooks
from pyagent.model.failures import KubesockError
from pyagent.model.kube_objects import Kind
from pyagent.model.service import DesiredChange
from pyagent.model.source_events import (
    Changed,
    Deleted,
    Malformed,
    Replaced,
    SourceEvent,
    SourceState,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

NEEDED: frozenset[Kind] = frozenset({"Service", "EndpointSlice"})
WANTED: frozenset[Kind] = frozenset({"Node", "ServiceCIDR"})
WANTED_SECONDS = 2.0
"""How long the first plan waits for Nodes and ServiceCIDRs: they are optional, but change what it says."""

MAINTENANCE_SECONDS = 2.0
RETRY_SECONDS = (0.1, 10.0)
AUDIT_SECONDS = 1800.0


class InterfacesChanged(msgspec.Struct, frozen=True):
    """This node's interface addresses, 16 bytes each."""

    addresses: frozenset[bytes]


class ProtectedChanged(msgspec.Struct, frozen=True):
    """Addresses of the API server, which no external address may take."""

    addresses: frozenset[bytes]


class GraceEnded(msgspec.Struct, frozen=True):
    freed: tuple[Freed, ...]


class ProgramsLoaded(msgspec.Struct, frozen=True):
    """The compile child has finished; `error` if it failed."""

    error: BaseException | None = None


class Standing(NamedTuple):
    """The loop's state, for questions that only it can answer. Read it, keep nothing of it."""

    snapshot: Snapshot
    desired: DesiredState
    held: HeldState
    planned: bool


class Question(msgspec.Struct, frozen=True):
    ask: Callable[[Standing], Any]
    answer: Future[Any]


class Stop(msgspec.Struct, frozen=True):
    pass


InboxEvent = (
    SourceEvent
    | InterfacesChanged
    | ProtectedChanged
    | GraceEnded
    | ProgramsLoaded
    | BackendsUsed
    | ClientsChanged
    | Question
    | Stop
)


class Applied(Protocol):
    """Called after each carried-out plan, in the loop's thread."""

    def __call__(self, change: DesiredChange, desired: DesiredState, snapshot: Snapshot, /) -> None: ...


class Loop:
    """Owner of snapshot, desired state, held state and the kernel's maps. `run` is its only thread."""

    def __init__(
        self,
        datapath: Datapath,
        settings: Settings,
        facts: Facts,
        *,
        reused: bool,
        programs: Future[None] | None,
        applied: Applied,
        needed: frozenset[Kind] = NEEDED,
        least_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            reused: the maps are an earlier agent's and already serve.
            programs: loading of our programs; None when the attached ones are ours already.
            least_seconds: between two plans.
            needed: kinds without whose lists nothing is written.
        """
        self._datapath = datapath
        self._settings = settings
        self._facts = facts
        self._applied = applied
        self._needed = needed
        self._least_seconds = least_seconds
        self._last_plan = -least_seconds
        self.usage: Mapping[str, tuple[int, int]] = {}
        self._clock = clock
        self._inbox: queue.SimpleQueue[InboxEvent] = queue.SimpleQueue()
        self._snapshot = Snapshot(settings.node_name)
        self._desired = DesiredState(settings)
        self._held = HeldState(datapath.capacities)
        self._held_is_true = not reused
        self._grace = GraceKeeper(datapath.grace, lambda freed: self.put(GraceEnded(freed)))
        self._listed: set[Kind] = set()
        self._triggers = TriggerTimes()
        self._changed_since: float | None = None
        self._planned = False
        self._attached = programs is None
        self._reused = reused
        self._dirty = False
        self._last_plan = self._clock()
        self.usage = self._held.usage()
        self._retry_at: float | None = None
        self._retry_wait = RETRY_SECONDS[0]
        self._started = clock()
        self._gate_at: float | None = None
        self._maintenance_at = self._started
        self._audit_at = self._started + AUDIT_SECONDS
        self._probe_wanted = True
        self._reaper: Reaper | None = None
        self._judge = Judge(0.0)
        self._clients = ClientWrites(datapath.maps)
        self._look_at: float | None = None
        self._fatal: BaseException | None = None
        if programs is not None:
            programs.add_done_callback(lambda f: self.put(ProgramsLoaded(f.exception())))

    def put(self, event: InboxEvent) -> None:
        """Thread-safe; never blocks."""
        self._inbox.put(event)

    def emit(self, event: SourceEvent) -> None:
        """Where sources put their events."""
        self._inbox.put(event)

    def end_stale_sockets(self, reaper: Reaper, judge: Judge) -> None:
        """Let `reaper` end sockets on backends that `judge` gives up. Before `run`."""
        self._reaper, self._judge = reaper, judge

    def ask(self, question: Callable[[Standing], T]) -> Future[T]:
        """The answer to a question about the loop's state, found in its thread between two plans."""
        answer: Future[T] = Future()
        self.put(Question(question, answer))
        return answer

    def stop(self) -> None:
        self.put(Stop())

    def run(self) -> None:
        """Until `stop`. What is attached stays attached.

        Raises:
            KubesockError: the programs cannot be loaded or attached; nothing else ends the loop.
        """
        self._grace.start()
        try:
            while self._take_in():
                if self._fatal is not None:
                    raise self._fatal
                self._act()
        finally:
            self._grace.stop()

    def _take_in(self) -> bool:
        """Wait for something to do and take in all that is there; False to stop."""
        try:
            event: InboxEvent | None = self._inbox.get(timeout=max(0.0, self._next_due() - self._clock()))
        except queue.Empty:
            return True
        while event is not None:
            if isinstance(event, Stop):
                return False
            self._take(event)
            try:
                event = self._inbox.get_nowait()
            except queue.Empty:
                event = None
        return True

    def _next_due(self) -> float:
        due = [self._maintenance_at]
        if self._dirty and self._least_seconds:
            due.append(self._last_plan + self._least_seconds)
        if self._retry_at is not None:
            due.append(self._retry_at)
        if not self._planned and self._gate_at is not None:
            due.append(self._gate_at)
        if self._look_at is not None:
            due.append(self._look_at)
        return min(due)

    def _take(self, event: InboxEvent) -> None:
        match event:
            case Replaced():
                self._snapshot.replace(event.kind, event.objects, event.problems)
                self._listed.add(event.kind)
                self._facts.listed(event.kind)
                self._mark(event.received, event.kind, len(event.objects))
            case Changed():
                if event.kind == "EndpointSlice":
                    self._triggers.note(event.object)
                self._snapshot.put(event.kind, event.object)
                self._mark(event.received, event.kind)
            case Deleted():
                self._snapshot.delete(event.kind, event.namespace, event.name)
                self._mark(event.received, event.kind)
            case Malformed():
                self._snapshot.reject(event.kind, event.problem)
                self._mark(event.received)
            case SourceState():
                self._facts.source_state(event)
            case InterfacesChanged():
                self._configure(interface_addresses=event.addresses)
            case ProtectedChanged():
                self._configure(protected_addresses=event.addresses)
            case GraceEnded():
                for freed in event.freed:
                    self._held.reclaim(freed)
                self._dirty = self._dirty or bool(self._held.waiting)
            case ClientsChanged():
                self._write_clients(event)
            case Question():
                self._answer(event)
            case BackendsUsed():
                self._judge_backends(event)
            case ProgramsLoaded():
                self._fatal = event.error
                self._attached = False

    def _write_clients(self, event: ClientsChanged) -> None:
        try:
            self._datapath.maps.apply(self._clients.follow(event.clients))
        except (KubesockError, OSError) as error:
            self._clients = ClientWrites(self._datapath.maps)
            log.error("addresses of clients not written, source ranges refuse them: %s", error)

    def _answer(self, question: Question) -> None:
        standing = Standing(self._snapshot, self._desired, self._held, self._planned)
        try:
            question.answer.set_result(question.ask(standing))
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            question.answer.set_exception(error)

    def _judge_backends(self, event: BackendsUsed) -> None:
        if self._reaper is None or not self._held_is_true:
            return
        doomed, self._look_at = self._judge.judge(event.backends, self._held, self._snapshot, self._clock())
        self._reaper.answer(doomed)

    def _configure(self, **changes: Any) -> None:
        self._settings = msgspec.structs.replace(self._settings, **changes)
        self._desired.configure(self._settings)
        self._mark(self._clock())

    def _mark(self, received: float, kind: str = "", count: int = 1) -> None:
        self._dirty = True
        services = count if kind == "Service" else 0
        endpoints = count if kind == "EndpointSlice" else 0
        self._facts.queued(self._clock(), services=services, endpoints=endpoints)
        if self._changed_since is None:
            self._changed_since = received or self._clock()

    def _act(self) -> None:
        if self._may_plan() and (self._dirty or not self._planned or self._retry_due()):
            self._program()
        if self._may_attach():
            self._attach()
        if self._look_at is not None and self._clock() >= self._look_at:
            self._look_at = None
            self._look_for_stale_sockets()
        if self._clock() >= self._maintenance_at:
            self._maintain()

    def _may_plan(self) -> bool:
        """Nothing is written before Services and EndpointSlices were listed: half a list is no truth."""
        if not self._needed <= self._listed:
            return False
        if self._planned:
            waited = self._clock() - self._last_plan >= self._least_seconds
            return waited and (self._retry_at is None or self._retry_due())
        if self._listed >= WANTED:
            return True
        if self._gate_at is None:
            self._gate_at = self._clock() + WANTED_SECONDS
        return self._clock() >= self._gate_at

    def _retry_due(self) -> bool:
        return self._retry_at is not None and self._clock() >= self._retry_at

    def _program(self) -> None:
        """One turn: what changed, planned and carried out; a failure is repeated later in full."""
        started = self._clock()
        dirty = self._snapshot.take_dirty() if self._planned else self._snapshot.everything()
        if not self._planned:
            self._snapshot.take_dirty()
        change = self._desired.update(self._snapshot, dirty)
        self._facts.problems_changed(change.new_problems, change.cleared_problems)
        complete = not (self._planned and self._held_is_true)
        try:
            done = self._carry_out(self._desired.full() if complete else change, complete)
        except (KubesockError, OSError) as error:
            self._failed(error)
            return
        self._dirty = False
        self._retry_at, self._retry_wait = None, RETRY_SECONDS[0]
        self._facts.unfit(done.unfit)
        self._note_applied(change, done, started, complete)
        if not self._planned:
            self._planned = True
            gc.collect()
            gc.freeze()
        if complete or change.service_ports:
            self._look_for_stale_sockets()
        self._applied(change, self._desired, self._snapshot)

    def _look_for_stale_sockets(self) -> None:
        if self._reaper is not None:
            self._reaper.look()

    def _carry_out(self, change: DesiredChange, complete: bool) -> Plan:
        if not self._held_is_true:
            self._datapath.grace.wait()
            self._held = restore(self._datapath.raw(), self._datapath.capacities)
        # Until it is carried out the held state is ahead of the kernel: a failure makes it worthless.
        self._held_is_true = False
        made = plan(self._held, change, complete=complete)
        self._datapath.maps.apply(made.writes)
        self._held_is_true = True
        if made.freed:
            self._grace.free(made.freed)
        return made

    def _failed(self, error: Exception) -> None:
        self._facts.apply_failed(self._clock(), str(error))
        log.error("maps not written, tried again in %.1f s: %s", self._retry_wait, error)
        self._retry_at = self._clock() + self._retry_wait
        self._retry_wait = min(self._retry_wait * 2, RETRY_SECONDS[1])

    def _note_applied(self, change: DesiredChange, done: Plan, started: float, full: bool) -> None:
        now = self._clock()
        waited = now - (self._changed_since if self._changed_since is not None else started)
        self._changed_since = None
        took = now - started
        self._facts.applied(
            now,
            services=len(change.service_ports),
            endpoints=self._triggers.changes,
            duration=took,
            waited=waited,
            writes=len(done.writes),
            full=full,
            latencies=self._triggers.take(time.time()),
        )
        log.debug(
            "%d writes in %.1f ms, %.1f ms after the change", len(done.writes), took * 1e3, waited * 1e3
        )

    def _may_attach(self) -> bool:
        """New maps are attached once they are filled; reused ones serve already."""
        return not self._attached and self._datapath.programs_ready and (self._planned or self._reused)

    def _attach(self) -> None:
        self._datapath.attach()
        self._attached = True
        self._maintenance_at = self._clock()
        log.info("hooks attached at %s", self._datapath.cgroup)

    def _maintain(self) -> None:
        """Links and pins as they should be; the self-probe until it has answered, and after repairs."""
        self._maintenance_at = self._clock() + MAINTENANCE_SECONDS
        if not self._attached:
            return
        try:
            repaired = self._datapath.repair()
        except (KubesockError, OSError) as error:
            log.error("hooks not repaired, tried again in %.0f s: %s", MAINTENANCE_SECONDS, error)
            repaired = []
        for line in repaired:
            log.warning("repaired %s", line)
            self._facts.repaired(line)
        self._facts.hooks([(s.hook.name.lower(), s.attached) for s in self._datapath.link_states()])
        if self._planned and (self._probe_wanted or repaired):
            self._probe()

    def _probe(self) -> None:
        silent = silent_hooks(self._datapath.cgroup, self._datapath.hooks)
        if silent is None:
            unseen = self._datapath.hooks_not_effective()
            self._facts.probed(not unseen, ", ".join(unseen))
        else:
            names = [f"{hook.name.lower()} (errno {number})" for hook, number in silent.items()]
            self._facts.probed(not names, ", ".join(names))
        ok, reasons = self._facts.ready()
        if ok:
            self._probe_wanted = False
            log.info("ready after %.2f s", self._clock() - self._started)
        else:
            log.warning("not ready: %s", "; ".join(reasons))
