"""What the fuzzer feeds: each target takes bytes and fails only where a promise is broken.

The promise is the same everywhere: foreign bytes are refused by one of our own exceptions whose text is one
printable line, or what they hold is used; nothing else is raised, and what was sound before goes on.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn
from unittest import mock

import msgspec

from pyagent.agent.config import parse_run_options
from pyagent.agent.http_exchange import BadRequest, head_end, parse_head
from pyagent.cluster import access, credentials
from pyagent.cluster.access import tls_context
from pyagent.cluster.decode import (
    NotReadable,
    decode_list,
    decode_object,
    decode_status,
    decode_watch_line,
)
from pyagent.cluster.lines import LineSplitter
from pyagent.cluster.manifest_file import read_manifest
from pyagent.cluster.server_address import FILE_NAME, recall
from pyagent.datapath.description import read_description
from pyagent.datapath.evaluate import evaluate
from pyagent.datapath.layout import (
    FRONTEND_KEY,
    META,
    NAME,
    NAME_KEY,
    SERVICE_ADDRESS_KEY,
    SOURCE_RANGE_KEY,
    Capacities,
)
from pyagent.datapath.plan import no_change, plan
from pyagent.datapath.restored import restore
from pyagent.datapath.source_range_plan import ADMITTED, SourceRangePlan
from pyagent.desired.nodes import Settings
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.model.address import parse_address
from pyagent.model.failures import KubesockError, LayoutMismatch, UsageError
from pyagent.model.kube_objects import SERVICE_KINDS, STRUCT_OF, Kind, KubeObject
from pyagent.model.outcome import Outcome
from pyagent.model.source_events import Problem
from pyagent.view.live import LiveMaps
from pyagent.view.service_table import service_rows
from tests.unit.datapath_plan.fake_maps import FakeMaps

KINDS = tuple(sorted(STRUCT_OF))
SMALL = Capacities(
    frontends=64, sets=48, slots=512, backends=96, service_ports=24, service_addresses=32, node_addresses=16
)
SOUND_SERVICE = b"""{"metadata":{"name":"sound","namespace":"sound-and-safe"},
 "spec":{"clusterIP":"10.96.77.77","ports":[{"name":"p","port":80}]}}"""
SOUND_SLICE = b"""{"metadata":{"name":"sound","namespace":"sound-and-safe",
 "labels":{"kubernetes.io/service-name":"sound"}},"addressType":"IPv4",
 "ports":[{"name":"p","port":8080}],"endpoints":[{"addresses":["10.7.7.7"]}]}"""


def printable(error: object) -> None:
    text = str(error)
    assert text.isprintable(), repr(text)
    assert len(text) < 2000, len(text)


def objects(data: bytes) -> None:
    """A list of the API server, from bytes to a plan; a sound Service beside it is served all the same."""
    kind: Kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]  # type: ignore[assignment]
    body = data[1:]
    printable(decode_status(body).message)
    try:
        event = decode_watch_line(kind, body)
        printable(event.problem or "")
    except NotReadable as error:
        printable(error)
    alone = decode_object(kind, body)
    if isinstance(alone, Problem):
        printable(alone)
    try:
        page = decode_list(kind, body)
    except NotReadable as error:
        printable(error)
        return
    for problem in page.problems:
        printable(problem)
    _serve(kind, page.objects)


def _serve(kind: Kind, found: list[KubeObject]) -> None:
    snapshot, desired = Snapshot("n"), DesiredState(Settings("n"))
    if kind in SERVICE_KINDS:
        for one in found:
            snapshot.put(kind, one)
    for sound_kind, body in (("Service", SOUND_SERVICE), ("EndpointSlice", SOUND_SLICE)):
        sound = decode_object(sound_kind, body)
        snapshot.put(sound_kind, sound)  # type: ignore[arg-type]
    change = desired.update(snapshot, snapshot.everything())
    for problem in change.new_problems:
        printable(problem)
    maps = FakeMaps(SMALL)
    held = restore(maps.raw, SMALL)
    for write in plan(held, desired.full(), complete=True).writes:
        maps.apply(write)
    claimed = any(b"10.96.77.77" in msgspec.json.encode(one) for one in found)
    unfit = len(found) > 4
    if not (claimed or unfit):
        answer = evaluate(maps.raw, parse_address("10.96.77.77"), 80, 6)
        assert answer.outcome is Outcome.TRANSLATED, answer


def lines(data: bytes) -> None:
    """However a stream is cut into pieces, the same lines come out."""
    if not data:
        return
    step, body = data[0] % 16 + 1, data[1:]
    splitter = LineSplitter(longest=256)
    whole: list[bytes] = []
    try:
        for at in range(0, len(body), step):
            whole += map(bytes, splitter.feed(body[at : at + step]))
    except NotReadable as error:
        printable(error)
        assert max(map(len, body.split(b"\n"))) > 256
        return
    complete = body.split(b"\n")[:-1]
    assert whole == [line for line in complete if line], (whole, complete)


def manifests(data: bytes) -> None:
    for name in ("a.yaml", "a.json"):
        content = read_manifest(name, data)
        printable(content.unreadable or "")
        for problem in content.problems:
            printable(problem)


def configuration(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            config = parse_run_options({"--config": file.name}, environ={}, hostname="n")
        except UsageError as error:
            printable(error)
        else:
            for note in config.notes:
                printable(note)


def kubeconfig(data: bytes) -> None:
    """The child's part in this process; what it answers is read as the agent reads it."""
    _disarm()
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file, _child_in_this_process():
        file.write(data)
        file.flush()
        try:
            tls_context(access.load_credentials(file.name))
        except KubesockError as error:
            printable(error)


