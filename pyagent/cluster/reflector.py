"""Follow one kind: list it, watch it, and after every gap find out what was missed.

Each kind has its own thread and connection. The rules are those of client-go's reflector, with three
additions: a list that has lost all or most is believed only when a quorum read says the same (`_believed`), a
version that goes backwards means another history and leads to a new list (`_check_history`), and streams that
keep being cut cost a bounded rate.
"""

from __future__ import annotations

import logging
from typing import Literal

from pyagent.cluster.backoff import Backoff, ResumeBudget, jittered
from pyagent.cluster.connection import Answer, Connection, TooLarge
from pyagent.cluster.decode import Narrow, NotReadable, WatchLine, as_it_is, decode_watch_line
from pyagent.cluster.history import Doubt, is_older
from pyagent.cluster.lines import LineSplitter
from pyagent.cluster.lists import Listed, Lists
from pyagent.cluster.refusals import TRANSIENT, Expired, Refused, failure_in_stream
from pyagent.cluster.resources import Resource, watch_query
from pyagent.cluster.surroundings import DEFAULT_TIMING, Figures, Stopped, Surroundings, Timing
from pyagent.model.failures import ClusterUnreachable, KubesockError
from pyagent.model.kube_objects import KubeObject
from pyagent.model.source_events import Changed, Deleted, Emit, Malformed, Problem, Replaced, SourceState

log = logging.getLogger(__name__)

MANY = 10
"""Of so many objects, a list that is no quorum read does not take away more than half without one."""


