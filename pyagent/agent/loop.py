"""The loop: events in, one plan out, over and over. The only code that writes maps.

Everything that happens comes through one inbox, in the order it happened: what sources tell, changed
interface addresses, ended grace periods. What has gathered while a plan was carried out goes into the next
one, so a burst costs one plan and a single change does not wait.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from pyagent.agent.audit_rounds import AuditRounds, Writer
from pyagent.agent.clients import ClientsChanged, ClientWrites
from pyagent.agent.event_hub import EventsWanted
from pyagent.agent.facts import Facts
from pyagent.agent.grace import GraceKeeper
from pyagent.agent.growth import Growth, LargerReady
from pyagent.agent.inbox import (
    Applied,
    Failed,
    FlowsCrowded,
    GraceEnded,
    InboxEvent,
    InterfacesChanged,
    ProgramsLoaded,
    Question,
    Standing,
    Stop,
)
from pyagent.agent.latency import TriggerTimes
from pyagent.agent.opt_out import OptOut, PodCgroupsChanged, WorkloadEvent
from pyagent.agent.programmer import Programmer, Turn
from pyagent.agent.stale import BackendsUsed, Judge, Reaper
from pyagent.agent.upkeep import Upkeep
from pyagent.datapath.event_filter import filter_writes
from pyagent.datapath.held import Freed
from pyagent.desired.nodes import Settings
from pyagent.kernel.datapath import Datapath
from pyagent.model.failures import KubesockError
from pyagent.model.kube_objects import WORKLOAD_KINDS, Kind
from pyagent.model.source_events import (
    Changed,
    Deleted,
    Malformed,
    Mended,
    Replaced,
    Scoped,
    SourceEvent,
    SourceState,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

NEEDED: frozenset[Kind] = frozenset({"Service", "EndpointSlice"})
WANTED: frozenset[Kind] = frozenset({"Node", "ServiceCIDR"})
WANTED_SECONDS = 2.0
"""How long the first plan waits for Nodes and ServiceCIDRs: they are optional, but change what it says."""


class Loop:
    """Takes in events, decides when to plan, and tells what came of it. `run` is its only thread."""

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
            needed: kinds without whose lists nothing is written.
            least_seconds: between two plans.
        """
        self._datapath = datapath
        self._facts = facts
        self._applied = applied
        self._needed = needed
        self._least_seconds = least_seconds
        self._clock = clock
        self._inbox: queue.SimpleQueue[InboxEvent] = queue.SimpleQueue()
        self._grace = GraceKeeper(datapath.grace, lambda freed: self.put(GraceEnded(freed)))
        self._programmer = Programmer(
            datapath, settings, facts, reused=reused, free=self._grace.free, clock=clock
        )
        # Maps whose hooks are gone, or never were, serve nobody: hooks come when they are filled anew.
        serving = reused and any(state.attached for state in datapath.link_states())
        self._upkeep = Upkeep(datapath, facts, reused=serving, attached=programs is None, clock=clock)
        self._clients = ClientWrites(datapath.maps)
        self._growth = Growth(datapath, self.put, clock)
        self._triggers = TriggerTimes()
        self._reaper: Reaper | None = None
        self._judge = Judge(0.0)
        self._opt_out: OptOut | None = None
        self._count_flows: Callable[[], int] = lambda: 0
        self._wanted = WANTED
        self._look_at: float | None = None
        self._reused = reused
        self._listed: set[Kind] = set()
        self._scope: bool | None = None  # told, not taken yet
        self._gate_at: float | None = None
        self._dirty = False
        self._changed_since: float | None = None
        self._last_plan = clock() - least_seconds
        self._rounds = AuditRounds(self._programmer, self._besides, facts, clock)
        self._fatal: BaseException | None = None
        if programs is not None:
            programs.add_done_callback(lambda f: self.put(ProgramsLoaded(f.exception())))

    @property
    def usage(self) -> Mapping[str, tuple[int, int]]:
        """Map -> (entries, capacity), as of the last plan. Thread-safe."""
        return self._programmer.usage

    def put(self, event: InboxEvent) -> None:
        """Thread-safe; never blocks."""
        self._inbox.put(event)

    def emit(self, event: SourceEvent) -> None:
        """Where sources put their events."""
        self._inbox.put(event)

    def end_stale_sockets(self, reaper: Reaper, judge: Judge) -> None:
        """Let `reaper` end sockets on backends that `judge` gives up. Before `run`."""
        self._reaper, self._judge = reaper, judge

    def before_ids_are_cleared(self, take: Callable[[Sequence[Freed]], None]) -> None:
        """Let `take` read the counters of ids that are about to be given up. Before `run`."""
        self._programmer.before_clearing = take

    def make_room_for_flows(self, count: Callable[[], int]) -> None:
        """Let the map of flows grow with what `count` tells of its entries. Before `run`."""
        self._count_flows = count

    def leave_alone(self, opt_out: OptOut) -> None:
        """Let `opt_out` take part; the first plan waits a little for what it needs. Before `run`."""
        self._opt_out = opt_out
        self._wanted = WANTED | WORKLOAD_KINDS

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
            KubesockError: the programs cannot be loaded or attached, or the configuration changed; nothing
                else ends the loop.
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
        paced = self._last_plan + self._least_seconds if self._dirty and self._least_seconds else None
        gate = None if self._programmer.planned else self._gate_at
        due = (self._upkeep.due, self._rounds.due, self._programmer.retry_at, paced, gate, self._look_at)
        return min(at for at in due if at is not None)

    def _take(self, event: InboxEvent) -> None:
        snapshot = self._programmer.snapshot
        if self._opt_out is not None and isinstance(event, WorkloadEvent):
            self._opt_out.take(event)
        match event:
            case Replaced() if event.kind in WORKLOAD_KINDS:
                self._listed.add(event.kind)
                self._facts.listed(event.kind)
            case Changed() | Deleted() | Malformed() | Mended() if event.kind in WORKLOAD_KINDS:
                pass
            case PodCgroupsChanged():
                pass
            case Replaced():
                snapshot.replace(event.kind, event.objects, event.problems)
                if event.kind == "Node":
                    self._take_scope()
                self._listed.add(event.kind)
                self._facts.listed(event.kind)
                self._mark(event.received, event.kind, len(event.objects))
            case Changed():
                if event.kind == "EndpointSlice":
                    self._triggers.note(event.object)
                snapshot.put(event.kind, event.object)
                self._mark(event.received, event.kind)
            case Deleted():
                snapshot.delete(event.kind, event.namespace, event.name)
                self._mark(event.received, event.kind)
            case Malformed():
                snapshot.reject(event.kind, event.problem)
                self._mark(event.received)
            case Mended():
                snapshot.forgive(event.problem)
                self._mark(event.received)
            case SourceState():
                self._facts.source_state(event)
                if event.error:
                    log.warning("%s objects are not followed: %s", event.kind, event.error)
            case Scoped():
                self._scope = event.everything
                if event.everything or not self._reused or event.kind in self._listed:
                    self._take_scope()
            case InterfacesChanged():
                self._programmer.configure(
                    interface_addresses=event.addresses, link_local_addresses=event.link_local
                )
                self._mark(self._clock())
            case GraceEnded():
                self._reclaim(event)
            case FlowsCrowded():
                self._make_room()
            case Failed():
                self._fatal = event.error
            case ProgramsLoaded():
                self._fatal = event.error
            case BackendsUsed():
                self._judge_backends(event)
            case LargerReady():
                if self._growth.switch(event):
                    self._programmer.maps_were_exchanged()
            case ClientsChanged():
                self._write_clients(event)
            case EventsWanted():
                self._ask_for_events(event)
            case Question():
                self._answer(event)

    def _reclaim(self, event: GraceEnded) -> None:
        try:
            self._dirty = self._programmer.reclaim(event.freed) or self._dirty
        except (KubesockError, OSError) as error:
            log.error("counters not cleared, tried again after a grace period: %s", error)
            for one in event.freed:
                self._grace.free(one)

    def _ask_for_events(self, wanted: EventsWanted) -> None:
        try:
            self._datapath.maps.apply(filter_writes(wanted.filter, wanted.until))
        except (KubesockError, OSError) as error:
            log.error("hooks not asked for events: %s", error)

    def _take_scope(self) -> None:
        """Fewer Nodes count only with their list: until then an earlier agent's stay."""
        if self._scope is not None:
            self._programmer.configure(remote_node_ports=self._scope)
            self._scope = None
            self._dirty = True

    def _mark(self, received: float, kind: str = "", count: int = 1) -> None:
        self._dirty = True
        services = count if kind == "Service" else 0
        endpoints = count if kind == "EndpointSlice" else 0
        self._facts.queued(self._clock(), services=services, endpoints=endpoints)
        if self._changed_since is None:
            self._changed_since = received or self._clock()

    def _act(self) -> None:
        if self._opt_out is not None:
            self._opt_out.write()
        if self._may_plan():
            self._program()
        if self._look_at is not None and self._clock() >= self._look_at:
            self._look_at = None
            self._look_for_stale_sockets()
        if self._upkeep.run(self._programmer.planned):
            self._look_for_stale_sockets()  # records of another layout's maps are here only now
        if self._rounds.run():
            self._make_room()

    def _may_plan(self) -> bool:
        """Nothing is written before Services and EndpointSlices were listed: half a list is no truth."""
        now = self._clock()
        if self._programmer.retry_at is not None:
            return now >= self._programmer.retry_at
        if self._programmer.planned:
            return self._dirty and now - self._last_plan >= self._least_seconds
        if not self._needed <= self._listed:
            return False
        if self._gate_at is None:
            self._gate_at = now + WANTED_SECONDS
        return self._listed >= self._wanted or now >= self._gate_at

    def _program(self) -> None:
        started = self._last_plan = self._clock()
        turn = self._programmer.turn()
        if turn is None:
            return
        self._dirty = False
        self._tell(turn, started)
        if self._programmer.unfit:
            self._make_room()
        if turn.complete or turn.change.services:
            self._look_for_stale_sockets()
        self._applied(turn.change, self._programmer.desired, self._programmer.snapshot)

    def _tell(self, turn: Turn, started: float) -> None:
        now = self._clock()
        since, self._changed_since = self._changed_since, None
        waited = now - (started if since is None else since)
        self._facts.applied(
            now,
            services=len(turn.change.services),
            endpoints=self._triggers.changes,
            duration=now - started,
            waited=waited,
            writes=len(turn.plan.writes),
            full=turn.complete,
            latencies=self._triggers.take(time.time()),
        )
        took = (now - started) * 1e3
        log.debug("%d writes in %.1f ms, %.1f ms after the change", len(turn.plan.writes), took, waited * 1e3)

    def _make_room(self) -> None:
        full = Counter(unfit.map for unfit in self._programmer.unfit)
        flows = (self._count_flows(), self._datapath.capacities.flows)
        self._growth.consider({**self._programmer.usage, "flows": flows}, full)

    def _besides(self) -> tuple[Writer, ...]:
        return (self._datapath, self._clients, *((self._opt_out,) if self._opt_out else ()))

    def altered_besides_plans(self) -> list[str]:
        """Maps that no plan writes in which somebody else wrote. In the loop's thread: see `ask`."""
        return self._rounds.altered_besides_plans()

    def _look_for_stale_sockets(self) -> None:
        if self._reaper is not None:
            self._reaper.look()

    def _judge_backends(self, event: BackendsUsed) -> None:
        if self._reaper is None or not self._programmer.held_is_true:
            return
        doomed, self._look_at = self._judge.judge(
            event.backends, self._programmer.held, self._programmer.snapshot, self._clock()
        )
        self._reaper.answer(doomed)

    def _write_clients(self, event: ClientsChanged) -> None:
        try:
            self._datapath.maps.apply(self._clients.follow(event.clients))
        except (KubesockError, OSError) as error:
            log.error("addresses of clients not written, source ranges refuse them until they are: %s", error)

    def _answer(self, question: Question) -> None:
        made = self._programmer
        try:
            standing = Standing(made.snapshot, made.desired, made.held, made.planned)
            question.answer.set_result(question.ask(standing))
        except Exception as error:  # noqa: BLE001  whoever asked gets it
            question.answer.set_exception(error)