@contextlib.contextmanager
def _child_in_this_process() -> Iterator[None]:
    def run(command: list[str], **_more: object) -> subprocess.CompletedProcess[bytes]:
        out = io.StringIO()
        with mock.patch.object(sys, "argv", command[2:]), contextlib.redirect_stdout(out):
            credentials.main()
        return subprocess.CompletedProcess(command, 0, out.getvalue().encode(), b"")

    with mock.patch.object(subprocess, "run", run):
        yield


def _disarm() -> None:
    """No bytes of a fuzzer may start programs or dial anybody."""
    from kubernetes.config import exec_provider, kube_config

    def refused(*_args: object, **_more: object) -> NoReturn:
        raise ValueError("disarmed")

    setattr(exec_provider.ExecProvider, "run", refused)  # noqa: B010  it is untyped
    # The client asks for one whatever the file says.
    setattr(kube_config.KubeConfigLoader, "_load_auth_provider_token", lambda _self: None)  # noqa: B010


def state(data: bytes) -> None:
    """The file of remembered API servers."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE_NAME).write_bytes(data)
        for text in recall(Path(folder)):
            printable(text)


def requests(data: bytes) -> None:
    """The head of an HTTP request to one of the agent's servers."""
    try:
        end = head_end(data)
        if end >= 0:
            printable(parse_head(data[:end]).path)
    except BadRequest as error:
        printable(str(error))


def layout(data: bytes) -> None:
    """What pinned maps say of themselves, and the agent's own word beside them."""
    META.as_dict(data[: META.size].ljust(META.size, b"\0"))
    try:
        read_description(data)
    except LayoutMismatch as error:
        printable(error)


class _Pieces:
    """The bytes, handed out; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece.ljust(count, b"\0")

    def entries(self, key: int, value: int) -> dict[bytes, bytes]:
        return {self.take(key): self.take(value) for _ in range(self.take(1)[0] % 5)}


def pins(data: bytes) -> None:
    """Maps with anything in them: an agent takes them up, readers show them, a full plan makes them right."""
    pieces = _Pieces(data)
    maps = FakeMaps(SMALL)
    for name in ("sets", "slots", "backends", "config"):
        array = maps.arrays[name]
        start = int.from_bytes(pieces.take(2), "little") % len(array)
        piece = pieces.take(min(pieces.take(1)[0], len(array) - start))
        array[start : start + len(piece)] = piece
    for name, key, value in (
        ("frontends", FRONTEND_KEY.size, 8),
        ("names", NAME_KEY.size, NAME.size),
        ("service_addresses", SERVICE_ADDRESS_KEY.size, 4),
        ("node_addresses", 16, 4),
        ("source_ranges", SOURCE_RANGE_KEY.size, len(ADMITTED)),
    ):
        maps.hashes[name].update(pieces.entries(key, value))
    service_rows(LiveMaps(raw=maps.raw))
    held = restore(maps.raw, SMALL)
    snapshot, desired = Snapshot("n"), DesiredState(Settings("n"))
    for kind, body in (("Service", SOUND_SERVICE), ("EndpointSlice", SOUND_SLICE)):
        snapshot.put(kind, decode_object(kind, body))  # type: ignore[arg-type]
    desired.update(snapshot, snapshot.everything())
    for write in plan(held, desired.full(), complete=True).writes:
        maps.apply(write)
    for write in (
        SourceRangePlan(maps.hashes["source_ranges"], SMALL.source_ranges).plan({}, held, True).after
    ):
        maps.apply(write)
    assert not maps.hashes["source_ranges"]
    assert evaluate(maps.raw, parse_address("10.96.77.77"), 80, 6).outcome is Outcome.TRANSLATED
    again = restore(maps.raw, SMALL)
    assert not plan(again, desired.full(), complete=True).writes
    assert not plan(held, no_change(), complete=False).writes


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (objects, lines, manifests, configuration, kubeconfig, state, requests, layout, pins)
}
