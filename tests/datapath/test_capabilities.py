"""What an agent may be denied: it serves with three capabilities, and names the one that it lacks."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pyagent.datapath.layout import Hook
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.features import kernel_version
from pyagent.kernel.links import effective_programs, program_name
from tests.datapath.ground import Manifests, Reply, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import Way, ask
from tests.datapath.ground.waiting import wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(kernel_version() < (5, 11), reason="maps are locked memory: needs CAP_SYS_RESOURCE"),
]

FRONTEND = "10.96.0.1"
NEEDED = ("bpf", "net_admin", "perfmon")
LINK_DETACH = 34


def with_only(*capabilities: str) -> tuple[str, ...]:
    """Run what follows as root with these and no others, for good."""
    kept = ",".join(f"+{name}" for name in capabilities)
    return ("setpriv", f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}", "--no-new-privs")


def web(cluster: SmallCluster, pod: str) -> list[dict[str, object]]:
    slices = endpoint_slice("web", [cluster.server(pod).ipv4], [("t", 8080, "TCP"), ("u", 8080, "UDP")])
    return [service("web", [FRONTEND], [("t", 80, "TCP"), ("u", 80, "UDP")]), slices]


def dial(in_client: InClient, call: str = "tcp") -> str:
    answer = in_client(lambda: ask(Way(call, 4), FRONTEND, 80))
    return answer.pod if isinstance(answer, Reply) else answer


def effective(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapEff")), 16)


def test_three_capabilities_are_enough_to_serve_to_follow_to_repair_and_to_restart(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", web(cluster, "a"))
    agent = start_agent(manifests.folder, launcher=with_only(*NEEDED))
    assert effective(agent.process.pid) == 1 << 39 | 1 << 38 | 1 << 12
    assert [dial(in_client, call) for call in ("tcp", "udp", "datagram")] == ["a"] * 3
    manifests.write("web", web(cluster, "b"))
    wait_for(lambda: dial(in_client), lambda pod: pod == "b", "the other pod")
    fd = bpf.obj_get(str(agent.bpffs / "links" / program_name(Hook.CONNECT4)))
    bpf.bpf(LINK_DETACH, bytearray(struct.pack("=I", fd)), "detach")
    os.close(fd)
    wait_for(lambda: bool(effective_programs(agent.cgroup)[Hook.CONNECT4]), bool, "the hook")
    assert wait_for(lambda: dial(in_client), lambda pod: pod == "b", "the pod")
    assert agent.get("/readyz")[0] == 200
    assert agent.rows("connections") == []
    agent.stop()
    again = start_agent(manifests.folder, launcher=with_only(*NEEDED))
    assert dial(in_client) == "b"
    assert "Traceback" not in again.log.read_text()


@pytest.mark.long
@pytest.mark.parametrize("missing", NEEDED)
def test_each_of_the_three_is_needed_and_named(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, missing: str
) -> None:
    manifests.write("web", web(cluster, "a"))
    kept = [name for name in NEEDED if name != missing]
    agent = start_agent(manifests.folder, launcher=with_only(*kept), ready=False)
    assert agent.process.wait(30.0) in (1, 3)
    text = agent.log_tail()
    assert "Traceback" not in text
    assert "CAP_BPF" in text
    assert "CAP_NET_ADMIN" in text


def test_a_group_of_readers_takes_chown_and_without_it_the_node_is_served_all_the_same(
    cluster: SmallCluster, manifests: Manifests, start_agent: StartAgent, in_client: InClient
) -> None:
    manifests.write("web", web(cluster, "a"))
    agent = start_agent(manifests.folder, launcher=with_only(*NEEDED), arguments=("--readers-group=54321",))
    wait_for(agent.log.read_text, lambda text: "modes of pins stay as they are" in text, "a complaint")
    assert dial(in_client) == "a"
    assert agent.verb("diff", f"--state-dir={agent.state_dir}")[0] == 0
    assert agent.log.read_text().count("modes of pins stay") == 1
