"""Events: what is asked for, what the hooks are told, and what comes out."""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import pyagent.view
from pyagent.datapath.event_filter import EventFilter, Thinning, filter_writes, union
from pyagent.datapath.flow_layout import OUTSIDE_HOOK
from pyagent.datapath.layout import CONFIG, EVENT, FRONTEND_KEY, Hook
from pyagent.kernel.event_ring import decode_event
from pyagent.kernel.namespace_owners import NetnsOwner
from pyagent.model.address import format_endpoint, parse_address
from pyagent.model.failures import UsageError
from pyagent.model.outcome import Outcome
from pyagent.view import render
from pyagent.view.event_input import read_events
from pyagent.view.event_listener import Heard
from pyagent.view.event_stream import Change, Dial, Noted, SocketEnded, Told, Wish, decode, encode, wish_of
from pyagent.view.event_table import EVENT_NAMES, EVENTS, Chosen, EventRows, what_text
from pyagent.view.names import PortName
from pyagent.view.terminal.event_tail import KEEP_EVENTS, EventTail

WEB = PortName(3, 1, "shop", "web", "http", "TCP", "IPv4", "ClusterIP", 0)
FILTERS = st.builds(
    EventFilter,
    st.integers(0, (1 << 19) - 1),
    st.frozensets(st.integers(1, 4), max_size=2),
    st.integers(0, 2),
    st.integers(1, 4),
)


def record(
    outcome: int = Outcome.TRANSLATED,
    service_port: int = 3,
    netns: int = 1,
    previous: int = 0,
    hook: int = Hook.CONNECT4,
    comm: bytes = b"curl\0garbage",
) -> bytes:
    key = FRONTEND_KEY.pack(parse_address("10.96.0.10"), 80, 6, 0)
    backend = (parse_address("10.1.0.1"), 8080) if outcome == Outcome.TRANSLATED else (bytes(16), 0)
    return EVENT.pack(
        5_000_000_000, 77, netns, 4711, key, *backend, outcome, hook, service_port, 9, 123, 0,
        comm, previous,
    )  # fmt: skip


class Names:
    """Knows one service port, one pod, one backend."""

    def pod(self, cgroup: int, netns: int, pid: int) -> str:
        return "shop/client" if cgroup == 77 else ""

    def netns(self, cookie: int, pid: int) -> str:
        return f"cookie:{cookie}"

    def owner(self, inode: int) -> NetnsOwner:
        return NetnsOwner("shop/client", "", (1,))

    def port(self, identifier: int) -> PortName | None:
        return WEB if identifier == 3 else None

    def backend(self, word: int) -> str:
        return "10.1.0.2:8080" if word == 5 << 32 | 1 else ""

    def service_at(self, address: bytes) -> str:
        return "shop/web" if address == parse_address("10.96.0.10") else ""


def rows(*told: Told, has_errno: bool = True) -> list[dict[str, Any]]:
    return EventRows(Names(), has_errno, clock=lambda: 1000.0, since_boot=lambda: 10.0).rows(told)


@given(st.lists(FILTERS, max_size=4), st.integers(0, 18), st.integers(0, 4), st.integers(1, 2))
def test_the_hooks_report_whatever_any_listener_wants(
    filters: list[EventFilter], outcome: int, service_port: int, netns: int
) -> None:
    event = record(outcome, service_port, netns)
    wanted = any(one.accepts(event) for one in filters)
    together = union(filters)
    assert not wanted or (together is not None and together.accepts(event))
    assert together is None or len(together.service_ports) <= 1
    assert together is None or together.sample == min(one.sample for one in filters if one.outcomes)


def test_a_filter_is_no_wider_than_all_listeners_together_need() -> None:
    one = EventFilter(0b110, frozenset({3}), 7, 10)
    assert union([one, one._replace(outcomes=0b1000, sample=4)]) == EventFilter(0b1110, frozenset({3}), 7, 4)
    assert union([]) is None
    assert union([EventFilter(outcomes=0)]) is None, "who wants changes alone does not set the hooks to work"


