"""What a demo makes on the machine comes, and goes in every way a process can end."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo import namespaces, sandbox
from pyagent.demo.calls import CallFailed, call
from pyagent.demo.children import SpawnFailed, spawn, started_at, wait_until
from pyagent.demo.links import Attachment
from pyagent.demo.requirements import cgroup2_root
from pyagent.demo.sandbox import Sandbox, remove_leftovers

pytestmark = pytest.mark.kernel

KIND = "selftest"
SIOCGIFHWADDR = 0x8927


@pytest.fixture
def made() -> Iterator[Sandbox]:
    with Sandbox.create(KIND) as one:
        yield one


def traces_of(identifier: str) -> list[Path]:
    """Every file, mount and cgroup on the machine that carries a sandbox's id."""
    root = cgroup2_root()
    assert root
    mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [
        *sandbox.RUN.glob(f"*{identifier}*"),
        *namespaces.NAMESPACES.glob(f"*{identifier}*"),
        *root.glob(f"*{identifier}*"),
        *(mount for mount in mounts if identifier in str(mount)),
    ]


def network_of(pid: int | str) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def own_cgroup() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def test_a_sandbox_leaves_nothing_behind() -> None:
    with Sandbox.create(KIND) as made:
        made.new_namespace("pod")
        (made.bpffs / "pins").mkdir()
        made.spawn(["sleep", "60"], cgroup=made.new_cgroup("cluster/pod"))
        assert len(traces_of(made.id)) == 5, "the folder, the namespace, the cgroup, two mounts"
        made.remove()
        assert traces_of(made.id) == []
        made.remove()  # twice is as good as once


def test_a_child_starts_in_the_namespace_and_the_cgroup_that_it_was_given(made: Sandbox) -> None:
    netns, cgroup = made.new_namespace("pod"), made.new_cgroup("cluster/pod")
    child = made.spawn(["sleep", "60"], netns=netns, cgroup=cgroup)
    assert network_of(child.pid) == netns.stat().st_ino != network_of("self")
    assert (cgroup / "cgroup.procs").read_text().split() == [str(child.pid)]


def test_a_callable_is_in_its_cgroup_before_it_runs(made: Sandbox) -> None:
    netns, cgroup = made.new_namespace("pod"), made.new_cgroup("cluster/pod")
    seen = call(lambda: (own_cgroup(), network_of("self")), netns=netns, cgroup=cgroup)
    assert seen == (f"/{made.cgroup.name}/cluster/pod", netns.stat().st_ino)


def test_an_exception_in_a_call_is_raised_by_the_caller_with_the_forks_traceback(made: Sandbox) -> None:
    def refuse() -> None:
        raise ConnectionRefusedError(111, "refused there")

    with pytest.raises(ConnectionRefusedError, match="refused there") as caught:
        call(refuse)
    assert "in refuse" in "\n".join(caught.value.__notes__)


def test_a_call_that_hangs_is_killed() -> None:
    with pytest.raises(CallFailed, match="no answer after"):
        call(lambda: time.sleep(60), timeout=0.1)


def test_an_answer_larger_than_a_pipe_arrives_whole() -> None:
    assert call(lambda: bytes(3_000_000)) == bytes(3_000_000)


