"""What an agent may be denied, a test for each row of the table in docs/security.md: what works with a
capability, and what is said, by its name, without."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import Hook
from pyagent.demo.agent_process import Agent, items_of, kubesock
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.features import kernel_version
from pyagent.kernel.links import effective_programs, program_name
from tests.datapath.ground import Manifests, Reply, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.capabilities import NEEDED, can_be_had, with_only
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, ask, make_socket
from tests.datapath.ground.steps import in_steps
from tests.datapath.ground.waiting import wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(kernel_version() < (5, 11), reason="maps are locked memory: needs CAP_SYS_RESOURCE"),
]

FRONTEND, BALANCED = "10.96.0.1", "198.51.100.1"
PORTS = [("t", 80, "TCP"), ("u", 80, "UDP")]
TARGETS = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
LOW_PORT = 81
LINK_DETACH = 34
ENDED = ("ECONNABORTED", "EDESTADDRREQ")  # from recv(), from send()


def web(cluster: SmallCluster, pod: str) -> list[dict[str, Any]]:
    """A Service with a load-balancer address for the client alone."""
    balanced = service(
        "web",
        [FRONTEND],
        PORTS,
        type="LoadBalancer",
        loadBalancerSourceRanges=[f"{cluster.client.ipv4}/32"],
    )
    balanced["status"] = {"loadBalancer": {"ingress": [{"ip": BALANCED}]}}
    return [balanced, endpoint_slice("web", [cluster.server(pod).ipv4], TARGETS)]


def dial(in_client: InClient, call: str = "tcp", address: str = FRONTEND) -> str:
    answer = in_client(lambda: ask(Way(call, 4), address, 80))
    return answer.pod if isinstance(answer, Reply) else answer


def effective(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff")), 16)


def program_ids(agent: Agent) -> dict[Hook, list[int]]:
    return {hook: list(ids) for hook, ids in effective_programs(agent.cgroup).items()}


def said(agent: Agent, text: str) -> str:
    """Wait until a line of the log has this text; the line."""

    def line() -> str:
        return next((line for line in agent.log.read_text().splitlines() if text in line), "")

    return wait_for(line, bool, f"a line with {text!r}")


def hold_a_datagram_socket() -> Iterator[str]:
    """A connected socket; again and again: the error that waits at it."""
    with closing(make_socket(Way("udp", 4))) as held:
        held.connect((FRONTEND, 80))
        while True:
            try:
                held.send(b"x\n")
                held.recv(65536)
            except OSError as error:
                yield errno.errorcode[error.errno or 0]
            else:
                yield "answered"


def test_three_capabilities_are_enough_to_serve_to_follow_to_repair_and_to_restart(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", web(cluster, "a"))
    low = f"--metrics-bind-address=127.0.0.1:{LOW_PORT}"
    agent = start_agent(manifests.folder, launcher=with_only(*NEEDED), arguments=(low,))
    assert effective(agent.process.pid) == 1 << 39 | 1 << 38 | 1 << 12
    assert [dial(in_client, call) for call in ("tcp", "udp", "datagram")] == ["a"] * 3
    with in_steps(in_client, hold_a_datagram_socket) as client:
        assert client.next() == "answered"
        manifests.write("web", web(cluster, "b"))
        wait_for(lambda: dial(in_client), lambda pod: pod == "b", "the other pod")
        assert "needs CAP_SYS_ADMIN" in said(agent, "a socket stays on")
        assert client.next() == "answered"
    assert "needs CAP_SYS_ADMIN" in said(agent, f"addresses of {cluster.client.netns} are not known")
    assert dial(in_client, address=BALANCED) not in ("a", "b")
    assert "need CAP_NET_BIND_SERVICE" in said(agent, f"{LOW_PORT} cannot listen")
    assert "needs CAP_SYS_RESOURCE" in said(agent, "oom_score_adj stays")
    fd = bpf.obj_get(str(agent.bpffs / "links" / program_name(Hook.CONNECT4)))
    bpf.bpf(LINK_DETACH, bytearray(struct.pack("=I", fd)), "detach")
    os.close(fd)
    wait_for(lambda: bool(effective_programs(agent.cgroup)[Hook.CONNECT4]), bool, "the hook")
    assert wait_for(lambda: dial(in_client), lambda pod: pod == "b", "the pod")
    assert agent.get("/readyz")[0] == 200
    before = program_ids(agent)
    agent.stop()
    again = start_agent(manifests.folder, launcher=with_only(*NEEDED))
    assert dial(in_client) == "b"
    after = program_ids(again)
    assert all(before[hook] != after[hook] for hook in before), "loaded again, and swapped in"
    assert "Traceback" not in agent.log.read_text() + again.log.read_text()


def test_what_sys_admin_and_net_bind_service_add(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", web(cluster, "a"))
    launcher = with_only(*NEEDED, "sys_admin", "net_bind_service")
    low = f"--metrics-bind-address=127.0.0.1:{LOW_PORT}"
    agent = start_agent(manifests.folder, launcher=launcher, arguments=(low,))
    agent.metrics_port = LOW_PORT
    assert agent.get("/metrics", metrics=True)[0] == 200
    wait_for(lambda: dial(in_client, address=BALANCED), lambda pod: pod == "a", "the client's own address")
    with in_steps(in_client, hold_a_datagram_socket) as client:
        assert client.next() == "answered"
        manifests.write("web", web(cluster, "b"))
        wait_for(client.next, lambda seen: seen in ENDED, "the end of the socket")
    before = program_ids(agent)
    agent.stop()
    again = start_agent(manifests.folder, launcher=launcher)
    assert program_ids(again) == before, "the programs stay as they are"
    assert dial(in_client) == "b"
    assert "CAP_SYS_ADMIN" not in agent.log.read_text() + again.log.read_text()


@pytest.mark.parametrize("missing", NEEDED)
def test_each_of_the_three_is_needed_and_named(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, missing: str
) -> None:
    manifests.write("web", web(cluster, "a"))
    kept = [name for name in NEEDED if name != missing]
    agent = start_agent(manifests.folder, launcher=with_only(*kept), ready=False)
    assert agent.process.wait(60.0) in (1, 3)
    last = agent.log_tail().splitlines()[-1]
    assert re.findall(r"it lacks ([^:]*):", last) == [f"CAP_{missing.upper()}"]
    assert "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON" in last
    assert "Traceback" not in agent.log.read_text()


def test_a_bpf_file_system_is_mounted_with_sys_admin_alone(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient, tmp_path: Path
) -> None:
    manifests.write("web", web(cluster, "a"))
    folder = tmp_path / "bpf"
    refused = start_agent(manifests.folder, launcher=with_only(*NEEDED), bpffs=folder, ready=False)
    assert refused.process.wait(60.0) == 3
    last = refused.log_tail().splitlines()[-1]
    assert "cannot mount bpf there: Operation not permitted; needs CAP_SYS_ADMIN" in last
    assert f"mount it beforehand: mount -t bpf bpf {folder}" in last
    # In a mount namespace of its own: what it mounts, and pins there, goes with it.
    launcher = ("unshare", "--mount", *with_only(*NEEDED, "sys_admin"))
    agent = start_agent(manifests.folder, launcher=launcher, bpffs=folder)
    assert f"mounted a BPF file system at {folder}" in agent.log.read_text()
    assert dial(in_client) == "a"


@pytest.mark.skipif(not can_be_had("sys_resource"), reason="this machine has no CAP_SYS_RESOURCE to give")
def test_sys_resource_makes_the_agent_the_last_to_go(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent
) -> None:
    manifests.write("web", web(cluster, "a"))
    launcher = with_only(*NEEDED, "sys_resource")
    agent = start_agent(manifests.folder, launcher=launcher, arguments=("--oom-score-adj=-900",))
    assert Path(f"/proc/{agent.process.pid}/oom_score_adj").read_text() == "-900\n"


def test_processes_have_names_with_sys_ptrace_alone(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", web(cluster, "a"))
    agent = start_agent(manifests.folder)

    def rows(*capabilities: str) -> list[dict[str, Any]]:
        command = kubesock("connections", "-A", "--processes", "-o", "json", f"--bpffs={agent.bpffs}")
        done = subprocess.run(
            [*with_only(*capabilities), *command], capture_output=True, text=True, check=True, timeout=60
        )
        return items_of(done.stdout)

    with in_steps(in_client, hold_a_datagram_socket) as client:
        assert client.next() == "answered"
        wait_for(lambda: len(agent.rows("connections")), bool, "the socket")
        (without,) = rows(*NEEDED)
        (named,) = rows(*NEEDED, "sys_ptrace")
    assert without["processes"] == []
    assert len(named["processes"]) == 1
    assert {**without, "processes": 0, "ageSeconds": 0} == {**named, "processes": 0, "ageSeconds": 0}


def test_a_group_of_readers_takes_chown_and_without_it_the_node_is_served_all_the_same(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", web(cluster, "a"))
    agent = start_agent(manifests.folder, launcher=with_only(*NEEDED), arguments=("--readers-group=54321",))
    wait_for(agent.log.read_text, lambda text: "modes of pins stay as they are" in text, "a complaint")
    assert dial(in_client) == "a"
    assert agent.verb("diff", f"--state-dir={agent.state_dir}")[0] == 0
    assert agent.log.read_text().count("modes of pins stay") == 1