def test_the_lease_is_written_last_and_taken_back_alone() -> None:
    written = filter_writes(EventFilter(6, frozenset({3}), 7, 2), until=99)
    assert written[-1].offset == CONFIG.offsets["event_lease"]
    config = bytearray(CONFIG.size)
    for store in written:
        config[store.offset : store.offset + len(store.data)] = store.data
    fields = CONFIG.as_dict(bytes(config))
    assert [fields[f"event_{name}"] for name in ("outcomes", "service_port", "netns", "sample", "lease")] == [
        6, 3, 7, 2, 99,
    ]  # fmt: skip
    assert len(filter_writes(None, 0)) == 1


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_listener_gets_its_share_of_what_the_hooks_sample(wanted: int, reported: int) -> None:
    thinning = Thinning()
    passed = sum(thinning.passes(wanted, reported) for _ in range(1000))
    assert abs(passed - 1000 * min(1.0, reported / wanted)) <= 1.01


@given(
    st.builds(
        Wish,
        st.builds(
            EventFilter,
            st.integers(0, (1 << 32) - 1),
            st.frozensets(st.integers(0, (1 << 32) - 1)),
            st.integers(0, (1 << 64) - 1),
            st.integers(1, (1 << 32) - 1),
        ),
        st.integers(0, 1 << 30),
        st.booleans(),
    )
)
def test_a_wish_survives_its_way_to_the_agent(wish: Wish) -> None:
    assert wish_of(wish.path().partition("?")[2]) == wish


@given(st.text())
def test_any_other_wish_is_refused_or_bounded(query: str) -> None:
    try:
        wish = wish_of(query)
    except UsageError:
        return
    assert filter_writes(union([wish.dials]), 1)


@pytest.mark.parametrize(
    "told",
    [
        Dial(record()),
        Change(1.5, "shop/web:http/TCP", "IPv4", "gone", "17"),
        SocketEnded(1.5, 3, 1, 17, "10.96.0.10:80", "10.1.0.1:80", "10.1.0.9:999", 4026531840, 1),
        Noted(1.5, "Repaired", "connect4: it was detached"),
    ],
)
def test_what_is_told_survives_its_way_to_the_listener(told: Told) -> None:
    assert decode(encode(told)) == told


@given(st.binary(max_size=EVENT.size + 20))
def test_records_of_any_program_are_read_or_too_short(data: bytes) -> None:
    try:
        event = decode_event(data)
    except struct.error:
        assert len(data) < EVENT.size
        return
    assert "\0" not in event.comm
    assert format_endpoint(event.dialled, event.dialled_port)
    assert rows(Dial(data))


def test_a_translation_says_who_dialled_what_and_got_which() -> None:
    (row,) = rows(Dial(record()))
    assert row["time"] == "1970-01-01T00:16:35.000+00:00"
    assert (row["event"], row["pod"], row["pid"], row["command"]) == (
        "translated",
        "shop/client",
        123,
        "curl",
    )
    assert (row["service"], row["dialled"], row["chosen"]) == (
        "shop/web:http/TCP", "10.96.0.10:80", "10.1.0.1:8080",
    )  # fmt: skip


@pytest.mark.parametrize("address", ["203.0.113.7", "0.0.0.7", "2001:db8::7", "fd00::"])
def test_a_packet_from_outside_says_which_address_it_came_from(address: str) -> None:
    packet = record(
        Outcome.REFUSED_NO_LOCAL_ENDPOINTS, hook=OUTSIDE_HOOK, comm=parse_address(address), netns=0
    )
    (row,) = rows(Dial(packet))
    assert (row["netns"], row["hook"], row["command"]) == ("outside", "outside", address)
    assert (row["pod"], row["errno"]) == ("", ""), "nobody here made a call"
    assert "Local" in what_text(row)