class Reflector:
    """Emits what the API server says about one kind. Run by one thread; `cut` may come from another."""

    def __init__(
        self,
        resource: Resource,
        connection: Connection,
        emit: Emit,
        surroundings: Surroundings,
        timing: Timing = DEFAULT_TIMING,
        had_objects: bool = False,
        narrow: Narrow = as_it_is,
    ) -> None:
        """Args:
        had_objects: objects of this kind are in use from an earlier run, so that even a first list is
            believed to be empty only when confirmed.
        narrow: applied to the objects of lists, which are many.
        """
        self._connection = connection
        self._emit = emit
        self._around = surroundings
        self._timing = timing
        self._narrow = narrow
        self._lists = Lists(resource, connection, surroundings, timing, narrow)
        self._held = int(had_objects)  # at least so many; more is known once there was a list
        self._cursor = ""
        # What is in use may be newer than what a server has at hand: then only a quorum will do.
        self._list_version = "" if had_objects and not resource.scattered else "0"
        self._streamed_lists = True
        self._skip_streamed_list = False
        self._relist_at = 0.0
        self._replaced_at = 0.0
        self._doubt = Doubt()
        self._failures = self._new_backoff()
        self._relists = self._new_backoff()
        self._resumes = ResumeBudget(surroundings.now())
        self._said: tuple[str, str] = ("", "")

    @property
    def resource(self) -> Resource:
        return self._lists.resource

    @property
    def figures(self) -> Figures:
        return self._lists.figures

    def run(self) -> None:
        """Follow until stopped."""
        self._say("connecting")
        while True:
            try:
                self._around.sleep(self._guarded_round())
            except Stopped:
                self._connection.close()
                return

    def _guarded_round(self) -> float:
        """A thread that ended would leave its kind as it is, without a word."""
        try:
            return self._round()
        except Stopped:
            raise
        except Exception as error:
            log.exception("following %s: unforeseen, please report it", self.resource.plural)
            self._connection.close()
            self._forget()
            return self._failed(KubesockError(f"{type(error).__name__}: {error}"), self._failures.next())

    def cut(self) -> None:
        """Wake the thread out of any read, for good."""
        self._connection.cut()

    def _round(self) -> float:
        """One list or one stream; returns the seconds to wait before the next."""
        try:
            if self._cursor and self._around.now() >= self._relist_at:
                self._list_version, self._cursor = self._cursor, ""
                self._skip_streamed_list = False
            if not self._cursor:
                self._before_list()
                if not self._streamed_lists or self._skip_streamed_list:
                    return self._list()
            elif not self._doubt.left(self._around.now()):
                return self._check_history()
            return self._watch()
        except (Expired, NotReadable, TooLarge) as error:
            # A line that cannot be read would not be readable the next time either: a list skips it, and
            # comes in pages.
            self._forget()
            if self._around.now() - self._replaced_at > 2 * self._timing.backoff_longest:
                self._relists.worked()
            return self._failed(error, self._relists.next())
        except Refused as error:
            self._doubt.no_server(self._around.now())
            if error.code == 404 and self.resource.optional:
                return self._absent()
            return self._failed(error, self._after_refusal(error))
        except KubesockError as error:
            self._doubt.no_server(self._around.now())
            return self._failed(error, self._failures.next())

    # --- lists

    def _before_list(self) -> None:
        """For whoever follows different objects at different times."""

    def _list(self) -> float:
        self._say("listing")
        listed = self._lists.read(self._list_version)
        if not self._believed(listed.total, quorum=not self._list_version):
            listed = self._lists.read("")
        self._replace(listed)
        return 0.0

    def _believed(self, count: int, quorum: bool) -> bool:
        """Whether a list of this length can be passed on.

        A list without items after one with some is what a broken or half-restored server answers; one that
        was wiped has made its own `default/kubernetes` again. It is asked again, a moment later and from a
        quorum; only that answer takes everything away, or most of it.
        """
        lost_most = not quorum and self._held >= MANY and 2 * count < self._held
        if not lost_most and (count or not self._held):
            return True
        self._around.sleep(self._timing.confirm_empty)
        return False

    def _replace(self, listed: Listed) -> None:
        self._held = listed.total
        self._cursor, self._list_version = listed.version, listed.version
        self._doubt.settle()
        self._replaced_at = self._around.now()
        # Thousands of nodes do this: what it costs the servers must not grow with the lists too.
        pause = max(self._timing.relist_after, listed.size / self._timing.relist_bytes_a_second)
        self._relist_at = self._replaced_at + jittered(pause, 0.33, self._around.random)
        self._emit(Replaced(self.resource.kind, listed.objects, tuple(listed.problems), listed.received))

    def _forget(self) -> None:
        self._cursor, self._list_version = "", ""
        self._skip_streamed_list = False

    # --- streams

    def _check_history(self) -> float:
        """Before a watch is resumed after a gap: whether this server has what we have seen."""
        now = self._around.now()
        self._doubt.asking(now)
        try:
            version = self._lists.current_version()
        except Refused as error:
            self._doubt.refused(now)
            if error.code < 500 and error.code not in (401, 429):
                # Not what it cannot do at the moment, but what we may not ask: the watch may be allowed.
                log.debug("whether the API server has older data cannot be asked: %s", error)
                self._doubt.settle()
                return self._failures.next()
            return self._failed(error, self._patience(error))
        self._doubt.settle()
        self._refuse_older(version)
        return 0.0

    def _watch(self) -> float:
        initial: dict[tuple[str, str], KubeObject | Problem] | None = None if self._cursor else {}
        if initial is not None:
            self._say("listing")
            self.figures.lists += 1
        seconds = int(self._watch_seconds()) or 1
        query = watch_query(self.resource, self._lists.fields, self._cursor, seconds)
        # Until it is followed by the end of its list, a streamed list is only tried: next time the plain one.
        self._skip_streamed_list = initial is not None
        answer = self._lists.request(query, self.resource.accept(watch=True))
        self.figures.streams += 1
        began, before = self._around.now(), self.figures.events
        if initial is None:
            self._say("watching")
        try:
            finished = self._read_stream(answer, initial)
        except (Refused, Expired):
            raise
        except ClusterUnreachable as error:
            self._doubt.stream_cut(self._around.now())
            return self._failed(error, self._resume_delay(began, before))
        finally:
            answer.close()
        if not finished:
            self._replace(self._lists.read(""))
            return 0.0
        if self._around.now() - began < seconds - 1:
            self._doubt.stream_cut(self._around.now())
        return self._resume_delay(began, before)

    def _watch_seconds(self) -> float:
        seconds = jittered(self._timing.watch, 0.1, self._around.random)
        return min(seconds, self._doubt.left(self._around.now())) if self._cursor else seconds

    def _read_stream(
        self, answer: Answer, initial: dict[tuple[str, str], KubeObject | Problem] | None
    ) -> bool:
        """Read to the proper end. False if its list needs to be confirmed."""
        splitter, size = LineSplitter(), 0
        while piece := answer.read_piece():
            received = self.figures.last_byte = self._around.now()
            for line in splitter.feed(piece):
                event = decode_watch_line(self.resource.kind, line)
                if initial is None:
                    self._apply(event, received)
                    continue
                size += len(line)
                complete = self._gather(event, initial)
                self._lists.check_size(len(initial), size)
                if complete:
                    if not self._believed(len(initial), quorum=True):
                        return False
                    self._end_of_streamed_list(initial, event.resource_version, received, size)
                    initial = None
        if splitter.incomplete:
            raise ClusterUnreachable("the stream ended in the middle of a line")
        return True

    def _gather(self, event: WatchLine, initial: dict[tuple[str, str], KubeObject | Problem]) -> bool:
        """Add an event to the streamed list; True when it is complete."""
        key = (event.namespace, event.name)
        match event.type:
            case "ADDED" | "MODIFIED":
                if event.object is not None:
                    initial[key] = self._narrow(event.object)
                elif event.problem is not None:
                    initial[key] = event.problem
            case "DELETED":
                initial.pop(key, None)
            case "ERROR":
                failure = failure_in_stream(self.resource, event.status)
                if isinstance(failure, Refused) and failure.code not in TRANSIENT:
                    self._streamed_lists = False
                raise failure
            case "BOOKMARK":
                return event.initial_events_end
        return False

    def _end_of_streamed_list(
        self, initial: dict[tuple[str, str], KubeObject | Problem], version: str, received: float, size: int
    ) -> None:
        objects = [found for found in initial.values() if not isinstance(found, Problem)]
        problems = [found for found in initial.values() if isinstance(found, Problem)]
        self._replace(Listed(objects, problems, version, received, size))
        self._skip_streamed_list = False
        self._failures.worked()
        self._say("watching")

    def _apply(self, event: WatchLine, received: float) -> None:
        kind = self.resource.kind
        if event.type == "ERROR":
            raise failure_in_stream(self.resource, event.status)
        if event.type == "UNKNOWN" or (event.type == "DELETED" and not event.name):
            raise NotReadable(f"the {kind} watch sent an event that cannot be understood")
        self._advance(event.resource_version)
        self._failures.worked()
        self.figures.events += 1
        self._count(event.type)
        if event.type == "DELETED":
            self._emit(Deleted(kind, event.namespace, event.name, received))
        elif event.object is not None:
            self._emit(Changed(kind, event.object, received))
        elif event.problem is not None:
            self._emit(Malformed(kind, event.problem, received))

    def _count(self, event: str) -> None:
        match event:
            case "ADDED":
                self._held += 1
            case "MODIFIED":
                self._held = max(1, self._held)
            case "DELETED":
                self._held = max(1, self._held - 1)

    def _advance(self, version: str) -> None:
        """Move the cursor; versions of one kind only grow (KEP-5504) while the history is the same."""
        if version:
            self._refuse_older(version)
            self._cursor = version

    def _refuse_older(self, version: str) -> None:
        if is_older(version, self._cursor):
            raise Expired(
                f"{self.resource.plural} went back from version {self._cursor[:20]} to {version[:20]}: "
                "the API server serves older data"
            )

    def _resume_delay(self, began: float, events_before: int) -> float:
        now = self._around.now()
        wait = self._resumes.wait(now)
        if self.figures.events > events_before or now - began >= self._timing.healthy:
            self._failures.worked()
            return wait
        return max(wait, self._failures.next())

    # --- refusals

    def _after_refusal(self, error: Refused) -> float:
        """Adapt to what this server cannot do; returns the seconds to wait."""
        if (
            error.code in (400, 422)
            and not self._cursor
            and self._skip_streamed_list
            and self._streamed_lists
        ):
            self._streamed_lists = False
            return 0.0
        if error.code == 400 and self._lists.fields and self.resource.field_selector_optional:
            self._lists.fields = False
            return 0.0
        if error.code == 504 and not self._cursor and self._list_version not in ("", "0"):
            self._list_version = ""  # this server is behind the one we followed, or has an older history
        if not self._streamed_lists and self._skip_streamed_list and error.code not in TRANSIENT:
            self._skip_streamed_list = False
            return 0.0  # refused inside the stream: the plain list is next
        return self._patience(error)

    def _patience(self, error: Refused) -> float:
        wait = self._failures.next()
        if error.retry_after:
            wait = max(wait, error.retry_after * (1 + 0.2 * self._around.random()))
        return wait

    def _absent(self) -> float:
        self._forget()
        if self._lists.other_path():
            return 0.0
        if self._held and self._replaced_at:  # an API that vanishes is as doubtful as an empty list
            self._held = 0
            return self._timing.confirm_empty
        self._emit(Replaced(self.resource.kind, [], (), self._around.now()))
        self._say("watching")
        return jittered(self._timing.absent_api, 0.2, self._around.random)

    def _failed(self, error: KubesockError, wait: float) -> float:
        if self._around.stop.is_set():
            raise Stopped
        self.figures.failures += 1
        if wait:
            self._say("disconnected", str(error))
        return wait

    def _say(
        self, state: Literal["connecting", "listing", "watching", "disconnected"], error: str = ""
    ) -> None:
        if self._said != (state, error):
            self._said = (state, error)
            self._emit(SourceState(self.resource.kind, state, error, self._cursor))

    def _new_backoff(self) -> Backoff:
        return Backoff(self._around.random, self._timing.backoff_first, self._timing.backoff_longest)
