"""The socket for readers: who may connect, what is in the way, and what is answered."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pyagent.agent import local_api
from pyagent.agent.facts import Facts
from pyagent.agent.inbox import Standing
from pyagent.agent.journal import Journal
from pyagent.agent.local_api import Knowledge, LocalApi
from pyagent.datapath.event_filter import EventFilter
from pyagent.datapath.held import HeldState
from pyagent.datapath.plan import plan
from pyagent.model.source_events import SourceState
from pyagent.view.agent_socket import SOCKET, AgentFailed, NoAgent, ask, ask_plain, in_folder, listen
from pyagent.view.event_stream import Beat, Wish, decode, encode
from pyagent.view.explain_facts import NodeFacts
from tests.unit.datapath_plan.fake_maps import SMALL, FakeMaps
from tests.unit.desired.objects import Cluster, endpoint_slice, ready, service, unready

T = TypeVar("T")


class Loop:
    """Answers as the loop does, in the asker's thread; `busy` never answers."""

    def __init__(self) -> None:
        cluster = Cluster(
            service(),
            endpoint_slice(ready("10.1.0.1"), unready("10.1.0.2")),
            service("headless", "None"),
            service("broken", "10.96.0.99", externalIPs=["127.0.0.1"]),
            service(
                "both",
                "10.96.0.20",
                clusterIPs=["10.96.0.20", "fd00:96::20"],
                externalIPs=["203.0.113.20", "2001:db8:113::20"],
            ),
        )
        self.held = HeldState(SMALL)
        self.maps = FakeMaps()
        for write in plan(self.held, cluster.state.full(), complete=True).writes:
            self.maps.apply(write)
        self.standing = Standing(cluster.snapshot, cluster.state, self.held, True)
        self.busy = False

    def ask(self, question: Callable[[Standing], T]) -> Future[T]:
        answer: Future[T] = Future()
        if not self.busy:
            answer.set_result(question(self.standing))
        return answer


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def bpffs(tmp_path: Path) -> Path:
    return tmp_path / "bpf"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


Start = Callable[[], LocalApi]


class Ears:
    """Takes listeners as the hub does: says one line, and hangs up."""

    is_full = False

    def __init__(self) -> None:
        self.wishes: list[Wish] = []

    def attach(self, client: socket.socket, wish: Wish) -> None:
        self.wishes.append(wish)
        with client:
            client.send(encode(Beat(7)) + b"\n")


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def start(loop: Loop, state_dir: Path, bpffs: Path, ears: Ears) -> Iterator[Start]:
    """Starts the socket, as an agent does; all are stopped afterwards."""
    started: list[LocalApi] = []

    def make() -> LocalApi:
        facts = Facts()
        facts.source_state(SourceState("Service", "watching", resource_version="17"))
        rows = [{"setting": "node-name", "value": "n", "origin": "flag", "from": "--node-name"}]
        journal = Journal(lambda _: "5", clock=lambda: 99.0)
        journal(loop.standing.desired.full(), loop.standing.desired, loop.standing.snapshot)
        knowledge = Knowledge(loop.ask, lambda: loop.maps.raw, list, list, facts, journal, lambda: rows, ears)
        api = LocalApi(state_dir, bpffs, knowledge)
        started.append(api)
        api.start()
        return api

    yield make
    for api in started:
        api.stop()


def test_a_service_is_told_with_every_endpoint(start: Start, state_dir: Path, bpffs: Path) -> None:
    start()
    facts = ask(state_dir, bpffs, "/v1/services/shop/web", NodeFacts)
    (web,) = facts.services
    (port,) = web.ports
    assert (facts.node, facts.zone) == ("node-a", "zone-a")
    assert (port.service, port.family) == ("shop/web:http/TCP", "IPv4")
    assert [(one.dialled, one.kind, one.view) for one in port.frontends] == [
        ("10.96.0.10:80/TCP", "clusterIP", "Cluster")
    ]
    assert {one.endpoint: (one.chosen, one.left_out) for one in port.endpoints} == {
        "10.1.0.1:8080": ({"Cluster": "ready"}, {}),
        "10.1.0.2:8080": ({}, {"Cluster": "not ready"}),
    }