def test_a_refusal_says_why_and_what_the_caller_saw() -> None:
    (row,) = rows(Dial(record(Outcome.REFUSED_NO_LOCAL_ENDPOINTS)))
    assert (row["errno"], row["chosen"]) == ("EHOSTUNREACH", "")
    assert "Local" in row["what"]
    assert what_text(row).endswith("the caller got EHOSTUNREACH")
    assert rows(Dial(record(Outcome.REFUSED_NO_LOCAL_ENDPOINTS)), has_errno=False)[0]["errno"] == "EPERM"


def test_a_refusal_without_a_service_port_names_the_service_of_the_address() -> None:
    (row,) = rows(Dial(record(Outcome.REFUSED_UNDEFINED_PORT, service_port=0)))
    assert (row["service"], row["namespace"], row["name"], row["port"]) == ("shop/web", "shop", "web", "")


def test_a_switch_names_the_backend_before_where_its_id_still_means_it() -> None:
    assert rows(Dial(record(previous=5 << 32 | 1)))[0]["previous"] == "10.1.0.2:8080"
    assert rows(Dial(record(previous=5 << 32 | 2)))[0]["previous"] == "backend 5"
    assert rows(Dial(record()))[0]["previous"] == ""
    assert rows(Dial(record(previous=9 << 32 | 1)))[0]["previous"] == "", "it stays where it is"


def test_what_is_gone_meanwhile_keeps_its_row() -> None:
    (row,) = rows(Dial(record(service_port=8)))
    assert row["service"] == "#8 (removed)"
    ended = SocketEnded(1.5, 3, 2, 17, "10.96.0.10:80", "10.1.0.1:80", "10.1.0.9:999", 4026531840, 1)
    assert rows(ended)[0]["service"] == "#3 (removed)", "the id is another service port's by now"


def test_every_row_has_the_same_fields() -> None:
    told = (
        Dial(record()),
        Dial(record(250)),
        Change(1.5, "shop/web:http/TCP", "IPv4", "gone"),
        Change(1.5, "", "", "120 service ports came or changed, 0 went"),
        SocketEnded(1.5, 3, 1, 17, "[fd00::1]:80", "[fd00::2]:80", "[fd00::3]:999", 4026531840, 1),
        Noted(1.5, "AddressConflict", "10.96.0.10 already belongs", "shop", "web"),
    )
    found = [*rows(*told), EventRows(Names()).lost(3, "why")]
    assert len({tuple(row) for row in found}) == 1
    assert render.table_text(list(EVENTS.columns), found)[0].count("\n") == len(found) + 1


def test_events_are_as_the_schema_says() -> None:
    schema = json.loads(Path(pyagent.view.__path__[0], "schema.json").read_text())
    schema["$defs"]["Event"]["additionalProperties"] = False
    check = Draft202012Validator({**schema, "anyOf": [{"$ref": "#/$defs/EventList"}]})
    told = (Dial(record()), Change(1.5, "shop/web:http/TCP", "IPv4", "gone"), Noted(1.5, "x", "x"))
    check.validate(json.loads(render.json_text(render.document(EVENTS.kind, rows(*told)))))


class Teller:
    """Tells some batches, a second apart, and then ends or fails; notes how it is to be thinned."""

    def __init__(self, *batches: Heard, then: Exception | None = None) -> None:
        self._batches = batches
        self._then = then
        self.now = 0.0
        self.samples: list[int] = []

    def heard(self) -> Iterator[Heard]:
        for batch in self._batches:
            self.now += 1.0
            yield batch
        if self._then is not None:
            raise self._then

    def thin(self, sample: int) -> None:
        self.samples.append(sample)


