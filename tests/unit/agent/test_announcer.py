"""Which facts become notices, and how many."""

from __future__ import annotations

import pytest

from pyagent.agent.announcer import AnnouncingFacts, MapRoom, cannot_listen, of_problem, of_unfit, starting
from pyagent.datapath.draft import Unfit
from pyagent.model.address import Family, Protocol, parse_address
from pyagent.model.notice import Notice
from pyagent.model.service import ServicePortKey
from pyagent.model.source_events import Problem


@pytest.fixture
def told() -> list[Notice]:
    return []


@pytest.fixture
def facts(told: list[Notice]) -> AnnouncingFacts:
    made = AnnouncingFacts("worker-1")
    made.tell.send_to(told.append)
    return made


def port(name: str, port_name: str = "http") -> ServicePortKey:
    return ServicePortKey("shop", name, port_name, Protocol.TCP, Family.IPV4)


def problem(field: str, reason: str, kind: str = "Service", name: str = "web") -> Problem:
    return Problem(kind, "shop" if kind == "Service" else "", name, field, reason)


@pytest.mark.parametrize(
    ("field", "reason", "wanted"),
    [
        (
            "spec.externalIPs",
            "192.0.2.1 port 80/TCP already belongs to Service shop/api, which has precedence",
            "AddressConflict",
        ),
        ("spec.clusterIP", "10.96.0.1 is also the ClusterIP of Service shop/api, which", "AddressConflict"),
        ("spec.externalIPs[0]", "'10.0.0.1' is not served: it is a node's", "ExternalAddressRefused"),
        ("status.loadBalancer.ingress[0].ip", "'::1' is not served: loopback", "ExternalAddressRefused"),
        ("spec.loadBalancerSourceRanges[2]", "not a CIDR (want ADDRESS/BITS): 'x'", "UnusableSourceRange"),
        ("spec.type", "unknown: 'X'; ClusterIP is assumed", "InvalidField"),
        ("", "20 more problems in this object", "InvalidField"),
    ],
)
def test_a_problem_of_a_service_is_told_on_it_once_for_all_nodes(
    field: str, reason: str, wanted: str
) -> None:
    notice = of_problem(problem(field, reason), "worker-1")
    assert notice is not None
    assert (notice.kind, notice.namespace, notice.name) == ("Service", "shop", "web")
    assert (notice.reason, notice.everywhere, notice.warning) == (wanted, True, True)
    assert notice.text == (f"{field}: {reason}" if field else reason)


def test_a_health_check_port_that_cannot_listen_is_this_nodes_affair() -> None:
    found = problem("spec.healthCheckNodePort", "cannot listen on [::]:30000: Address in use; free the port")
    notice = of_problem(found, "worker-1")
    assert notice is not None
    assert (notice.reason, notice.everywhere) == ("FailedToStartServiceHealthcheck", False)
    assert notice.text.startswith("node worker-1: ")


@pytest.mark.parametrize(
    ("server", "reason"),
    [("health", "FailedToStartProxierHealthcheck"), ("metrics", "FailedToStartMetricServer")],
)
def test_a_server_that_cannot_listen_is_told_on_the_node_by_kube_proxys_reason(
    server: str, reason: str
) -> None:
    notice = cannot_listen(server, "0.0.0.0:10256")
    assert (notice.kind, notice.reason, notice.warning) == ("Node", reason, True)
    assert "0.0.0.0:10256" in notice.text


@pytest.mark.parametrize("kind", ["EndpointSlice", "Node", "Manifest", "ServiceCIDR", "Pod"])
def test_problems_of_other_objects_are_told_elsewhere(kind: str) -> None:
    assert of_problem(problem("spec", "bad", kind), "worker-1") is None


def test_facts_tell_new_problems_and_keep_them(facts: AnnouncingFacts, told: list[Notice]) -> None:
    one, two = problem("spec.type", "bad"), problem("spec.ports", "bad", name="api")
    facts.problems_changed(iter([one, two]), [])
    assert [notice.name for notice in told] == ["web", "api"]
    facts.problems_changed([], [one])
    assert len(told) == 2
    assert facts.view().problems == (two,)


def test_a_repair_is_told_and_counted(facts: AnnouncingFacts, told: list[Notice]) -> None:
    facts.repaired("connect4: it was detached")
    assert [(n.kind, n.name, n.reason) for n in told] == [("Node", "", "Repaired")]
    assert told[0].text.startswith("connect4: it was detached")
    assert facts.view().repairs == 1


def test_a_hook_that_stays_detached_is_told_when_it_goes(facts: AnnouncingFacts, told: list[Notice]) -> None:
    facts.hooks([("connect4", False)])
    assert told == []  # it was never there
    facts.hooks([("connect4", True), ("connect6", True)])
    facts.hooks([("connect4", False), ("connect6", False)])
    facts.hooks([("connect4", False), ("connect6", False)])
    assert [(n.reason, n.text.split(":")[0]) for n in told] == [("HookDetached", "connect4, connect6")]


def test_what_has_no_room_is_told_by_map_and_by_service(facts: AnnouncingFacts, told: list[Notice]) -> None:
    unfit = [
        Unfit(port("web"), "frontends"),
        Unfit(port("web", "https"), "frontends"),
        Unfit(port("api"), "frontends"),
        Unfit(parse_address("192.0.2.1"), "node_addresses"),
    ]
    facts.unfit(unfit)
    nodes = [n.text for n in told if n.kind == "Node"]
    assert nodes == [
        "map frontends has no room; not served in full: shop/api, shop/web",
        "map node_addresses has no room",
    ]
    assert sorted(n.name for n in told if n.kind == "Service") == ["api", "web"]
    facts.unfit(unfit)
    assert len(told) == 4  # nothing new
    facts.unfit([])
    facts.unfit(unfit[:1])
    assert [n.name for n in told[4:]] == ["", "web"]
    assert len(facts.view().unfit) == 1


def test_of_many_services_without_room_a_node_names_the_first() -> None:
    (node, *services) = of_unfit(Unfit(port(f"s{number}"), "sets") for number in range(12))
    assert node.text == (
        "map sets has no room; not served in full: shop/s0, shop/s1, shop/s2, shop/s3, shop/s4 and 7 more"
    )
    assert len(services) == 12


def test_sockets_that_cannot_be_ended_are_told_once_for_each_reason(
    facts: AnnouncingFacts, told: list[Notice]
) -> None:
    facts.sockets_kept(["no SOCK_DESTROY"] * 40 + ["not visible"])
    assert [(n.reason, n.text.rpartition(": ")[2]) for n in told] == [
        ("StaleSockets", "no SOCK_DESTROY"),
        ("StaleSockets", "not visible"),
    ]


def test_a_map_is_told_at_four_fifths_and_again_after_it_had_room(told: list[Notice]) -> None:
    usage: dict[str, tuple[int, int]] = {}
    room = MapRoom(told.append, lambda: usage)
    for used in (0, 79, 80, 95, 85, 75, 81, 69, 80, 100):
        usage["sets"] = (used, 100)
        room()
    assert [n.text for n in told] == ["map sets is more than 80% full of 100 entries"] * 2


def test_without_a_cluster_nobody_is_told() -> None:
    facts = AnnouncingFacts("worker-1")
    facts.repaired("connect4: it was detached")
    assert facts.view().repairs == 1


def test_the_start_is_no_warning() -> None:
    assert (starting("1.2.3").warning, starting("1.2.3").reason) == (False, "Starting")
