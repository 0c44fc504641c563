"""Somebody with root's rights disturbs the node: it is noticed within seconds, made good, and told once."""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import (
    BACKEND,
    CLIENT_ADDRESSES,
    CONFIG,
    META,
    SOURCE_RANGE_KEY,
    WORKLOAD_KEY,
    Hook,
)
from pyagent.datapath.writes import Put, Remove, Store, Write
from pyagent.demo.sandbox import Sandbox
from pyagent.demo.syscalls import mount_filesystem, unmount
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.features import PROGRAM_SOCK_ADDR
from pyagent.kernel.links import ATTACH_TYPE, effective_programs, pinned_states, program_name
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.mounts import BPFFS_MAGIC, filesystem_type
from tests.cluster.support import node as node_object
from tests.datapath.ground import Agent, Reply, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, ask
from tests.datapath.ground.waiting import wait_for
from tests.fakes.api_server import ApiServer

pytestmark = pytest.mark.kernel

FRONTEND, INGRESS = "10.96.0.1", "192.0.2.44"


@pytest.fixture
def server(cluster: SmallCluster) -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.put(node_object("n"))
        balanced = service("web", [FRONTEND], [("t", 80, "TCP")])
        balanced["spec"] |= {"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24"]}
        balanced["status"] = {"loadBalancer": {"ingress": [{"ip": INGRESS}]}}
        running.put(balanced)
        running.put(endpoint_slice("web", [cluster.server("a").ipv4], [("t", 8080, "TCP")]))
        yield running


@pytest.fixture
def start(server: ApiServer, start_agent: StartAgent, tmp_path: Path) -> Callable[..., Agent]:
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig.yaml")
    return lambda **more: start_agent(kubeconfig=kubeconfig, in_node_namespace=False, **more)


def dial(in_client: InClient) -> str:
    answer = in_client(lambda: ask(Way("tcp", 4), FRONTEND, 80))
    return answer.pod if isinstance(answer, Reply) else answer


def repairs(server: ApiServer) -> list[dict[str, Any]]:
    return [event for event in list(server.events.values()) if event["reason"] == "Repaired"]


