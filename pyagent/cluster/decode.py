"""Bytes from the API server to the structs of `model/kube_objects.py`; nothing in them may stop the agent.

A whole list is decoded in one call. Only when that fails are its items taken one by one, so that a single
malformed object costs itself and nothing else. Format: Kubernetes API concepts, "Efficient detection of
changes".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from pyagent.model.failures import KubesockError, sanitized
from pyagent.model.kube_objects import (
    CLUSTER_SCOPED,
    STRUCT_OF,
    EndpointSlice,
    Kind,
    KubeObject,
    Metadata,
    Namespace,
    Node,
    Pod,
    Service,
    ServiceCIDR,
)
from pyagent.model.source_events import Problem

MAX_OBJECT_BYTES = 16 << 20  # etcd refuses objects above 1.5 MiB; managed fields and growth have room
MAX_NAME = 253  # RFC 1123 subdomain
WHOLE_PAGE_BYTES = 2 << 20
"""Up to here a page is decoded in one call; a longer one item by item, so that few exist at a time."""

Narrow = Callable[[KubeObject], KubeObject]
"""Turns an object into a smaller one that means the same."""

API_VERSIONS: dict[str, frozenset[str]] = {
    "Service": frozenset({"v1"}),
    "Node": frozenset({"v1"}),
    "EndpointSlice": frozenset({"discovery.k8s.io/v1"}),
    "ServiceCIDR": frozenset({"networking.k8s.io/v1", "networking.k8s.io/v1beta1"}),
    "Pod": frozenset({"v1"}),
    "Namespace": frozenset({"v1"}),
}
METADATA_VERSION = "meta.k8s.io/v1"
METADATA_KIND = "PartialObjectMetadata"
"""What an object is that the server was asked to send nothing but the metadata of."""

# What msgspec raises for input that is not what we asked for, besides its own errors: bad UTF-8, nesting.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)

_PATH = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?\Z")


def as_it_is(obj: KubeObject) -> KubeObject:
    """Narrows nothing."""
    return obj


class NotReadable(KubesockError):
    """A whole answer, or a line of a watch, is no JSON of the expected shape."""


class ListPage(NamedTuple):
    """One page of a list."""

    objects: list[KubeObject]
    resource_version: str
    continue_token: str  # "" on the last page
    problems: tuple[Problem, ...]


class Status(msgspec.Struct, frozen=True):
    """`kind: Status` of meta/v1: how the API server tells a failure."""

    code: int = 0
    reason: str = ""
    message: str = ""


class WatchLine(NamedTuple):
    """One line of a watch. `object` is set for ADDED, MODIFIED; only its metadata matters for DELETED."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "UNKNOWN"]
    resource_version: str = ""
    namespace: str = ""
    name: str = ""
    object: KubeObject | None = None
    problem: Problem | None = None
    status: Status | None = None
    initial_events_end: bool = False  # the bookmark that ends a streamed list (KEP-3157)


class _ListMeta(
    msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion", "continue_": "continue"}
):
    resource_version: str = ""
    continue_: str = ""


class _ServiceList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[Service] | None = None
    api_version: str = ""


class _EndpointSliceList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[EndpointSlice] | None = None
    api_version: str = ""


class _NodeList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[Node] | None = None
    api_version: str = ""


class _ServiceCIDRList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[ServiceCIDR] | None = None
    api_version: str = ""


class _PodList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[Pod] | None = None
    api_version: str = ""


class _NamespaceList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[Namespace] | None = None
    api_version: str = ""


class _RawList(msgspec.Struct, rename="camel"):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None
    api_version: str = ""


