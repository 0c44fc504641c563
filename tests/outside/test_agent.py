"""The agent keeps packets from outside served: from its start, through restarts, until `cleanup`."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyagent.agent.flows import ENTRIES
from pyagent.agent.state_files import PROGRAMS
from pyagent.demo.agent_process import Agent, run_verb
from pyagent.demo.children import wait_until
from pyagent.demo.sandbox import Sandbox
from pyagent.kernel.map_set import current_folder
from pyagent.kernel.tc_links import attached_places
from tests.datapath.ground.asking import ask_tcp, ask_udp, tcp_reply_on
from tests.datapath.ground.capabilities import NEEDED, with_only
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.manifests import Manifests, service_cidr
from tests.datapath.ground.steps import in_steps
from tests.outside.lan import CLUSTER_RANGE, Host, Lan
from tests.outside.served import NODE_PORT, UDP_NODE_PORT, Served, exposed, nodes

pytestmark = pytest.mark.kernel
PATIENCE = 60.0


class Node:
    """An agent for node-a, started as often as a test likes."""

    def __init__(self, sandbox: Sandbox, lan: Lan, folder: Path, programs: Path) -> None:
        self.sandbox, self.lan = sandbox, lan
        self.manifests = Manifests(folder / "manifests")
        self.state_dir = folder / "state"
        self.compiled = programs
        shutil.copytree(programs, self.state_dir / PROGRAMS)
        (self.state_dir / PROGRAMS).chmod(0o700)
        self.bpffs = sandbox.bpffs / folder.name
        self.cgroup = sandbox.new_cgroup(folder.name)
        self.agent: Agent | None = None

    def put(self, *ends: tuple[Host, str], **spec: Any) -> None:
        self.manifests.write("all", [*exposed(*ends, **spec), *nodes(self.lan), service_cidr(*CLUSTER_RANGE)])

    def start(self, *arguments: str, launcher: tuple[str, ...] = ()) -> Agent:
        self.agent = Agent(
            self.sandbox,
            ("--manifests", str(self.manifests.folder)),
            node_name="node-a",
            cgroup=self.cgroup,
            bpffs=self.bpffs,
            state_dir=self.state_dir,
            netns=self.lan.node_a.netns,
            arguments=arguments,
            launcher=launcher,
        )
        self.agent.wait_ready()
        return self.agent

    def serves_packets(self) -> bool:
        return bool(self.lan.node_a.do(lambda: attached_places(self.bpffs / "outside")))

    def wait_served(self, served: bool = True) -> None:
        assert self.agent is not None
        if not wait_until(lambda: self.serves_packets() == served, PATIENCE):
            raise AssertionError(self.agent.log_tail())

    def stop(self) -> None:
        if self.agent is not None:
            self.agent.process.kill()
            self.agent = None
            shutil.copytree(self.state_dir / PROGRAMS, self.compiled, dirs_exist_ok=True)


@pytest.fixture
def node(sandbox: Sandbox, lan: Lan, served_once: Served, tmp_path: Path) -> Iterator[Node]:
    """Nothing else is attached to node-a meanwhile."""
    served_once.cover("off")
    made = Node(sandbox, lan, tmp_path, served_once.cache_folder)
    yield made
    made.stop()
    lan.node_a.do(partial(run_verb, "cleanup", f"--bpffs={made.bpffs}"))
    served_once.cover("auto")


def who(lan: Lan, port: int = NODE_PORT) -> str:
    ask = ask_tcp if port == NODE_PORT else ask_udp
    try:
        return lan.client.do(partial(ask, lan.node_a.ipv4, port)).pod
    except OSError as error:
        return type(error).__name__


def test_an_agent_serves_its_uplinks_by_itself_and_leaves_nothing_after_cleanup(node: Node) -> None:
    node.put((node.lan.a1, "node-a"))
    agent = node.start()
    node.wait_served()
    assert (who(node.lan), who(node.lan, UDP_NODE_PORT)) == ("a1", "a1")
    assert wait_until(lambda: "serving packets at eth0" in agent.log_tail(), PATIENCE), agent.log_tail()
    shutil.rmtree(node.bpffs / "outside")
    told = "repaired outside: the folder was gone, all pins with it"
    assert wait_until(lambda: told in agent.log_tail(), PATIENCE), agent.log_tail()
    node.wait_served()
    repairs = "kubesock_repairs_total 1.0"
    assert wait_until(lambda: repairs in agent.get("/metrics", metrics=True)[1], PATIENCE)
    node.stop()
    assert who(node.lan) == "a1", "what is attached goes on serving"
    code, _, errors = node.lan.node_a.do(partial(run_verb, "cleanup", f"--bpffs={node.bpffs}"))
    assert (code, node.serves_packets(), node.bpffs.exists()) == (0, False, False), errors
    assert who(node.lan) == "ConnectionRefusedError"


def test_three_capabilities_are_enough_for_packets_from_outside(node: Node) -> None:
    node.put((node.lan.a1, "node-a"))
    node.start(launcher=with_only(*NEEDED))
    node.wait_served()
    assert (who(node.lan), who(node.lan, UDP_NODE_PORT)) == ("a1", "a1")


def test_no_connection_is_lost_while_the_agent_restarts_under_load(node: Node) -> None:
    """Ones that are open stay open, and new ones are dialled without a pause all the time."""
    node.put((node.lan.b1, "node-b"))
    node.start()
    node.wait_served()
    address = node.lan.node_a.ipv4
    stopping = threading.Event()
    dialled: list[str] = []

    def dial() -> None:
        while not stopping.is_set():
            try:
                dialled.append(ask_tcp(address, NODE_PORT).pod)
            except OSError as error:
                dialled.append(repr(error))

    def talk() -> Iterator[str]:
        with socket.create_connection((address, NODE_PORT), timeout=10) as sock:
            threads = [threading.Thread(target=dial, daemon=True) for _ in range(2)]
            yield tcp_reply_on(sock).pod
            for thread in threads:
                thread.start()
            for _ in range(4):
                yield tcp_reply_on(sock).pod
            stopping.set()
            for thread in threads:
                thread.join()
        yield f"{len(dialled) > 0} {set(dialled)}"

    with in_steps(InClient(node.lan.client.netns, None), talk) as talking:
        assert (talking.next(), talking.next()) == ("b1", "b1")
        node.stop()
        assert talking.next() == "b1"
        node.start()
        assert talking.next() == "b1"
        node.stop()
        node.start()
        assert talking.next() == "b1"
        assert talking.next() == "True {'b1'}"


def test_a_connection_that_is_quiet_outlives_more_others_than_the_map_had_room_for(node: Node) -> None:
    """The kernel gives up the quietest when the map is full: it must grow before."""
    node.put((node.lan.b1, "node-b"))
    agent = node.start("--map-sizes=flows=2048")
    node.wait_served()
    address, connections = node.lan.node_a.ipv4, 2048 // ENTRIES + 100

    def growing() -> bool:
        """Of maps of the first generation, as often as it was told, one larger each time."""
        asked_for = agent.log.read_text().count("maps are nearly full")
        return current_folder(node.bpffs).name != f"v1-{1 + asked_for}"

    def talk() -> str:
        with socket.create_connection((address, NODE_PORT), timeout=10) as sock:
            before = tcp_reply_on(sock).pod
            for _ in range(connections):
                ask_tcp(address, NODE_PORT)
                assert wait_until(lambda: not growing(), PATIENCE)
                time.sleep(0.008)
            return f"{before} {tcp_reply_on(sock).pod}"

    assert node.lan.client.do(talk, timeout=100.0) == "b1 b1"
    assert "flows 2048 -> " in agent.log.read_text()


def ip_commands(host: Host, *lines: str) -> None:
    for line in lines:
        host.do(partial(subprocess.run, ["ip", *line.split()], check=True))


@pytest.fixture
def no_default_route(lan: Lan) -> Iterator[None]:
    """node-a's uplink is known by the Node's address alone, and there is a device to name besides."""
    outwards = ("203.0.113.0/24 via 192.0.2.254", "default via 192.0.2.254")
    ip_commands(lan.node_a, f"route add {outwards[0]}", "route del default", "-6 route del default")
    ip_commands(lan.node_a, "link add named0 type veth peer name named1", "link set named0 up")
    yield
    ip_commands(lan.node_a, "link del named0", "-6 route add default via fd00:2::fe")
    ip_commands(lan.node_a, f"route add {outwards[1]}", f"route del {outwards[0]}")


@pytest.mark.usefixtures("no_default_route")
def test_a_restart_leaves_no_gap_at_an_uplink_that_the_nodes_address_tells(node: Node) -> None:
    node.put((node.lan.a1, "node-a"))
    node.start()
    node.wait_served()
    assert who(node.lan) == "a1"
    node.stop()
    agent = node.start("--outside=auto,named0")
    begun = "serving packets at named0"  # by then it has decided about all devices
    answers = set()

    def has_begun() -> bool:
        answers.add(who(node.lan))
        return begun in agent.log_tail()

    assert wait_until(has_begun, PATIENCE), agent.log_tail()
    assert answers == {"a1"}
    assert "no longer serving" not in agent.log_tail()


@pytest.mark.long
def test_switched_off_it_detaches_what_an_earlier_agent_attached(node: Node) -> None:
    node.put((node.lan.a1, "node-a"))
    node.start()
    node.wait_served()
    node.stop()
    node.start("--outside=off")
    node.wait_served(False)


def test_a_datagram_flow_leaves_a_backend_that_is_gone(node: Node) -> None:
    node.put((node.lan.a1, "node-a"))
    node.start()
    node.wait_served()

    def talk() -> Iterator[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((node.lan.node_a.ipv4, UDP_NODE_PORT))
            while True:
                sock.settimeout(3)
                try:
                    sock.send(b"x")
                    yield "a2" if b'"a2"' in sock.recv(65536) else "a1"
                except OSError as error:
                    yield type(error).__name__

    with in_steps(InClient(node.lan.client.netns, None), talk) as talking:
        assert talking.next() == "a1"
        node.put((node.lan.a2, "node-a"))
        deadline = time.monotonic() + PATIENCE
        while talking.next() != "a2":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        node.put()
        while talking.next() != "ConnectionRefusedError":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_comes_from_outside_is_seen_everywhere(node: Node) -> None:
    node.put((node.lan.a1, "node-a"), externalTrafficPolicy="Local")
    agent = node.start()
    node.wait_served()
    assert who(node.lan) == "a1"

    def verb(*arguments: str) -> str:
        code, out, err = node.lan.node_a.do(partial(run_verb, *arguments, f"--bpffs={node.bpffs}"))
        assert code in (0, 4), out + err
        return out

    client, frontend = node.lan.client.ipv4, f"{node.lan.node_a.ipv4}:{NODE_PORT}"
    (row,) = [
        one for one in json.loads(verb("connections", "-o", "json"))["items"] if one["protocol"] == "TCP"
    ]
    assert (row["netns"], row["dialled"], row["service"]) == ("outside", frontend, "default/web:web/TCP")
    assert row["source"].startswith(f"{client}:")
    top = ("top", "connections", "--interval=0.25", "-o", "json")
    (shown,) = [one for one in json.loads(verb(*top))["items"] if one["protocol"] == "TCP"]
    assert (shown["netns"], shown["source"], shown["chosen"]) == ("outside", row["source"], row["chosen"])
    assert "served at eth0" in verb("check")
    assert [one["device"] for one in json.loads(verb("status", "-o", "json"))["outside"]] == ["eth0"]
    state = f"--state-dir={node.state_dir}"
    explained = json.loads(verb("explain", frontend, "--from", "203.0.113.99", "-o", "json", state))
    assert (explained["outcome"], explained["set"]["view"]) == ("translated", "Local")
    scraped = agent.get("/metrics", metrics=True)[1]
    assert 'kubesock_outside_outcomes_total{outcome="translated"} 1.0' in scraped
    assert 'kubesock_outside_device{device="eth0"} 1.0' in scraped
