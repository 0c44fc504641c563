"""The whole way from kube-proxy's rules to kubesock and back, with traffic, in a node's namespace."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pyagent.demo.agent_process import run_verb
from pyagent.demo.calls import call
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp, endpoint_slice, service
from tests.datapath.ground.api import ApiProcess
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import errno_of
from tests.datapath.ground.kube_proxy import Served, iptables_rules, nft_rules
from tests.datapath.ground.waiting import wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed"),
    pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="iptables-nft is not installed"),
]

IP, EMPTY = "10.96.0.81", "10.96.0.82"
PORT, TARGET = (("http", 80, "TCP"),), (("http", 8080, "TCP"),)


class Node:
    """The node of the small cluster, with a route to ClusterIPs as a node of a cluster has one."""

    def __init__(self, netns: Path) -> None:
        self.netns = netns

    def tool(self, *command: str, text: str = "") -> str:
        def run() -> tuple[int, str, str]:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=30, check=False
            )
            return done.returncode, done.stdout, done.stderr

        code, out, err = call(run, netns=self.netns, timeout=40)
        assert code == 0, f"{command}: {err}"
        return out

    def verb(self, *arguments: str) -> tuple[int, str, str]:
        return call(partial(run_verb, *arguments), netns=self.netns, timeout=40)

    def kube_proxy_starts(self, mode: str, services: tuple[Served, ...]) -> None:
        if mode == "nft":
            self.tool("nft", "--file", "-", text=nft_rules(services))
        else:
            self.tool("iptables-nft-restore", "--noflush", text=iptables_rules(services))


@pytest.fixture
def node(cluster: SmallCluster) -> Iterator[Node]:
    made = Node(cluster.node.netns)
    route = ("10.96.0.80/29", "via", cluster.servers[0].ipv4)
    made.tool("ip", "route", "add", *route)
    yield made
    made.tool("ip", "route", "del", *route)
    for line in made.tool("nft", "list", "tables").splitlines():
        made.tool("nft", "delete", *line.split())


def dial(client: InClient) -> str:
    """Who answers at the Service."""
    return client(lambda: ask_tcp(IP, 80).pod)


def is_unserved(client: InClient) -> bool:
    """Whether nobody answers, which a packet that nobody translates shows by silence."""
    return client(lambda: errno_of(socket.create_connection, (IP, 80), 0.5)) == "timeout"


@pytest.mark.parametrize("mode", ["nft", pytest.param("iptables", marks=pytest.mark.long)])
def test_the_way_there_and_back_serves_at_every_step(
    cluster: SmallCluster,
    node: Node,
    in_client: InClient,
    manifests: Manifests,
    start_agent: StartAgent,
    bpffs: Path,
    mode: str,
) -> None:
    backend = f"{cluster.server('b').ipv4}:8080"
    rules = (Served("default/web:http", IP, 80, (backend,)), Served("default/empty:http", EMPTY, 80, ()))
    on_node, elsewhere = in_client.of(cluster.node), in_client.of(cluster.node).unhooked
    node.kube_proxy_starts(mode, rules)
    assert (dial(on_node), dial(elsewhere)) == ("b", "b")

    # A look: the maps say the same as the rules, then they differ and it is told.
    manifests.write("services", [service("web", [IP], PORT), service("empty", [EMPTY], PORT)])
    manifests.write("slices", [endpoint_slice("web", [cluster.server("b").ipv4], TARGET)])
    observer = start_agent(manifests.folder, arguments=("--observe",))
    code, out, err = node.verb("migrate", "compare", "--all", f"--bpffs={bpffs}")
    assert (code, "2 frontends compared, 0 differ" in err) == (0, True), out + err
    assert f"{IP}:80/TCP" in out
    manifests.write("slices", [endpoint_slice("web", [cluster.server("a").ipv4], TARGET)])
    wait_for(
        lambda: [row["backend"] for row in observer.rows("backends")],
        lambda found: found == [f"{cluster.server('a').ipv4}:8080"],
        "the other backend",
    )
    code, out, _ = node.verb("migrate", "compare", "-o", "json", f"--bpffs={bpffs}")
    states = {row["frontend"]: row["state"] for row in json.loads(out)["items"]}
    assert (code, states) == (4, {f"{IP}:80/TCP": "differs", f"{EMPTY}:80/TCP": "same"})
    observer.stop()

    # A canary: those in the cgroup go by kubesock, all others by kube-proxy.
    agent = start_agent(manifests.folder)
    assert (dial(on_node), dial(elsewhere)) == ("a", "b")

    # Without kube-proxy.
    code, out, err = node.verb("cleanup", "--kube-proxy", f"--bpffs={bpffs}")
    assert code == 0, err
    assert out.startswith("removed ")
    assert dial(on_node) == "a"
    assert is_unserved(elsewhere)

    # And back.
    node.kube_proxy_starts(mode, rules)
    assert (dial(on_node), dial(elsewhere)) == ("a", "b")
    agent.stop()
    assert dial(on_node) == "a"  # stopping alone changes nothing
    code, _, err = node.verb("cleanup", f"--bpffs={bpffs}", f"--state-dir={agent.state_dir}")
    assert code == 0, err
    assert (dial(on_node), dial(elsewhere)) == ("b", "b")


def test_where_kube_proxy_has_no_rules_compare_says_so(
    node: Node, manifests: Manifests, start_agent: StartAgent, bpffs: Path
) -> None:
    manifests.write("services", [service("web", [IP], PORT)])
    start_agent(manifests.folder, arguments=("--observe",))
    code, _, err = node.verb("migrate", "compare", f"--bpffs={bpffs}")
    assert code == 1
    assert "no rules of kube-proxy's in this network namespace" in err


CONFIG = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
nodePortAddresses: [primary]
iptables: {masqueradeBit: 14}
"""


def test_the_report_reads_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    api = ApiProcess(tmp_path / "api")
    try:
        config = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": "kube-system", "name": "kube-proxy"},
            "data": {"config.conf": CONFIG},
        }
        api.put(service("web", [IP], PORT), config)
        code, out, err = run_verb("migrate", f"--kubeconfig={api.kubeconfig}", "-o", "json")
        assert code == 0, out + err
        texts = " ".join(row["finding"] for row in json.loads(out)["items"])
        assert "mode nftables" in texts
        assert "iptables.masqueradeBit" in texts
        assert "not found" not in texts
        api.put(service("front", ["10.96.0.83"], [("s", 80, "SCTP")]))
        code, out, _ = run_verb("migrate", f"--kubeconfig={api.kubeconfig}")
        assert code == 4
        assert "default/front" in out
        assert "SCTP: keep kube-proxy" in out
    finally:
        api.stop()
    code, _, err = run_verb("migrate", f"--kubeconfig={tmp_path / 'absent'}")
    assert (code, err.count("\n")) == (2, 1)