class _Envelope(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Head(msgspec.Struct, frozen=True, rename="camel"):
    """What identifies an object whose rest may be unusable."""

    api_version: str = ""
    kind: str = ""
    metadata: Metadata = Metadata()


class _Identity(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _LooseHead(msgspec.Struct, frozen=True):
    metadata: _Identity = _Identity()


_List = _ServiceList | _EndpointSliceList | _NodeList | _ServiceCIDRList | _PodList | _NamespaceList

_LIST_DECODER: dict[str, msgspec.json.Decoder[_List]] = {
    "Service": msgspec.json.Decoder(_ServiceList),
    "EndpointSlice": msgspec.json.Decoder(_EndpointSliceList),
    "Node": msgspec.json.Decoder(_NodeList),
    "ServiceCIDR": msgspec.json.Decoder(_ServiceCIDRList),
    "Pod": msgspec.json.Decoder(_PodList),
    "Namespace": msgspec.json.Decoder(_NamespaceList),
}
_OBJECT_DECODER: dict[str, msgspec.json.Decoder[KubeObject]] = {
    kind: msgspec.json.Decoder(struct) for kind, struct in STRUCT_OF.items()
}
_RAW_LIST = msgspec.json.Decoder(_RawList)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_HEAD = msgspec.json.Decoder(Head)
_LOOSE_HEAD = msgspec.json.Decoder(_LooseHead)
_STATUS = msgspec.json.Decoder(Status)


def field_and_reason(error: Exception) -> tuple[str, str]:
    """The field path (`spec.ports[0].port`) and the reason of a decoding error, both safe to print."""
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, UnicodeDecodeError):
        text = "text is not UTF-8"
    match = _PATH.search(text)
    field = match["path"] if match else ""
    reason = text[: match.start()] if match else text
    missing = re.match(r"Object missing required field `([^`]*)`", reason)
    if missing:
        return (f"{field}.{missing[1]}" if field else missing[1]), "is missing"
    return _printable(field), _printable(reason.replace("`", ""))


def identity_problem(kind: str, metadata: Metadata) -> Problem | None:
    """Why an object cannot be addressed by kind, namespace and name, if so."""
    for field, value in (("metadata.name", metadata.name), ("metadata.namespace", metadata.namespace)):
        if not value and (field == "metadata.name" or kind not in CLUSTER_SCOPED):
            return Problem(
                kind, _printable(metadata.namespace), _printable(metadata.name), field, "is missing"
            )
        if value and (len(value) > MAX_NAME or not _NAME.match(value)):
            reason = f"not a Kubernetes name: {sanitized(value)}"
            return Problem(kind, _printable(metadata.namespace), _printable(metadata.name), field, reason)
    return None


def decode_list(kind: Kind, body: bytes | bytearray, narrow: Narrow = as_it_is) -> ListPage:
    """Decode one page of a list.

    Args:
        kind: the kind of its items.
        body: the JSON text; it is not kept.
        narrow: applied to each object; of a long page, before the next one is decoded.

    Raises:
        NotReadable: the text is cut, no JSON, or no list of this kind.
    """
    if len(body) > WHOLE_PAGE_BYTES:
        return _decode_items(kind, body, narrow)
    try:
        page = _LIST_DECODER[kind].decode(body)
    except UNREADABLE:
        return _decode_items(kind, body, narrow)
    _check_list_version(kind, page.api_version)
    objects: list[KubeObject] = []
    problems: list[Problem] = []
    for item in page.items or ():
        problem = identity_problem(kind, item.metadata)
        if problem:
            problems.append(problem)
        else:
            objects.append(narrow(item))
    return ListPage(objects, page.metadata.resource_version, page.metadata.continue_, tuple(problems))


def decode_object(
    kind: str, raw: bytes | bytearray | memoryview | msgspec.Raw, default_namespace: str = ""
) -> KubeObject | Problem:
    """One object as a struct, or why it cannot be used.

    Args:
        kind: a key of `STRUCT_OF`.
        raw: its JSON text.
        default_namespace: for objects of a namespaced kind that name none.
    """
    if memoryview(raw).nbytes > MAX_OBJECT_BYTES:
        return _problem_of(kind, raw, "", f"larger than {MAX_OBJECT_BYTES >> 20} MiB")
    try:
        head = _HEAD.decode(raw)
        if (head.api_version, head.kind) == (METADATA_VERSION, METADATA_KIND):
            head = Head()
        if head.api_version and head.api_version not in API_VERSIONS[kind]:
            wanted = " or ".join(sorted(API_VERSIONS[kind]))
            reason = f"version {sanitized(head.api_version)} is not supported, use {wanted}"
            return _problem_of(kind, raw, "apiVersion", reason, default_namespace)
        if head.kind and head.kind != kind:
            return _problem_of(
                kind, raw, "kind", f"expected {kind}, got {sanitized(head.kind)}", default_namespace
            )
        decoded = _OBJECT_DECODER[kind].decode(raw)
    except UNREADABLE as error:
        return _problem_of(kind, raw, *field_and_reason(error), default_namespace)
    if default_namespace and not decoded.metadata.namespace and kind not in CLUSTER_SCOPED:
        metadata = msgspec.structs.replace(decoded.metadata, namespace=default_namespace)
        decoded = msgspec.structs.replace(decoded, metadata=metadata)
    return identity_problem(kind, decoded.metadata) or decoded


def decode_watch_line(kind: Kind, line: bytes | bytearray | memoryview) -> WatchLine:
    """Decode one line of a watch.

    Raises:
        NotReadable: the line is no watch event at all: the stream cannot be trusted any more.
    """
    try:
        envelope = _ENVELOPE.decode(line)
    except UNREADABLE as error:
        raise NotReadable(
            f"a line of the {kind} watch is not readable: {field_and_reason(error)[1]}"
        ) from None
    match envelope.type:
        case "ADDED" | "MODIFIED":
            found = decode_object(kind, envelope.object)
            if isinstance(found, Problem):
                version = _loose_identity(envelope.object).resource_version
                return WatchLine(envelope.type, version, found.namespace, found.name, problem=found)
            meta = found.metadata
            return WatchLine(envelope.type, meta.resourceVersion, meta.namespace, meta.name, found)
        case "DELETED":
            gone = _loose_identity(envelope.object)
            return WatchLine("DELETED", gone.resource_version, gone.namespace, gone.name)
        case "BOOKMARK":
            return _bookmark(envelope.object)
        case "ERROR":
            return WatchLine("ERROR", status=decode_status(envelope.object))
    return WatchLine("UNKNOWN")


def decode_status(body: bytes | bytearray | msgspec.Raw) -> Status:
    """A `Status`; an empty one where the text is none (a proxy's HTML page)."""
    try:
        status = _STATUS.decode(body)
    except UNREADABLE:
        return Status()
    return Status(status.code, _printable(status.reason), _printable(status.message, 300))


def _decode_items(kind: Kind, body: bytes | bytearray, narrow: Narrow) -> ListPage:
    try:
        page = _RAW_LIST.decode(body)
    except UNREADABLE as error:
        field, reason = field_and_reason(error)
        where = f" at {field}" if field else ""
        raise NotReadable(f"the list of {kind} objects is not readable: {reason}{where}") from None
    _check_list_version(kind, page.api_version)
    objects: list[KubeObject] = []
    problems: list[Problem] = []
    for raw in page.items or ():
        found = _decode_item(kind, raw)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            objects.append(narrow(found))
    return ListPage(objects, page.metadata.resource_version, page.metadata.continue_, tuple(problems))


def _decode_item(kind: Kind, raw: msgspec.Raw) -> KubeObject | Problem:
    """As a list decodes it, or as `decode_object` does, which finds out what is wrong."""
    try:
        item = _OBJECT_DECODER[kind].decode(raw)
    except UNREADABLE:
        return decode_object(kind, raw)
    return identity_problem(kind, item.metadata) or item


def _check_list_version(kind: Kind, version: str) -> None:
    if version and version != METADATA_VERSION and version not in API_VERSIONS[kind]:
        raise NotReadable(f"the list of {kind} objects has version {sanitized(version)}")


def _bookmark(raw: msgspec.Raw) -> WatchLine:
    try:
        metadata = _HEAD.decode(raw).metadata
    except UNREADABLE:
        return WatchLine("UNKNOWN")
    annotations = metadata.annotations or {}
    ended = annotations.get("k8s.io/initial-events-end") == "true"
    return WatchLine("BOOKMARK", metadata.resourceVersion, initial_events_end=ended)


def _loose_identity(raw: bytes | bytearray | memoryview | msgspec.Raw) -> _Identity:
    try:
        return _LOOSE_HEAD.decode(raw).metadata
    except UNREADABLE:
        return _Identity()


def _problem_of(
    kind: str,
    raw: bytes | bytearray | memoryview | msgspec.Raw,
    field: str,
    reason: str,
    default_namespace: str = "",
) -> Problem:
    identity = _loose_identity(raw)
    namespace = "" if kind in CLUSTER_SCOPED else identity.namespace or default_namespace
    return Problem(kind, _printable(namespace), _printable(identity.name), field, reason)


def _printable(text: str, limit: int = 160) -> str:
    """Untrusted text for one line of a log; names that are fine stay as they are."""
    return text if len(text) <= limit and text.isprintable() else sanitized(text, limit)