def test_services_are_found_by_their_address(start: Start, state_dir: Path, bpffs: Path) -> None:
    start()
    found = ask(state_dir, bpffs, "/v1/addresses/10.96.0.10", NodeFacts)
    assert [one.name for one in found.services] == ["web"]
    for external in ("203.0.113.20", "2001:db8:113::20"):
        found = ask(state_dir, bpffs, f"/v1/addresses/{external}", NodeFacts)
        assert [one.name for one in found.services] == ["both"]
    assert ask(state_dir, bpffs, "/v1/addresses/10.96.0.11", NodeFacts).services == ()
    with pytest.raises(AgentFailed, match="not an IP address"):
        ask(state_dir, bpffs, "/v1/addresses/nonsense", NodeFacts)


def test_a_listener_gets_what_it_wishes_until_one_side_hangs_up(
    start: Start, state_dir: Path, bpffs: Path, ears: Ears
) -> None:
    start()
    wish = Wish(EventFilter(6, frozenset({3, 5}), 99, 10), last=20)
    connection, heard = listen(state_dir, bpffs, wish.path())
    with connection:
        while chunk := connection.recv(4096):
            heard += chunk
    assert decode(heard) == Beat(7)
    assert ears.wishes == [wish]


def test_a_listener_too_many_or_without_sense_is_turned_away(
    start: Start, state_dir: Path, bpffs: Path, ears: Ears
) -> None:
    start()
    with pytest.raises(AgentFailed, match="not understood"):
        listen(state_dir, bpffs, "/v1/events?outcomes=many")
    ears.is_full = True
    with pytest.raises(AgentFailed, match="end one of them"):
        listen(state_dir, bpffs, Wish().path())
    with pytest.raises(NoAgent, match="is that of"):
        listen(state_dir, bpffs / "other", Wish().path())


def test_what_is_not_served_says_why_and_problems_are_told(
    start: Start, state_dir: Path, bpffs: Path
) -> None:
    start()
    (headless,) = ask(state_dir, bpffs, "/v1/services/shop/headless", NodeFacts).services
    assert "headless" in headless.not_served
    (broken,) = ask(state_dir, bpffs, "/v1/services/shop/broken", NodeFacts).services
    assert any("externalIPs" in problem for problem in broken.problems)
    assert ask(state_dir, bpffs, "/v1/services/shop/nobody", NodeFacts).services == ()


def test_settings_sync_and_journal_are_told(start: Start, state_dir: Path, bpffs: Path) -> None:
    start()
    assert ask_plain(state_dir, bpffs, "/v1/config")["settings"][0]["from"] == "--node-name"
    sync = ask_plain(state_dir, bpffs, "/v1/sync")
    assert [(row["kind"], row["resourceVersion"]) for row in sync["sources"]] == [("Service", "17")]
    assert sync["ready"] is False
    assert sync["notReadyBecause"]
    entries = ask_plain(state_dir, bpffs, "/v1/journal")["entries"]
    assert {
        "time": 99.0,
        "service": "shop/web:http/TCP",
        "family": "IPv4",
        "resourceVersion": "5",
    }.items() <= entries[0].items()


def test_diff_compares_the_maps_with_what_is_desired(
    start: Start, loop: Loop, state_dir: Path, bpffs: Path
) -> None:
    start()
    assert ask_plain(state_dir, bpffs, "/v1/diff") == {"differences": [], "count": 0}
    loop.maps.hashes["frontends"].clear()
    assert ask_plain(state_dir, bpffs, "/v1/diff")["count"] > 0


def test_before_the_first_plan_there_is_no_diff(
    start: Start, loop: Loop, state_dir: Path, bpffs: Path
) -> None:
    loop.standing = loop.standing._replace(planned=False)
    start()
    with pytest.raises(AgentFailed, match="no plan was carried out yet"):
        ask_plain(state_dir, bpffs, "/v1/diff")


