"""From Pods, cgroups and namespaces to the entries of the map."""

from __future__ import annotations

from pyagent.agent.opt_out import entries
from pyagent.datapath.layout import WORKLOAD_KEY, WorkloadKind
from pyagent.desired.opt_out import OptedOut
from pyagent.kernel.client_watch import NO_ADDRESS, ClientAddresses
from pyagent.model.address import parse_address

IPV4, IPV6 = parse_address("10.0.0.1"), parse_address("fd00::1")
CGROUPS = {"u1": 101, "u2": 102}
CLIENTS = {
    7: ClientAddresses(IPV4, IPV6),
    8: ClientAddresses(parse_address("10.0.0.2"), NO_ADDRESS),
    9: ClientAddresses(NO_ADDRESS, NO_ADDRESS),
}


def found(*pods: OptedOut) -> set[tuple[int, int]]:
    keys = entries(pods, CGROUPS, CLIENTS)
    unpacked = [WORKLOAD_KEY.as_dict(key) for key in keys]
    return {(int(one["kind"]), int(one["id"])) for one in unpacked}


def test_a_pod_is_known_by_its_cgroup_and_by_its_namespace() -> None:
    pod = OptedOut("shop", "p", "u1", frozenset({IPV4}))
    assert found(pod) == {(WorkloadKind.CGROUP, 101), (WorkloadKind.NETNS, 7)}


def test_one_family_is_enough_to_find_the_namespace() -> None:
    assert found(OptedOut("shop", "p", "", frozenset({IPV6}))) == {(WorkloadKind.NETNS, 7)}


def test_a_pod_in_the_nodes_network_has_its_cgroup_alone() -> None:
    assert found(OptedOut("shop", "p", "u2")) == {(WorkloadKind.CGROUP, 102)}


def test_a_namespace_without_addresses_is_nobodys() -> None:
    assert found(OptedOut("shop", "p", "unknown")) == set()


def test_without_pods_there_are_no_entries() -> None:
    assert found() == set()
