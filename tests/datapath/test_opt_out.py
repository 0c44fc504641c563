"""Workloads that are left alone: by cgroup, by network namespace, by Namespace; and all but the host's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import CONFIG
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.pod_cgroups import depth
from pyagent.model.outcome import Outcome
from tests.datapath.ground import Agent, Manifests, SmallCluster, StartAgent, endpoint_slice, service
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.cluster import InClient, Pod
from tests.datapath.ground.dialling import WAYS, Answer, Way, ask, refusal
from tests.datapath.ground.manifests import Object
from tests.datapath.ground.steps import in_steps
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel

TRANSLATE = "kubesock.io/translate"
IPV4, IPV6 = "10.96.7.1", "fd44:10:96::701"
UID = "0a9a4e46-f436-39c4-8ed4-30da743de5b4"
OTHER = "11111111-2222-3333-4444-555555555555"
DRIVERS = {
    "cgroupfs": ("kubepods/pod{uid}", "kubepods/burstable/pod{uid}"),
    "systemd": (
        "kubepods.slice/kubepods-pod{under}.slice",
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice",
    ),
}
TCP = Way("tcp", 4)


def web() -> list[Object]:
    ports = [("http", 80, "TCP"), ("dns", 53, "UDP")]
    backends = [("http", 8080, "TCP"), ("dns", 5353, "UDP")]
    return [
        service("web", [IPV4, IPV6], ports),
        endpoint_slice("web", ["10.244.1.20"], backends),
        endpoint_slice("web", ["fd44:10:244::1:20"], backends),
    ]


def pod(says: str | None, *, uid: str = UID, ips: Iterable[str] = (), name: str = "p", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": uid,
            "annotations": {TRANSLATE: says} if says else {},
        },
        "spec": {"nodeName": "n", **spec},
        "status": {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]},
    }


def namespace(says: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {TRANSLATE: says}},
    }


def pod_cgroup(root: Path, driver: str = "cgroupfs", quality: int = 1, uid: str = UID) -> Path:
    """A container's cgroup inside a pod's, as kubelet with that driver makes them."""
    pod_folder = root / DRIVERS[driver][quality].format(uid=uid, under=uid.replace("-", "_"))
    container = pod_folder / "container"
    container.mkdir(parents=True, exist_ok=True)
    return container


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all agents here, so that only the first has to compile."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def start(start_agent: StartAgent, manifests: Manifests, state_dir: Path) -> Callable[..., Agent]:
    """Starts an agent with these arguments on a Service."""

    def started(*arguments: str, ready: bool = True) -> Agent:
        manifests.write("web", web())
        return start_agent(manifests.folder, arguments=arguments, state_dir=state_dir, ready=ready)

    return started


@pytest.fixture
def opting_out(start: Callable[..., Agent], manifests: Manifests) -> Callable[..., Agent]:
    """Starts an agent with `--opt-out=on` on a Service and these objects."""

    def started(*objects: Object, ready: bool = True) -> Agent:
        manifests.write("workloads", objects)
        return start("--opt-out=on", ready=ready)

    return started


def dial(client: InClient, way: Way = TCP) -> Answer:
    port = 80 if way.call == "tcp" else 53
    return client(lambda: ask(way, way.text(IPV4, IPV6), port))


def is_translated(answer: Answer) -> bool:
    return isinstance(answer, Reply) and answer.pod == "a"


def wait_until_left_alone(client: InClient) -> None:
    wait_for(lambda: dial(client), lambda answer: not is_translated(answer), "an untranslated answer")


def wait_until_translated(client: InClient) -> None:
    wait_for(lambda: dial(client), is_translated, "a translated answer")


def opted_out_keys(agent: Agent) -> set[bytes]:
    maps = MapSet.open(current_folder(agent.bpffs))
    try:
        return {key for key, _ in maps.items("opted_out")}
    finally:
        maps.close()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("quality", [0, 1], ids=["guaranteed", "burstable"])
def test_a_pod_that_says_so_is_left_alone_by_its_cgroup_and_others_are_not(
    opting_out: Callable[..., Agent], cluster: SmallCluster, cgroup: Path, driver: str, quality: int
) -> None:
    left, other = (pod_cgroup(cgroup, driver, quality, uid) for uid in (UID, OTHER))
    opting_out(pod("false"), pod(None, uid=OTHER, name="q"))
    netns = cluster.client.netns
    wait_until_left_alone(InClient(netns, left))
    assert is_translated(dial(InClient(netns, other)))
    assert is_translated(dial(InClient(netns, cgroup)))


def test_every_call_of_a_pod_is_left_alone(
    opting_out: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    client = InClient(cluster.client.netns, pod_cgroup(cgroup))
    opting_out(pod("false"))
    wait_until_left_alone(client)
    for way in WAYS:
        assert not is_translated(dial(client, way)), way
        assert is_translated(dial(InClient(client.netns, cgroup), way)), way


def test_a_pod_made_while_the_agent_runs_is_left_alone_from_its_first_process_on(
    opting_out: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    agent = opting_out(pod("false"))
    container = pod_cgroup(cgroup)
    wait_for(lambda: opted_out_keys(agent), bool, "the entry")
    assert not is_translated(dial(InClient(cluster.client.netns, container)))


def test_levels_are_those_of_kubelets_folder_in_the_hierarchy(
    opting_out: Callable[..., Agent], cgroup: Path
) -> None:
    pod_cgroup(cgroup)
    agent = opting_out(pod("false"))
    wait_for(lambda: opted_out_keys(agent), bool, "the entry")
    maps = MapSet.open(current_folder(agent.bpffs))
    config = CONFIG.as_dict(maps.memory("config")[: CONFIG.size])
    maps.close()
    above = depth(cgroup)
    assert above is not None
    assert (config["opt_out_level"], config["opt_out_deeper"]) == (above + 2, above + 3)


def test_a_pod_in_no_known_cgroup_is_left_alone_by_its_address(
    opting_out: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    opting_out(pod("false", ips=[cluster.client.ipv6]))
    left = InClient(cluster.client.netns, cgroup)
    wait_until_left_alone(left)
    assert is_translated(dial(left.of(cluster.other_client)))


def test_a_pod_of_the_nodes_network_does_not_take_the_node_with_it(
    opting_out: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    container = pod_cgroup(cgroup)
    opting_out(pod("false", ips=[cluster.node.ipv4], hostNetwork=True))
    wait_until_left_alone(InClient(cluster.node.netns, container))
    assert is_translated(dial(InClient(cluster.node.netns, cgroup)))


def test_a_change_of_mind_takes_effect_without_a_restart(
    opting_out: Callable[..., Agent], manifests: Manifests, cluster: SmallCluster, cgroup: Path
) -> None:
    client = InClient(cluster.client.netns, pod_cgroup(cgroup))
    opting_out(pod(None))
    wait_until_translated(client)
    steps: list[tuple[list[Object], Callable[[InClient], None]]] = [
        ([namespace("false"), pod(None)], wait_until_left_alone),
        ([namespace("false"), pod("true")], wait_until_translated),
        ([pod("false")], wait_until_left_alone),
        ([], wait_until_translated),
    ]
    for objects, wait in steps:
        manifests.write("workloads", objects)
        wait(client)


def test_a_connected_socket_goes_on_showing_what_it_dialled(
    opting_out: Callable[..., Agent], manifests: Manifests, cluster: SmallCluster, cgroup: Path
) -> None:
    client = InClient(cluster.client.netns, pod_cgroup(cgroup))
    opting_out()

    def talk() -> Iterator[tuple[str, int]]:
        import socket

        with socket.create_connection((IPV4, 80), timeout=3) as made:
            yield made.getpeername()
            yield made.getpeername()

    with in_steps(client, talk) as steps:
        assert steps.next() == (IPV4, 80)
        manifests.write("workloads", [pod("false")])
        wait_until_left_alone(client)
        assert steps.next() == (IPV4, 80)


def test_a_pod_that_is_left_alone_is_not_refused_either(
    opting_out: Callable[..., Agent], manifests: Manifests, cluster: SmallCluster, cgroup: Path
) -> None:
    client = InClient(cluster.client.netns, pod_cgroup(cgroup))
    agent = opting_out(pod("false"))
    wait_until_left_alone(client)
    untouched = dial(client.unhooked)
    manifests.write("web", web()[:1])
    wait_for(lambda: dial(InClient(client.netns, cgroup)), lambda a: a == refusal(), "a refusal")
    before = outcomes(agent)
    assert dial(client) == untouched != refusal()
    assert outcomes(agent) - before == 1


def outcomes(agent: Agent) -> int:
    """Calls that passed because their workload is left alone."""
    status, text = agent.get("/metrics", metrics=True)
    assert status == 200
    label = f'outcome="{Outcome.PASSED_OPTED_OUT.label}"'
    return sum(int(float(line.split()[-1])) for line in text.splitlines() if label in line)


def test_a_restart_translates_nobody_who_was_left_alone(
    opting_out: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    client = InClient(cluster.client.netns, pod_cgroup(cgroup))
    first = opting_out(pod("false", ips=[cluster.other_client.ipv4]))
    others = client.of(cluster.other_client)
    wait_until_left_alone(client)
    wait_until_left_alone(InClient(others.netns, cgroup))
    first.stop()
    held = opted_out_keys(first)

    def keep_dialling() -> Iterator[int]:
        translated = 0
        while True:
            for _ in range(20):
                translated += is_translated(ask(TCP, IPV4, 80))
            yield translated

    with in_steps(client, keep_dialling) as steps:
        steps.begin()
        again = opting_out(pod("false", ips=[cluster.other_client.ipv4]), ready=False)
        assert steps.finish() == 0
        again.wait_ready()
        assert steps.next() == 0
    wait_for(lambda: opted_out_keys(again), lambda keys: keys == held, "the same entries")


def test_without_the_flag_nobody_is_left_alone(
    start: Callable[..., Agent], manifests: Manifests, cluster: SmallCluster, cgroup: Path
) -> None:
    manifests.write("workloads", [pod("false", ips=[cluster.client.ipv4]), namespace("false")])
    agent = start()
    assert is_translated(dial(InClient(cluster.client.netns, pod_cgroup(cgroup))))
    assert opted_out_keys(agent) == set()


def test_host_only_translates_on_the_node_and_in_no_pod(
    start: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    start("--host-only")
    clients: list[tuple[Pod, bool]] = [(cluster.node, True), (cluster.client, False)]
    for one, translated in clients:
        for way in (TCP, Way("udp", 6), Way("datagram", 46)):
            assert is_translated(dial(InClient(one.netns, cgroup), way)) is translated, (one.name, way)


def test_host_only_is_taken_back_by_the_next_agent_without_it(
    start: Callable[..., Agent], cluster: SmallCluster, cgroup: Path
) -> None:
    client = InClient(cluster.client.netns, cgroup)
    start("--host-only").stop()
    assert not is_translated(dial(client))
    start()
    assert is_translated(dial(client))


def test_entries_are_made_under_a_storm_of_pods(
    opting_out: Callable[..., Agent], manifests: Manifests, cgroup: Path
) -> None:
    uids = [f"{number:08x}-0000-0000-0000-000000000000" for number in range(60)]
    agent = opting_out(*(pod("false", uid=uid, name=uid) for uid in uids))
    folders = [pod_cgroup(cgroup, quality=number % 2, uid=uid).parent for number, uid in enumerate(uids)]
    wait_for(lambda: len(opted_out_keys(agent)), lambda count: count == len(uids), "all entries")
    for folder in folders[::2]:
        (folder / "container").rmdir()
        folder.rmdir()
    wait_for(lambda: len(opted_out_keys(agent)), lambda count: count == len(uids) // 2, "half of them")