def test_a_busy_loop_does_not_keep_a_reader_for_ever(
    start: Start, loop: Loop, state_dir: Path, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_api, "LOOP_SECONDS", 0.05)
    loop.busy = True
    start()
    with pytest.raises(AgentFailed, match="busy"):
        ask(state_dir, bpffs, "/v1/services/shop/web", NodeFacts)
    assert ask_plain(state_dir, bpffs, "/v1/config")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/services/shop", "/v1/services/a/b/c", "/v2/diff"])
def test_any_other_path_is_not_there(start: Start, state_dir: Path, bpffs: Path, path: str) -> None:
    start()
    with pytest.raises(AgentFailed, match="404"):
        ask_plain(state_dir, bpffs, path)


def test_the_socket_is_for_its_owner_whatever_the_umask(start: Start, state_dir: Path) -> None:
    before = os.umask(0)
    try:
        start()
    finally:
        os.umask(before)
    assert stat.S_IMODE((state_dir / SOCKET).lstat().st_mode) == 0o600
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


def test_a_link_in_its_place_goes_and_what_it_leads_to_stays(
    start: Start, state_dir: Path, bpffs: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    state_dir.mkdir()
    (state_dir / SOCKET).symlink_to(victim)
    start()
    assert victim.read_text() == "mine"
    assert stat.S_ISSOCK((state_dir / SOCKET).lstat().st_mode)
    assert ask_plain(state_dir, bpffs, "/v1/config")


def test_a_file_in_its_place_stays_and_is_told(
    start: Start, state_dir: Path, bpffs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_dir.mkdir()
    (state_dir / SOCKET).write_text("precious")
    start()
    assert (state_dir / SOCKET).read_text() == "precious"
    assert "remove it" in caplog.text
    with pytest.raises(NoAgent):
        ask_plain(state_dir, bpffs, "/v1/config")


def test_the_socket_of_a_dead_agent_is_taken_over_and_that_of_a_living_one_is_not(
    start: Start, state_dir: Path, bpffs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_dir.mkdir()
    with in_folder(state_dir) as path, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    first = start()
    assert ask_plain(state_dir, bpffs, "/v1/config")
    inode = (state_dir / SOCKET).lstat().st_ino
    second = start()
    assert "another agent listens there" in caplog.text
    second.stop()
    assert (state_dir / SOCKET).lstat().st_ino == inode
    first.stop()
    assert not (state_dir / SOCKET).exists()


def test_a_state_directory_that_cannot_be_made_is_told_and_no_more(
    start: Start, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state_dir.write_text("a file")
    start()
    assert "readers cannot ask this agent" in caplog.text


def test_the_agent_of_other_pins_is_none(start: Start, state_dir: Path, tmp_path: Path) -> None:
    start()
    with pytest.raises(NoAgent, match="give its --state-dir"):
        ask_plain(state_dir, tmp_path / "other", "/v1/config")


def test_without_a_socket_there_is_no_agent(state_dir: Path, bpffs: Path) -> None:
    with pytest.raises(NoAgent, match="start `kubesock run`"):
        ask_plain(state_dir, bpffs, "/v1/config")


@pytest.mark.parametrize(
    "said", [b"", b"garbage", b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 x\r\n\r\n", b"\xff\xfe\r\n\r\n"]
)
def test_what_does_not_answer_as_an_agent_does_is_told(state_dir: Path, bpffs: Path, said: bytes) -> None:
    state_dir.mkdir()
    with in_folder(state_dir) as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises((AgentFailed, NoAgent)):
            ask_plain(state_dir, bpffs, "/v1/config")
        thread.join()


def test_an_agent_that_does_not_answer_is_given_up(state_dir: Path, bpffs: Path) -> None:
    state_dir.mkdir()
    with in_folder(state_dir) as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with pytest.raises(AgentFailed, match="did not answer"):
            ask(state_dir, bpffs, "/v1/config", dict[str, Any], seconds=0.05)