def test_a_call_that_dies_says_so() -> None:
    with pytest.raises(CallFailed, match="exit code -9"):
        call(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_program_that_does_not_exist_is_named(made: Sandbox) -> None:
    with pytest.raises(SpawnFailed, match="no-such-program"):
        spawn(["/usr/bin/no-such-program"])


def test_a_namespace_that_does_not_exist_is_named(made: Sandbox) -> None:
    with pytest.raises(SpawnFailed, match="kubesock-nowhere"):
        spawn(["true"], netns=namespaces.NAMESPACES / "kubesock-nowhere")


def test_a_taken_namespace_name_is_refused_and_kept(made: Sandbox) -> None:
    path = made.new_namespace("pod")
    with pytest.raises(FileExistsError):
        made.new_namespace("pod")
    assert path in namespaces.named(f"kubesock-{made.id}-")


def test_ending_a_child_tells_how_it_ended(made: Sandbox) -> None:
    assert made.spawn(["sleep", "60"]).stop() == -signal.SIGTERM
    assert made.spawn(["sh", "-c", "exit 7"]).wait(5.0) == 7


def abandoned_by(ending: signal.Signals) -> str:
    """The id of a sandbox whose owner, a process of its own, was ended by a signal."""
    program = (
        "import time\nfrom pyagent.demo.sandbox import Sandbox\n"
        f"made = Sandbox.create({KIND!r})\nmade.new_namespace('pod')\n(made.bpffs / 'pins').mkdir()\n"
        "child = made.spawn(['sleep', '60'], cgroup=made.new_cgroup('cluster/pod'))\n"
        "print(made.id, child.pid, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()) as owner:
        assert owner.stdout
        identifier, pid = owner.stdout.readline().split()
        owner.send_signal(ending)
        owner.wait(10.0)
        assert wait_until(lambda: started_at(int(pid)) is None, 10.0), "a child outlived its owner"
    return identifier


def test_the_next_run_removes_what_a_killed_owner_left() -> None:
    identifier = abandoned_by(signal.SIGKILL)
    assert traces_of(identifier)
    removed, _ = remove_leftovers(KIND)
    assert f"kubesock-{KIND}-{identifier}" in removed
    assert traces_of(identifier) == []


def test_a_folder_without_an_owner_is_a_left_over() -> None:
    folder = sandbox.RUN / f"kubesock-{KIND}-abcdef.new"
    folder.mkdir()
    remove_leftovers(KIND)
    assert folder.exists(), "its owner may be about to write its name"
    os.utime(folder, (0, 0))
    remove_leftovers(KIND)
    assert not folder.exists()


def test_cleaning_leaves_a_living_sandbox_alone(made: Sandbox) -> None:
    child = made.spawn(["sleep", "60"])
    _, in_use = remove_leftovers(KIND)
    assert made.folder.name in in_use
    assert child.running
    assert traces_of(made.id)


def test_pods_reach_each_other_and_nothing_else(made: Sandbox) -> None:
    node, pods = made.new_namespace("n"), [made.new_namespace(name) for name in "ab"]
    namespaces.make_node(node, ["10.244.0.1/16", "fd44:10:244::1/64"])
    namespaces.attach_pods(
        node,
        [
            Attachment(name, pod, (f"10.244.1.{n}/16", f"fd44:10:244::{n}/64"), ("172.30.0.0/24",))
            for n, (name, pod) in enumerate(zip("ab", pods, strict=True), 2)
        ],
    )

    def dial(address: str) -> int:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(5.0)
            return sock.connect_ex((address, 9))

    refused, unreachable = 111, 101
    for address in ("10.244.1.3", "fd44:10:244::3", "10.244.0.1", "127.0.0.1", "::1"):
        assert call(lambda address=address: dial(address), netns=pods[0]) == refused, address  # type: ignore[misc]
    for address in ("10.96.0.1", "fd44:10:96::1", "192.0.2.1", "2001:db8::1"):
        assert call(lambda address=address: dial(address), netns=pods[0]) == unreachable, address  # type: ignore[misc]


def test_the_node_keeps_its_link_address_when_pods_come_and_go(made: Sandbox) -> None:
    node = made.new_namespace("n")
    namespaces.make_node(node, ["10.244.0.1/16"])

    def link_address() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = fcntl.ioctl(sock, SIOCGIFHWADDR, struct.pack("256s", b"cni0"))
        return request[18:24].hex(":")

    seen = {call(link_address, netns=node)}
    for number in range(2, 6):
        pod = made.new_namespace(f"pod-{number}")
        namespaces.attach_pods(node, [Attachment(f"veth{number}", pod, (f"10.244.1.{number}/16",))])
        seen.add(call(link_address, netns=node))
        if number % 2:
            namespaces.remove(pod)
    assert len(seen) == 1