def test_a_tail_of_very_many_events_has_the_hooks_report_fewer_and_then_more_again() -> None:
    (row,) = rows(Dial(record()))
    told = Teller(Heard([row] * 4000, True), Heard([row] * 190, True), *[Heard([], True)] * 3)
    tail = EventTail(lambda: told, clock=lambda: told.now)
    tail.stop()
    assert told.samples == [21, 5, 1]
    assert tail.so_far().sample == 1


def test_a_tail_keeps_the_newest_and_says_how_many_there_were() -> None:
    many = [dict(row, pid=number) for number, row in enumerate(rows(Dial(record())) * 3000)]
    tail = EventTail(lambda: Teller(Heard(many[:10], True), Heard(many[10:], False)), clock=lambda: 0.0)
    tail.stop()
    events = tail.so_far()
    assert (len(events.rows), events.total, events.agent, events.error) == (KEEP_EVENTS, 3000, False, "")
    assert [events.rows[0]["pid"], events.rows[-1]["pid"]] == [2999, 3000 - KEEP_EVENTS]


def test_a_tail_that_cannot_hear_says_why() -> None:
    tail = EventTail(lambda: Teller(Heard([], True), then=UsageError("process 7 listens already")))
    tail.stop()
    assert tail.so_far().error == "process 7 listens already"
    assert tail.ended


@pytest.mark.parametrize("name", EVENT_NAMES)
def test_each_name_of_an_event_chooses_something(name: str) -> None:
    chosen = Chosen([name])
    every = [*rows(*(Dial(record(outcome, previous=5 << 32 | 1)) for outcome in Outcome))]
    every += rows(Change(1.5, "a/b/TCP", "IPv4", "x"), Noted(1.5, "x", "x"))
    every += rows(SocketEnded(1.5, 3, 1, 17, "10.96.0.10:80", "10.1.0.1:80", "10.1.0.9:999", 1, 1))
    found = {row["event"] for row in every if chosen.accepts(row)}
    assert found
    if name not in ("all", "switched"):
        assert all(event.startswith(name) for event in found)


def test_a_further_datagram_is_heard_only_by_who_asks_for_it() -> None:
    same = 1 << Outcome.TRANSLATED_SAME_SOCKET
    assert not Chosen().outcomes & same
    assert not Chosen(["translated"]).outcomes & same
    assert Chosen(["translated_same_socket"]).outcomes == same
    with pytest.raises(UsageError, match="there are translated"):
        Chosen(["translation"])


def written(indent: int) -> bytes:
    made = rows(Dial(record()), Change(1.5, "shop/web:http/TCP", "IPv4", "gone", "17"))
    if indent:
        return render.json_text(render.document(EVENTS.kind, made)).encode()
    return "".join(render.json_text({"type": "ADDED", "object": row}, indent=0) for row in made).encode()


@pytest.mark.parametrize("indent", [0, 2])
def test_json_of_events_is_read_again(indent: int) -> None:
    again = list(read_events(io.BytesIO(written(indent))))
    assert again == rows(Dial(record()), Change(1.5, "shop/web:http/TCP", "IPv4", "gone", "17"))


def test_a_line_that_is_read_comes_before_the_next_is_there() -> None:
    reader, writer = socket.socketpair()
    with reader, writer, reader.makefile("rb") as file:
        writer.sendall(written(0).splitlines(keepends=True)[0])
        assert next(read_events(file))["event"] == "translated"


@pytest.mark.parametrize(
    "text", [b"nonsense", b'{"a": 1}', b'{"items": [3]}', b"[1]", b'{"event', b"{\n", b"\xff"]
)
def test_what_is_no_event_is_refused_with_its_line(text: bytes) -> None:
    with pytest.raises(UsageError, match="line 1"):
        list(read_events(io.BytesIO(text)))


@given(st.binary())
def test_any_input_is_read_or_refused(data: bytes) -> None:
    try:
        for row in read_events(io.BytesIO(data)):
            assert isinstance(row["event"], str)
    except UsageError:
        pass
