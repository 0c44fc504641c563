"""Notices to the cluster as Events (events.k8s.io/v1), by a thread of its own that nobody ever waits for."""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from pyagent.cluster.backoff import Backoff
from pyagent.cluster.connection import Answer, Connection
from pyagent.cluster.decode import UNREADABLE, decode_status
from pyagent.cluster.event_book import EventBook, Series
from pyagent.cluster.refusals import MAX_STATUS_BYTES
from pyagent.cluster.resources import metadata_form
from pyagent.model.failures import ClusterUnreachable, KubesockError, sanitized
from pyagent.model.notice import Notice

log = logging.getLogger(__name__)

CONTROLLER = "kubesock"
MAX_NOTE, MAX_INSTANCE = 1024, 128  # bytes (pkg/apis/core/validation/events.go)
ANSWER_SECONDS = 30.0
SPREAD_SECONDS = 30.0
"""Nodes that find the same tell it at different moments; all but the first learn that it is told already."""

RBAC_RULE = 'apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create", "patch"]'
LATER = frozenset({408, 429, 500, 502, 503, 504})


class _Meta(msgspec.Struct, frozen=True):
    uid: str = ""


class _Item(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()


class _Items(msgspec.Struct):
    items: list[_Item] | None = None


class _Refused(ClusterUnreachable):
    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class EventRecorder:
    """`put` notices from any thread.

    Args:
        node_name: this node, whom notices about a Node without a name concern.
        spread: seconds over which nodes tell what they all find.
    """

    def __init__(
        self,
        connection: Connection,
        node_name: str,
        *,
        spread: float = SPREAD_SECONDS,
        now: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self._connection = connection
        self._node_name = node_name
        self._instance = f"{CONTROLLER}-{node_name}"[:MAX_INSTANCE]
        self._spread = spread
        self._now = now
        self._backoff = backoff or Backoff(random.random, 1.0, 120.0)
        self._book = EventBook(now())
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failing = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="event recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is not told by now is not told."""
        self._stopping.set()
        self._wake.set()
        self._connection.cut()
        self._thread.join(timeout=2)

    def put(self, notice: Notice) -> None:
        """Have a notice told some time. Never blocks, never raises."""
        delay = random.random() * self._spread if notice.everywhere else 0.0  # noqa: S311  nobody attacks a delay
        with self._lock:
            self._book.note(notice, self._now(), time.time(), delay)
        self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            with self._lock:
                series, wait = self._book.next(self._now())
                if series is not None:
                    self._book.taken(series, self._now())
                dropped, self._dropped = self._book.dropped - self._dropped, self._book.dropped
            if dropped:
                log.warning("%d notices for the cluster's Events were dropped: too many at once", dropped)
            if series is None:
                self._wake.wait(wait)
                continue
            pause = self._tell(series)
            if pause:
                self._stopping.wait(pause)
        self._connection.close()

    def _tell(self, series: Series) -> float:
        """Make one Event, or count on; returns the seconds to leave the API server alone."""
        count = series.count
        try:
            name = self._send(series, count)
        except _Refused as error:
            self._failed(error)
            if error.code in LATER:
                return self._backoff.next()
            name = ""  # a refusal that stays: nobody is bothered with this one again before it repeats
        except KubesockError as error:
            self._failed(error)
            return self._backoff.next()
        except Exception:
            log.exception("an Event is not recorded: unforeseen, please report it: %s", series.notice)
            name = ""  # as a refusal that stays: one notice must not end the agent
        else:
            self._failing = False
            self._backoff.worked()
        with self._lock:
            self._book.told(series, count, self._now(), name)
        return 0.0

    def _failed(self, error: KubesockError) -> None:
        if not self._failing and not self._stopping.is_set():
            log.warning("Events are not recorded: %s", error)
        self._failing = True

    def _send(self, series: Series, count: int) -> str:
        """The name of the Event that has the notice now; "" if it has none and needs none."""
        notice = series.notice
        folder = f"/apis/events.k8s.io/v1/namespaces/{quote(notice.namespace or 'default')}/events"
        if series.event_name:
            body = msgspec.json.encode({"series": _series(series, count)})
            if self._answered("PATCH", f"{folder}/{quote(series.event_name)}", body, {200}, {404}):
                return series.event_name
        uid = self._uid(notice)
        if uid is None:
            return ""  # what it was about is gone
        event = self._event(series, count, uid)
        name: str = event["metadata"]["name"]
        made = self._answered("POST", folder, msgspec.json.encode(event), {200, 201, 202}, {409})
        # Where another node was first, the Event is its own to count on.
        return name if made or not notice.everywhere else ""

    def _answered(self, method: str, path: str, body: bytes, good: set[int], other: set[int]) -> bool:
        """True for a status in `good`, False for one in `other`.

        Raises:
            ClusterUnreachable: any other answer, or none.
        """
        send = self._connection.patch if method == "PATCH" else self._connection.post
        answer = send(path, body, ANSWER_SECONDS)
        if answer.status == 401:
            self._connection.renew()
            answer = send(path, body, ANSWER_SECONDS)
        text = answer.read_all(MAX_STATUS_BYTES)
        if answer.status in good | other:
            return answer.status in good
        raise _Refused(answer.status, _explained(answer, text))

    def _uid(self, notice: Notice) -> str | None:
        """The object's UID, by which `kubectl describe` finds its Events; None: there is no such object."""
        if notice.kind == "Node":
            return notice.name or self._node_name  # as kubelet has it
        query = urlencode({"fieldSelector": f"metadata.name={notice.name}", "limit": "1"})
        path = f"/api/v1/namespaces/{quote(notice.namespace)}/services?{query}"
        answer = self._connection.get(path, ANSWER_SECONDS, metadata_form(watch=False))
        text = answer.read_all(MAX_STATUS_BYTES)
        if answer.status != 200:
            raise _Refused(answer.status, _explained(answer, text))
        try:
            items = msgspec.json.decode(text, type=_Items).items
        except UNREADABLE:
            return ""
        return items[0].metadata.uid if items else None

    def _event(self, series: Series, count: int, uid: str) -> dict[str, Any]:
        notice = series.notice
        subject = notice.name or self._node_name
        about = {"apiVersion": "v1", "kind": notice.kind, "name": subject, "uid": uid}
        if notice.namespace:
            about["namespace"] = notice.namespace
        event: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{subject[:200]}.{self._suffix(series)}",
                "namespace": notice.namespace or "default",
            },
            "eventTime": _micro_time(series.first),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": notice.action,
            "reason": notice.reason,
            "regarding": about,
            "note": _clipped(notice.text),
            "type": "Warning" if notice.warning else "Normal",
        }
        if count > 1:
            event["series"] = _series(series, count)
        return event

    def _suffix(self, series: Series) -> str:
        """The same on all nodes for what all of them find, so that the API server keeps one."""
        notice = series.notice
        if not notice.everywhere:
            return f"{int(series.first * 1e9):x}"
        text = "\0".join((notice.kind, notice.namespace, notice.name, notice.reason, notice.text))
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def _series(series: Series, count: int) -> dict[str, object]:
    return {"count": count, "lastObservedTime": _micro_time(series.last)}


def _micro_time(seconds: float) -> str:
    """`MicroTime` of meta/v1."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _clipped(text: str) -> str:
    raw = text.encode(errors="replace")
    if len(raw) <= MAX_NOTE:
        return raw.decode()
    return raw[: MAX_NOTE - 3].decode(errors="ignore") + "…"


def _explained(answer: Answer, text: bytes | bytearray) -> str:
    if answer.status == 403:
        return f"not allowed (403); add to the agent's ClusterRole: {RBAC_RULE}"
    message = decode_status(text).message
    return f"the API server answered {answer.status}{': ' + sanitized(message, 200) if message else ''}"
