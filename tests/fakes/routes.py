"""One connection to the test API server."""

from __future__ import annotations

import json
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.faults import Fault
from tests.fakes.store import RESOURCES, Object, Resource, selected

if TYPE_CHECKING:
    from tests.fakes.api_server import ApiServer

NO_FAULT = Fault("slow")


class StreamEnds(Exception):
    """The watch is over, properly."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def api(self) -> ApiServer:
        owner: ApiServer = self.server.owner  # type: ignore[attr-defined]
        return owner

    def setup(self) -> None:
        self.request.do_handshake()
        super().setup()

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: tests look at `ApiServer.requests`."""

    def do_POST(self) -> None:
        from tests.fakes.api_server import as_json, command

        if not self.path.startswith("/_test/"):
            self._write("create")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._authorized():
            self._status(401, "Unauthorized", "Unauthorized")
            return
        try:
            command(self.api, self.path.removeprefix("/_test/"), as_json(body))
        except (ValueError, KeyError, TypeError) as error:
            self._status(400, "BadRequest", str(error))
            return
        self._json(200, {})

    def do_PATCH(self) -> None:
        self._write("patch")

    def _write(self, verb: str) -> None:
        """Create or patch an Event, or patch a Node; nothing else can be written."""
        from tests.fakes.api_server import Request, as_json

        body = as_json(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        found, node = _EVENTS.fullmatch(self.path), _NODE.fullmatch(self.path) if verb == "patch" else None
        authorization = self.headers.get("Authorization", "")
        kind = "Event" if found else "Node" if node else self.path
        self.api.note(Request(time.monotonic(), verb, kind, {}, authorization, "", self.path, body))
        fault = self.api.faults.take(verb, kind) or NO_FAULT
        if not self._authorized():
            self._status(401, "Unauthorized", "Unauthorized")
        elif self._early_fault(fault):
            return
        elif node is not None:
            self._patch_node(node["name"], body)
        elif found is None or (verb == "create") == bool(found["name"]):
            self._status(404, "NotFound", "the server could not find the requested resource")
        else:
            self._write_event(verb, found["namespace"], found["name"] or body["metadata"]["name"], body)

    def _patch_node(self, name: str, body: Object) -> None:
        """A strategic merge patch, in which taints and addresses count as one value each."""
        with self.api.store.changed:
            held = self.api.store.objects["Node"].get(("", name))
            asked = body.get("metadata", {}).get("resourceVersion")
            if held is None:
                self._status(404, "NotFound", f'nodes "{name}" not found')
            elif asked not in (None, held["metadata"]["resourceVersion"]):
                self._status(409, "Conflict", "the object has been modified")
            else:
                self.api.store.put({**held, "spec": held.get("spec", {}) | body.get("spec", {})})
                self._json(200, self.api.store.objects["Node"]["", name])

    def _write_event(self, verb: str, namespace: str, name: str, body: Object) -> None:
        events, key = self.api.events, f"{namespace}/{name}"
        if verb == "patch" and key not in events:
            self._status(404, "NotFound", f'events "{name}" not found')
        elif verb == "create" and key in events:
            self._status(409, "AlreadyExists", f'events "{name}" already exists')
        elif wrong := wrong_event(events.get(key, {}) | body, namespace):
            self._status(422, "Invalid", wrong)
        else:
            events[key] = events.get(key, {}) | body
            self._json(201 if verb == "create" else 200, events[key])

    def do_GET(self) -> None:
        from tests.fakes.api_server import Request

        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        self._namespace = ""
        if found := _IN_NAMESPACE.fullmatch(url.path):
            url = url._replace(path=found["root"] + found["plural"])
            self._namespace = found["namespace"]
        resource = next((r for r in RESOURCES if r.path == url.path), None)
        verb = "watch" if query.get("watch") in ("1", "true") else "list"
        kind = resource.kind if resource else url.path
        authorization, accept = self.headers.get("Authorization", ""), self.headers.get("Accept", "")
        self.api.note(Request(time.monotonic(), verb, kind, query, authorization, accept, url.path))
        quorum = "resourceVersion" not in query
        page = "next" if "continue" in query else "first"
        fault = self.api.faults.take(verb, kind, "sendInitialEvents" in query, quorum, page) or NO_FAULT
        if not self._authorized():
            self._status(401, "Unauthorized", "Unauthorized")
        elif resource is None or resource.kind in self.api.absent_kinds:
            self._status(404, "NotFound", "the server could not find the requested resource")
        elif resource.kind in self.api.forbidden_without_selector and "fieldSelector" not in query:
            self._status(403, "Forbidden", "not without a field selector")
        elif self._early_fault(fault):
            return
        elif "spec.clusterIP" in query.get("fieldSelector", "") and not self.api.field_selectors:
            self._status(400, "BadRequest", '"spec.clusterIP" is not a known field selector')
        elif verb == "watch":
            self._watch(resource, query, fault)
        else:
            self._list(resource, query, fault)

    # --- list

    def _list(self, resource: Resource, query: dict[str, str], fault: Fault) -> None:
        store = self.api.store
        with store.changed:
            items = [o for _, o in sorted(store.objects[resource.kind].items()) if self._accepts(o, query)]
            version = str(store.version)
        if int(query.get("resourceVersion") or 0) > int(version):
            self._status(504, "Timeout", "Too large resource version")
            return
        offset, meta = 0, {"resourceVersion": version}
        if "continue" in query:
            held, _, start = query["continue"].partition("/")
            if int(held) < store.compacted:
                self._status(410, "Expired", "The provided continue parameter is too old")
                return
            offset = int(start)
            meta["resourceVersion"] = held
        limit = int(query.get("limit", 0)) or len(items) + 1
        limit = min(limit, self.api.page_limit or limit)
        page = items[offset : offset + limit]
        if offset + limit < len(items):
            meta["continue"] = f"{meta['resourceVersion']}/{offset + limit}"
        if fault.action == "empty_list":
            page, meta = items[: fault.keep], {"resourceVersion": version}
        whole = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        if self._wants("PartialObjectMetadataList"):
            page = [metadata_of(obj) for obj in page]
            whole = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        body = json.dumps({**whole, "metadata": meta, "items": page}).encode()
        if fault.action == "wrong_json":
            body = body[: len(body) // 2]
        self._begin(200)
        pieces = 10 if fault.seconds else 1
        step = len(body) // pieces + 1
        for begin in range(0, len(body), step):
            self._chunk(body[begin : begin + step])
            self.api.closing.wait(fault.seconds)
        self._chunk(b"")

    # --- watch

    def _watch(self, resource: Resource, query: dict[str, str], fault: Fault) -> None:
        initial = query.get("sendInitialEvents") == "true"
        if initial and self.api.watch_list == "invalid":
            self._status(422, "Invalid", "sendInitialEvents is forbidden for watch")
            return
        store = self.api.store
        with store.changed:
            asked = query.get("resourceVersion", "")
            cursor = int(asked) if asked not in ("", "0") else store.version
            if cursor < store.compacted and asked not in ("", "0"):
                self._status(410, "Expired", f"too old resource version: {cursor} ({store.version})")
                return
            begin = list(store.objects[resource.kind].values()) if initial or asked in ("", "0") else []
        self._begin(200)
        if initial and self.api.watch_list == "refused":
            self._event("ERROR", status(500, "InternalError", "RequestWatchProgress is disabled"))
            self._chunk(b"")
            return
        self._deadline = time.monotonic() + min(
            float(query.get("timeoutSeconds", 3600)), fault.seconds if fault.action == "cut" else 3600
        )
        self._fault, self._sent = fault, 0
        try:
            self._initial_events(resource, query, begin, initial, cursor)
            self._follow(resource, query, cursor)
        except StreamEnds:
            self._chunk(b"")

    def _initial_events(
        self, resource: Resource, query: dict[str, str], begin: list[Object], ends: bool, version: int
    ) -> None:
        if self._fault.action == "empty_list":
            begin = begin[: self._fault.keep]
        for obj in begin:
            if self._accepts(obj, query):
                self._deliver("ADDED", obj)
        if ends:
            self._bookmark(resource, version, {"k8s.io/initial-events-end": "true"})

    def _follow(self, resource: Resource, query: dict[str, str], cursor: int) -> None:
        """Only what is newer than the version asked for, bookmarks too (cache_watcher.go, `process`)."""
        store, bookmark_at = self.api.store, time.monotonic() + self.api.bookmark_seconds
        asked = cursor
        while True:
            if self._fault.action != "cut":
                self._inject()
            with store.changed:
                records = [r for r in store.history if r.version > cursor and r.kind == resource.kind]
                if not records:
                    until = min(bookmark_at, self._deadline) - time.monotonic()
                    store.changed.wait(max(0.0, min(until, 0.5)))
                version = store.version
            for record in records:
                was, now = self._accepts(record.before, query), self._accepts(record.after, query)
                if now:
                    self._deliver("MODIFIED" if was else "ADDED", record.after or {})
                elif was:
                    gone = json.loads(json.dumps(record.after or record.before))
                    gone["metadata"]["resourceVersion"] = str(record.version)
                    self._deliver("DELETED", gone)
                cursor = record.version
            if self.api.closing.is_set() or time.monotonic() >= self._deadline:
                raise StreamEnds
            if time.monotonic() >= bookmark_at and query.get("allowWatchBookmarks") == "true":
                bookmark_at = time.monotonic() + self.api.bookmark_seconds
                if version > asked:
                    self._bookmark(resource, version, {})
                store.live()

    def _deliver(self, event: str, obj: Object) -> None:
        self._inject()
        self._event(event, obj)
        self._sent += 1

    def _inject(self) -> None:
        fault = self._fault
        if self._sent < fault.after:
            return
        match fault.action:
            case "error_in_stream":
                self._event("ERROR", status(fault.code, "Expired", fault.message))
                raise StreamEnds
            case "half_line":
                self._chunk(b'{"type":"ADDED","object":{"kind":"Serv')
                self._reset()
            case "garbage_line":
                self._chunk(b"<html>this is no event</html>\n")
                raise StreamEnds
            case "stall":
                self.api.closing.wait(3600)
                raise StreamEnds

    def _bookmark(self, resource: Resource, version: int, annotations: dict[str, str]) -> None:
        meta: Object = {"resourceVersion": str(version), "annotations": annotations}
        self._event("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

    def _wants(self, form: str) -> bool:
        return f"as={form};" in self.headers.get("Accept", "")

    def _event(self, event: str, obj: Object) -> None:
        if self._wants("PartialObjectMetadata") and event != "ERROR":
            obj = metadata_of(obj)
        self._chunk(json.dumps({"type": event, "object": obj}).encode() + b"\n")

    # --- HTTP

    def _early_fault(self, fault: Fault) -> bool:
        match fault.action:
            case "status":
                retry = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
                self._status(fault.code, "Injected", fault.message, retry)
            case "reset":
                self._reset()
            case "stall_early":
                self.api.closing.wait(3600)
                self.close_connection = True
            case _:
                return False
        return True

    def _authorized(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and token in self.api.tokens

    def _accepts(self, obj: Object | None, query: dict[str, str]) -> bool:
        if self._namespace and (obj or {}).get("metadata", {}).get("namespace") != self._namespace:
            return False
        return selected(obj, query.get("labelSelector", ""), query.get("fieldSelector", ""))

    def _reset(self) -> None:
        socket.socket.setsockopt(self.request, socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.request.close()
        raise ConnectionResetError

    def _begin(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _status(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._json(code, status(code, reason, message), headers)

    def _json(self, code: int, body: Object, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)


_NODE = re.compile(r"/api/v1/nodes/(?P<name>[^/]+)")
_EVENTS = re.compile(r"/apis/events\.k8s\.io/v1/namespaces/(?P<namespace>[^/]+)/events(/(?P<name>[^/]+))?")
_IN_NAMESPACE = re.compile(r"(?P<root>/.*/)namespaces/(?P<namespace>[^/]+)/(?P<plural>[a-z]+)")
_CONTROLLER = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def metadata_of(obj: Object) -> Object:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj.get("metadata", {}),
    }


def wrong_event(event: Object, namespace: str) -> str:
    """What the API server would refuse (pkg/apis/core/validation/events.go); "" if nothing."""
    about = event.get("regarding", {})
    if about.get("namespace", "") != namespace and (about.get("namespace") or namespace != "default"):
        return "regarding.namespace: does not match event.namespace"
    if not event.get("eventTime"):
        return "eventTime: Required value"
    if event.get("type") not in ("Normal", "Warning"):
        return "type: Invalid value"
    if not _CONTROLLER.fullmatch(event.get("reportingController", "")):
        return "reportingController: Invalid value"
    for name, longest in (("reportingInstance", 128), ("action", 128), ("reason", 128)):
        if not 1 <= len(event.get(name, "").encode()) <= longest:
            return f"{name}: Invalid value"
    if len(event.get("note", "").encode()) > 1024:
        return "note: can have at most 1024 characters"
    series = event.get("series")
    if series is not None and not (series.get("count", 0) >= 2 and series.get("lastObservedTime")):
        return "series: Invalid value"
    return ""


def status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
