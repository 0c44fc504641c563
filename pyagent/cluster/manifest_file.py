"""One file of the manifests directory to objects: YAML (several documents) or JSON, also `kind: List`."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from typing import NamedTuple

import msgspec

from pyagent.cluster.decode import UNREADABLE, Narrow, as_it_is, decode_object, field_and_reason
from pyagent.cluster.yaml_documents import BadYaml, read_documents
from pyagent.model.failures import sanitized
from pyagent.model.kube_objects import SERVICE_KINDS, Kind, KubeObject
from pyagent.model.source_events import Problem

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 256 << 20
FILE_PROBLEM = "Manifest"  # the kind of problems whose subject is the file itself


class Key(NamedTuple):
    kind: Kind
    namespace: str
    name: str


class FileContent(NamedTuple):
    """What a file says. `unreadable` is set where nothing in it may be taken for the whole."""

    objects: dict[Key, KubeObject]
    problems: tuple[Problem, ...] = ()
    unreadable: Problem | None = None


class _Top(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    items: list[msgspec.Raw] | None = None


_TOP = msgspec.json.Decoder(_Top)
_BYTE = re.compile(r" \(byte (\d+)\)")


def file_problem(name: str, reason: str, line: int = 0) -> Problem:
    """A problem of the file as a whole."""
    shown = sanitized(name, 160) if not name.isprintable() else name
    return Problem(FILE_PROBLEM, "", shown, "", reason, f"{shown}:{line}" if line else shown)


def read_manifest(
    name: str, data: bytes, kinds: Collection[str] = SERVICE_KINDS, narrow: Narrow = as_it_is
) -> FileContent:
    """The objects in a file.

    Args:
        name: the file's name; `.json` is read as JSON alone.
        data: its bytes.
        kinds: objects of others are passed over.
        narrow: applied to each object before the next one is decoded.
    """
    reader = _Reader(name, kinds, narrow)
    if name.endswith(".json") or data.lstrip()[:1] == b"{":
        try:
            top = _TOP.decode(data)
        except UNREADABLE as error:
            if name.endswith(".json"):
                return FileContent({}, (), _json_problem(name, data, error))
        else:
            reader.take_json(top, data)
            return reader.content()
    try:
        for document in read_documents(data):
            reader.take_document(document.value, document.line)
    except BadYaml as error:
        return FileContent(
            {}, (), file_problem(name, f"not YAML: {sanitized(error.reason, 200)}", error.line)
        )
    return reader.content()


class _Reader:
    def __init__(self, name: str, kinds: Collection[str], narrow: Narrow) -> None:
        self._name = name
        self._narrow = narrow
        self._kinds = kinds
        self._objects: dict[Key, KubeObject] = {}
        self._problems: list[Problem] = []

    def content(self) -> FileContent:
        return FileContent(self._objects, tuple(self._problems))

    def take_json(self, top: _Top, data: bytes) -> None:
        if top.items is None or not top.kind.endswith("List"):
            self._take(top.kind, data, data, 1)
            return
        for raw in top.items:
            self._take(_kind_of(raw) or top.kind.removesuffix("List"), raw, data)

    def take_document(self, value: object, line: int) -> None:
        if not isinstance(value, dict):
            self._problems.append(file_problem(self._name, "a document is no object", line))
            return
        kind = value.get("kind")
        items = value.get("items")
        if not isinstance(kind, str):
            self._problems.append(file_problem(self._name, "a document has no kind", line))
        elif kind.endswith("List") and isinstance(items, list):
            for item in items:
                own = item.get("kind") if isinstance(item, dict) else None
                self._take_value(own if isinstance(own, str) else kind.removesuffix("List"), item, line)
        else:
            self._take_value(kind, value, line)

    def _take_value(self, kind: str, value: object, line: int) -> None:
        if kind not in self._kinds:
            self._ignored(kind)
            return
        try:
            raw = msgspec.json.encode(value)
        except UNREADABLE as error:
            self._problems.append(file_problem(self._name, field_and_reason(error)[1], line))
            return
        self._take(kind, raw, b"", line)

    def _take(self, kind: str, raw: bytes | msgspec.Raw, data: bytes, line: int = 0) -> None:
        if kind not in self._kinds:
            self._ignored(kind)
            return
        found = decode_object(kind, raw, default_namespace="default")
        if isinstance(found, Problem):
            where = f"{self._name}:{line or _line_of(raw, data)}"
            self._problems.append(msgspec.structs.replace(found, origin=where))
            return
        typed: Kind = kind  # type: ignore[assignment]  # those we follow are
        key = Key(typed, found.metadata.namespace, found.metadata.name)
        if key in self._objects:
            reason = f"{kind} {key.namespace}/{key.name} appears twice; the first one counts"
            self._problems.append(file_problem(self._name, reason, line or _line_of(raw, data)))
            return
        self._objects[key] = self._narrow(found)

    def _ignored(self, kind: str) -> None:
        log.debug("%s: %s is not followed", self._name, sanitized(kind))


def _kind_of(raw: msgspec.Raw) -> str:
    try:
        return _TOP.decode(raw).kind
    except UNREADABLE:
        return ""


def _line_of(raw: bytes | msgspec.Raw, data: bytes) -> int:
    """The line where an item begins; only looked for when it is bad."""
    at = data.find(bytes(raw))
    return data.count(b"\n", 0, at) + 1 if at >= 0 else 1


def _json_problem(name: str, data: bytes, error: Exception) -> Problem:
    field, reason = field_and_reason(error)
    offset = _BYTE.search(reason)
    if offset:
        line = data.count(b"\n", 0, int(offset[1])) + 1
    else:
        line = data.count(b"\n") + 1 if "truncated" in reason else 1
    return file_problem(name, f"not JSON: {reason}{f' at {field}' if field else ''}", line)
