"""`kubesock events` on the real kernel: what the hooks report, to whom, and what it costs nobody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import CONFIG
from pyagent.demo.agent_process import Agent, kubesock
from pyagent.kernel.map_set import MapSet, current_folder
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import refusal
from tests.datapath.ground.sockets import DNS, WEB, write_services
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel
Row = dict[str, Any]


@pytest.fixture
def agent(manifests: Manifests, start_agent: StartAgent, cluster: SmallCluster) -> Agent:
    """Serves `web` by servers a and b, and `dns` by a."""
    a, b = cluster.server("a").ipv4, cluster.server("b").ipv4
    write_services(manifests, [a, b], [a])
    return start_agent(manifests.folder)


class Listening:
    """`kubesock events -f -o json` as a process."""

    def __init__(self, agent: Agent, folder: Path, *arguments: str) -> None:
        self._out = folder / f"events-{time.monotonic_ns()}"
        self._err = self._out.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                kubesock(
                    "events",
                    "-f",
                    "-o",
                    "json",
                    f"--bpffs={agent.bpffs}",
                    f"--state-dir={agent.state_dir}",
                    *arguments,
                ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def rows(self) -> list[Row]:
        lines = self._out.read_text().splitlines(keepends=True)
        return [json.loads(line)["object"] for line in lines if line.endswith("\n")]

    @property
    def text(self) -> str:
        return self._out.read_text()

    @property
    def complaint(self) -> str:
        return self._err.read_text()

    def hears(self, wanted: Callable[[Row], bool], do: Callable[[], object] = lambda: None) -> Row:
        """The first such event; `do` is done over and over until it has come."""

        def look() -> list[Row]:
            do()
            return [row for row in self.rows if wanted(row)]

        return wait_for(look, bool, f"the event (said: {self.complaint!r})")[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


Listen = Callable[..., Listening]


@pytest.fixture
def listen(agent: Agent, tmp_path: Path) -> Iterator[Listen]:
    started: list[Listening] = []

    def start(*arguments: str) -> Listening:
        started.append(Listening(agent, tmp_path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.end()


def dial(in_client: InClient, address: str = WEB, port: int = 80) -> None:
    """Connect once, whatever comes of it."""

    def once() -> None:
        with contextlib.suppress(OSError):
            ask_tcp(address, port)

    in_client(once)


def datagram(in_client: InClient) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", (DNS, 53))
            one.sendto(b"x", (DNS, 53))

    in_client(send)


def lease(agent: Agent) -> int:
    """When the hooks stop to report, nanoseconds since boot; 0: they do not."""
    maps = MapSet.open(current_folder(agent.bpffs))
    try:
        value: int = struct.unpack_from("=Q", maps.memory("config"), CONFIG.offsets["event_lease"])[0]
        return value
    finally:
        maps.close()


def test_a_translation_is_told_while_somebody_listens(
    agent: Agent, listen: Listen, in_client: InClient, cluster: SmallCluster
) -> None:
    assert lease(agent) == 0
    ear = listen()
    row = ear.hears(lambda row: row["event"] == "translated", lambda: dial(in_client))
    assert (row["service"], row["namespace"], row["name"]) == ("default/web:http/TCP", "default", "web")
    assert (row["dialled"], row["netns"], row["hook"]) == (f"{WEB}:80", cluster.client.netns.name, "connect4")
    assert row["chosen"] in {f"{cluster.server(name).ipv4}:8080" for name in "ab"}
    assert row["pid"] > 0
    assert row["command"]
    assert lease(agent) > time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    ear.end()
    wait_for(lambda: lease(agent), lambda until: until == 0, "the end of the lease")


def test_a_refusal_is_told_with_its_reason_and_can_be_written_down_and_read_again(
    agent: Agent, listen: Listen, in_client: InClient, manifests: Manifests, tmp_path: Path
) -> None:
    write_services(manifests, [], [])
    ear = listen("--event", "refused")
    row = ear.hears(lambda row: row["event"] == "refused_no_endpoints", lambda: dial(in_client))
    assert (row["errno"], row["what"]) == (refusal(), "no endpoint is ready")
    undefined = ear.hears(
        lambda row: row["event"] == "refused_undefined_port", lambda: dial(in_client, WEB, 81)
    )
    assert undefined["name"] == "web", "the Service whose address it is"
    assert all(row["event"].startswith("refused") for row in ear.rows)
    ear.end()
    written = tmp_path / "written"
    written.write_text("".join(line for line in ear.text.splitlines(keepends=True) if line.endswith("\n")))
    port = "refused_undefined_port"
    again = agent.verb("events", f"--input={written}", "-o", "json", "--event", port)[1]
    rows = [json.loads(line)["object"] for line in again.splitlines()]
    assert rows == [row for row in ear.rows if row["event"] == port]
    table = agent.verb("events", f"--input={written}", "-n", "default")[1]
    assert len(table.splitlines()) == 1 + len(ear.rows)


def test_the_agents_changes_and_ended_sockets_are_told(
    agent: Agent, listen: Listen, in_client: InClient, manifests: Manifests, cluster: SmallCluster
) -> None:
    ear = listen("--event", "change,socket_ended", "--last", "10")
    a, b = cluster.server("a").ipv4, cluster.server("b").ipv4
    reader, writer = os.pipe()

    def hold() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.connect((DNS, 53))
            os.write(writer, b"x")
            one.settimeout(30)
            try:
                one.recv(1)
            except OSError as error:
                return type(error).__name__
        return "nothing"

    ended: list[str] = []
    holder = threading.Thread(target=lambda: ended.append(in_client(hold, timeout=40.0)))
    holder.start()
    os.read(reader, 1)
    ear.hears(lambda row: True)  # what was before: it listens
    write_services(manifests, [a], [b])
    changed = ear.hears(lambda row: row["event"] == "change" and f"-{a}:5353" in row["what"])
    assert f"+{b}:5353" in changed["what"]
    gone = ear.hears(lambda row: row["event"] == "socket_ended")
    assert (gone["service"], gone["dialled"]) == ("default/dns:dns/UDP", f"{DNS}:53")
    assert (gone["chosen"], gone["netns"]) == (f"{a}:5353", cluster.client.netns.name)
    holder.join()
    assert ended == ["ConnectionAbortedError"]
    remembered = agent.rows("events", f"--state-dir={agent.state_dir}")
    assert {"change", "socket_ended"} <= {row["event"] for row in remembered}


def test_a_datagram_socket_that_moves_to_another_backend_is_told_as_a_switch(
    agent: Agent, listen: Listen, in_client: InClient, manifests: Manifests, cluster: SmallCluster
) -> None:
    a, b = cluster.server("a").ipv4, cluster.server("b").ipv4
    ear = listen("--event", "switched")

    def send_while_endpoints_change() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for _ in range(100):
                one.sendto(b"x", (DNS, 53))
                time.sleep(0.01)

    turn = [a, b]
    stop = threading.Event()

    def keep_moving() -> None:
        while not stop.is_set():
            turn.reverse()
            write_services(manifests, [a], [turn[0]])
            time.sleep(0.2)

    mover = threading.Thread(target=keep_moving)
    mover.start()
    try:
        row = ear.hears(lambda row: bool(row["previous"]), lambda: in_client(send_while_endpoints_change))
    finally:
        stop.set()
        mover.join()
    assert {row["previous"], row["chosen"]} == {f"{a}:5353", f"{b}:5353"}


def test_several_listeners_hear_what_each_asked_for(
    agent: Agent, listen: Listen, in_client: InClient, cluster: SmallCluster
) -> None:
    ears = {
        "web": listen("--service", "web"),
        "refused": listen("--event", "refused"),
        "other": listen("--pod", cluster.other_client.netns.name),
        "same": listen("--event", "translated_same_socket"),
    }

    def traffic() -> None:
        dial(in_client)
        dial(in_client, WEB, 81)
        datagram(in_client)
        dial(in_client.of(cluster.other_client))

    for name, ear in ears.items():
        ear.hears(lambda row: row["event"] != "change", traffic)
        assert ear.process.poll() is None, name
    traffic()
    heard = {name: [row for row in ear.rows if row["event"] != "change"] for name, ear in ears.items()}
    assert {row["name"] for row in heard["web"]} == {"web"}
    assert {row["event"] for row in heard["refused"]} == {"refused_undefined_port"}
    assert {row["netns"] for row in heard["other"]} == {cluster.other_client.netns.name}
    assert {row["event"] for row in heard["same"]} == {"translated_same_socket"}


def test_a_listener_that_does_not_read_holds_nobody_up(
    agent: Agent, listen: Listen, in_client: InClient, manifests: Manifests, cluster: SmallCluster
) -> None:
    stuck, ear = listen("--event", "all"), listen()
    for one in (stuck, ear):
        one.hears(lambda row: row["event"] == "translated", lambda: dial(in_client))
    os.kill(stuck.process.pid, signal.SIGSTOP)

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            for _ in range(10_000):
                one.sendto(b"x", (DNS, 53))

    in_client(flood)
    write_services(manifests, [cluster.server("c").ipv4], [cluster.server("a").ipv4])
    ear.hears(lambda row: row["event"] == "change" and row["name"] == "web")
    ear.hears(lambda row: row["chosen"] == f"{cluster.server('c').ipv4}:8080", lambda: dial(in_client))
    os.kill(stuck.process.pid, signal.SIGCONT)
    lost = stuck.hears(lambda row: row["event"] == "lost")
    assert lost["what"].split()[0].isdigit()


def test_without_an_agent_one_listener_reads_the_ring_until_an_agent_comes(
    agent: Agent, listen: Listen, in_client: InClient, start_agent: StartAgent, manifests: Manifests
) -> None:
    ear = listen()
    ear.hears(lambda row: row["event"] == "translated", lambda: dial(in_client))
    agent.stop()
    wait_for(lambda: ear.complaint, lambda text: "no agent is running" in text, "word of the agent's end")
    before = len(ear.rows)
    ear.hears(lambda row: row["event"] == "translated" and row in ear.rows[before:], lambda: dial(in_client))
    second = listen()
    assert second.process.wait(20) == 1
    assert second.complaint.count("\n") == 1
    assert f"process {ear.process.pid} listens already" in second.complaint
    following = start_agent(manifests.folder)
    wait_for(lambda: ear.complaint, lambda text: "an agent has come" in text, "word of the new agent")
    before = len(ear.rows)
    ear.hears(lambda row: row["event"] == "translated" and row in ear.rows[before:], lambda: dial(in_client))
    ear.end()
    wait_for(lambda: lease(following), lambda until: until == 0, "the end of the lease")


def test_what_the_ring_has_no_room_for_is_counted_and_told(
    agent: Agent, listen: Listen, in_client: InClient
) -> None:
    """The agent is stopped in its tracks, so that nobody drains the ring."""
    ear = listen("--event", "all")
    ear.hears(lambda row: row["event"] == "translated", lambda: dial(in_client))
    os.kill(agent.process.pid, signal.SIGSTOP)
    try:

        def flood() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                for _ in range(9_000):
                    one.sendto(b"x", (DNS, 53))

        in_client(flood)
    finally:
        os.kill(agent.process.pid, signal.SIGCONT)
    lost = ear.hears(lambda row: row["event"] == "lost" and "ring was full" in row["what"])
    assert int(lost["what"].split()[0]) > 0