def repaired(server: ApiServer, text: str) -> list[dict[str, Any]]:
    """The Events that tell so, as soon as there is one."""
    return wait_for(
        lambda: [e for e in repairs(server) if text in e["note"]], bool, f"an Event about {text!r}"
    )


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it took, for docs/reliability.md; nothing is asserted about it."""
    began = time.monotonic()
    yield
    print(f"\n{what}: {time.monotonic() - began:.1f} s")


def attached(agent: Agent) -> set[Hook]:
    return {hook for hook, found in effective_programs(agent.cgroup).items() if found}


def pins(bpffs: Path) -> set[str]:
    return {str(path.relative_to(bpffs)) for path in bpffs.rglob("*")}


def alterations(agent: Agent) -> dict[str, Write]:
    """A write for each map that the agent writes, each harmful."""
    maps = MapSet.open(current_folder(agent.bpffs))
    try:
        tables = ("frontends", "service_addresses", "source_ranges", "names")
        first = {name: min(maps.items(name)) for name in tables}
    finally:
        maps.close()
    owner = SOURCE_RANGE_KEY.size - 20
    everyone = struct.pack("=I", 32) + first["source_ranges"][0][4 : 4 + owner] + bytes(16)
    return {
        "frontends": Remove("frontends", first["frontends"][0]),
        "sets": Store("sets", 16, bytes(8)),
        "slots": Store("slots", 64, bytes(8)),
        "backends": Store("backends", BACKEND.size, b"\xff" * 16),
        "service_addresses": Remove("service_addresses", first["service_addresses"][0]),
        "node_addresses": Put("node_addresses", bytes(16), bytes(4)),
        "source_ranges": Put("source_ranges", everyone, struct.pack("=I", 1)),
        "client_addresses": Put("client_addresses", struct.pack("=Q", 1), bytes(CLIENT_ADDRESSES.size)),
        "opted_out": Put("opted_out", WORKLOAD_KEY.pack(1, 1, 0), struct.pack("=I", 1)),
        "config": Store("config", CONFIG.offsets["node_netns"], bytes(8)),
        "meta": Store("meta", 0, bytes(META.size)),
        "names": Remove("names", first["names"][0]),
        "layout": Store("layout", 0, b"garbage!"),
    }


def other_alterations(agent: Agent) -> dict[str, Write]:
    """Of the same maps in another way, as far as there is one."""
    maps = MapSet.open(current_folder(agent.bpffs))
    try:
        ranges = dict(maps.items("source_ranges"))
    finally:
        maps.close()
    return {
        "source_ranges": Put("source_ranges", min(ranges), bytes(4)),
        "config": Store("config", CONFIG.offsets["service_ipv4_low"], b"\xff" * 8),
        "sets": Store("sets", 0, b"\xff" * 8),
    }


def alter(agent: Agent, writes: Iterable[Write]) -> None:
    maps = MapSet.open(current_folder(agent.bpffs), writable=True)
    try:
        maps.apply(writes)
    finally:
        maps.close()


def keys(agent: Agent, name: str) -> set[bytes]:
    maps = MapSet.open(current_folder(agent.bpffs))
    try:
        return {key for key, _ in maps.items(name)}
    finally:
        maps.close()


def test_entries_that_somebody_changed_are_made_good_and_told(
    server: ApiServer, start: Callable[..., Agent], in_client: InClient
) -> None:
    agent = start(arguments=("--opt-out=on",))
    wait_for(lambda: keys(agent, "client_addresses"), bool, "addresses of clients")
    for wrong in (alterations(agent), other_alterations(agent)):
        altered_and_repaired(agent, wrong)
        wait_for(lambda: keys(agent, "opted_out"), lambda now: not now, "an end of the opted-out workload")
        wait_for(lambda: dial(in_client), lambda pod: pod == "a", "the pod")
    assert struct.pack("=Q", 1) not in keys(agent, "client_addresses")
    assert agent.rows("services"), "readers still know the maps"


def altered_and_repaired(agent: Agent, wrong: dict[str, Write]) -> None:
    rounds, began = 0, len(agent.log.read_text())

    def told() -> set[str]:
        lines = re.findall(r"repaired map ([a-z_, ]+): entries were changed", agent.log.read_text()[began:])
        return {name for names in lines for name in names.split(", ")}

    while missing := wrong.keys() - told():
        # Again if it came while the agent was making good the others, which repairs it without a word.
        rounds += 1
        assert rounds < 20, missing
        with timed(f"entries of {len(missing)} maps"):
            alter(agent, [wrong[name] for name in missing])
            wait_for(told, lambda names, missing=missing: names & missing, "a line about it")  # type: ignore[misc]
        code = wait_for(
            lambda: agent.verb("diff", f"--state-dir={agent.state_dir}"), lambda d: not d[0], "repair"
        )
        assert code[1] == ""


def test_a_program_or_a_pin_of_somebody_else_is_replaced_by_ours(
    server: ApiServer, start: Callable[..., Agent], in_client: InClient
) -> None:
    agent = start()
    links, current = agent.bpffs / "links", current_folder(agent.bpffs)
    programs = {state.hook: state.program_id for state in pinned_states(links)}
    wait_for((current / "connections").exists, bool, "the table of connections")
    link, foreign = bpf.obj_get(str(links / program_name(Hook.CONNECT4))), _allow_everything()
    impostor = bpf.map_create("sets", 2, 4, 8, 8)
    with timed("a program and pins of somebody else"):
        bpf.link_update(link, foreign)
        (links / program_name(Hook.SENDMSG4)).chmod(0o666)
        for pin in (current / "sets", current / "connections", links / program_name(Hook.CONNECT6)):
            pin.unlink()
            bpf.obj_pin(impostor, str(pin))
        (agent.bpffs / "current").unlink()
        (agent.bpffs / "current").symlink_to("elsewhere")
        for text in (
            "connect4: it ran a program of somebody else",
            "connect6: its pin was",
            "links/sendmsg4: it was open to others, its mode was 0666",
            "connection table: its pin was",
            "map sets: its pin was",
            "map current: its pin was",
        ):
            (event,) = repaired(server, text)
            assert event.get("series") is None
    assert dial(in_client) == "a"
    assert {state.hook: state.program_id for state in pinned_states(links)} == programs
    assert agent.rows("services")
    assert agent.verb("connections")[0] == 0
    for fd in (link, foreign, impostor):
        os.close(fd)


def _allow_everything() -> int:
    """A connect4 program that lets every call pass untouched."""
    instructions = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)  # r0 = 1; exit
    return bpf.program_load(
        bpf.ProgramKind(PROGRAM_SOCK_ADDR, ATTACH_TYPE[Hook.CONNECT4]), instructions, "pass"
    )


def test_a_bpf_file_system_that_somebody_unmounts_is_mounted_and_filled_again(
    server: ApiServer, start: Callable[..., Agent], in_client: InClient, tmp_path: Path
) -> None:
    folder = tmp_path / "pins"
    folder.mkdir()
    mount_filesystem("bpf", folder)
    try:
        agent = start(bpffs=folder)
        before = pins(folder)
        with timed("an unmounted BPF file system"):
            unmount(folder)
            assert dial(in_client) == "a", "the agent holds what was pinned"
            (event,) = repaired(server, "the folder or its file system was gone")
        wait_for(lambda: pins(folder), lambda now: now == before, "every pin")
        assert filesystem_type(folder) == BPFFS_MAGIC
        assert attached(agent) == set(Hook)
        assert event.get("series") is None
        second = start(bpffs=folder, ready=False, state_dir=tmp_path / "other")
        assert second.process.wait(20.0) == 1, "the lock is that of the new folder"
        assert f"process {agent.process.pid}" in second.log_tail()
        agent.stop()
        assert dial(in_client) == "a"
        assert agent.verb("cleanup")[0] == 0
    finally:
        while folder.is_mount():
            unmount(folder)


def test_hooks_follow_a_cgroup_that_is_made_again(
    sandbox: Sandbox, server: ApiServer, start: Callable[..., Agent], cluster: SmallCluster
) -> None:
    served = sandbox.new_cgroup("served")
    try:
        agent = start(cgroup=served)
        assert dial(InClient(cluster.client.netns, served)) == "a"
        sandbox.remove_cgroup("served")
        wait_for(agent.log.read_text, lambda text: "not repaired" in text, "a complaint")
        wait_for(lambda: agent.get("/readyz")[0], lambda status: status == 503, "an end of being ready")
        with timed("a cgroup made again"):
            sandbox.new_cgroup("served")
            wait_for(lambda: attached(agent), lambda found: found == set(Hook), "the hooks")
        assert dial(InClient(cluster.client.netns, served)) == "a"
        (event,) = repaired(server, "connect4: it was detached")
        assert all(program_name(hook) in event["note"] for hook in Hook)
        agent.wait_ready()
        agent.stop()
    finally:
        sandbox.remove_cgroup("served")
