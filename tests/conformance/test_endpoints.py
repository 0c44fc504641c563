"""Clients reach the endpoints that the EndpointSlices tell of, from the moment they tell it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.ground.clients import payload
from tests.conformance.ground.nodes import Cluster
from tests.conformance.ground.objects import (
    Address,
    Endpoint,
    Port,
    both,
    ready,
    service,
    slices,
    terminating,
    unready,
)
from tests.datapath.ground.asking import Reply
from tests.datapath.ground.dialling import CONNECTING, WAYS, Way

pytestmark = pytest.mark.kernel

WEB = Address("10.96.0.10", "fd44:10:96::10")
API = Address("10.96.0.11", "fd44:10:96::11")
NOBODY = {"ECONNREFUSED"}


def test_traffic_follows_endpoints_as_they_come_and_go(cluster: Cluster) -> None:
    web, a1, a2 = service("web", WEB), cluster["a1"], cluster["a2"]
    for pods in ([a1], [a1, a2], [a2], [a1, a2], []):
        cluster.put(web, slices("web", *pods))
        assert cluster.everyone(WEB) == ({pod.name for pod in pods} or NOBODY)


def test_each_port_of_a_service_has_endpoints_of_its_own(cluster: Cluster) -> None:
    one, two = both(80, name="one-"), both(81, name="two-")
    cluster.put(
        service("web", WEB, (*one, *two)),
        slices("web", cluster["a1"], ports=both(8080, name="one-"), suffix="one"),
        slices("web", cluster["a2"], ports=both(8081, name="two-"), suffix="two"),
    )
    assert cluster.everyone(WEB, 80) == {"a1"}
    assert cluster.everyone(WEB, 81) == {"a2"}
    answer = cluster.place("client-1").ask(WAYS[0], WEB, 81)[0]
    assert isinstance(answer, Reply)
    assert answer.server == (cluster["a2"].ipv4, 8081)


def test_ports_are_added_and_deleted_live(cluster: Cluster) -> None:
    endpoints = slices("web", cluster["a1"], ports=(*both(8080, name="one-"), *both(8081, name="two-")))
    one, two = both(80, name="one-"), both(81, name="two-")
    for ports, served in (((*one, *two), {80, 81}), (two, {81}), ((*one, *two), {80, 81}), (one, {80})):
        cluster.put(service("web", WEB, ports), endpoints)
        for port in (80, 81):
            assert cluster.everyone(WEB, port) == ({"a1"} if port in served else NOBODY)


def test_a_changed_target_port_is_followed(cluster: Cluster) -> None:
    for target in (8080, 8081, 8080):
        cluster.put(service("web", WEB), slices("web", cluster["a1"], cluster["a2"], ports=both(target)))
        for way in WAYS:
            for answer in cluster.place("client-2").ask(way, WEB, 80, times=4):
                assert isinstance(answer, Reply)
                assert answer.server[1] == target


@pytest.mark.parametrize("client", ["client-1", "client-2", "node-1", "node-2"])
def test_the_server_sees_the_address_of_the_client(cluster: Cluster, client: str) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"], cluster["b2"]))
    place = cluster.place(client)
    servers = set()
    for way in WAYS:
        for answer in place.ask(way, WEB, 80, times=8):
            assert isinstance(answer, Reply)
            assert answer.seen_client[0] == (place.pod.ipv6 if way.family == 6 else place.pod.ipv4)
            servers.add(answer.pod)
    assert servers == {"a1", "b2"}, "on the client's node and on the other one"


def test_a_pod_reaches_itself_through_its_service(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"]))
    place = cluster.place("a1")
    assert place.who(WEB) == {"a1"}
    for way in WAYS:
        answer = place.ask(way, WEB, 80)[0]
        assert isinstance(answer, Reply)
        assert answer.seen_client[0] == (place.pod.ipv6 if way.family == 6 else place.pod.ipv4)


def test_an_endpoint_as_client_reaches_every_endpoint_and_itself(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a1"], cluster["b1"], cluster["a2"]))
    for name in ("a1", "a2"):
        assert cluster.place(name).who(WEB, times=12) == {"a1", "b1", "a2"}


def test_services_come_up_and_go_down_beside_each_other(cluster: Cluster) -> None:
    addresses = {n: Address(f"10.96.1.{n}", f"fd44:10:96::10{n}") for n in (1, 2, 3)}
    pods = {1: ("a1", "a2", "b2"), 2: ("b1", "b2", "a3"), 3: ("a1", "b1", "a3")}
    for up in ({1, 2}, {2}, {2, 3}, {1, 2, 3}, {3}):
        cluster.put(
            *(service(f"up-{n}", addresses[n]) for n in up),
            *(slices(f"up-{n}", *(cluster[name] for name in pods[n])) for n in up),
        )
        for n, address in addresses.items():
            assert cluster.everyone(address, times=6) == (set(pods[n]) if n in up else NOBODY)


def test_a_service_that_is_deleted_and_made_again_is_served_again(cluster: Cluster) -> None:
    endpoints = slices("web", cluster["a1"], cluster["a2"])
    for address in (WEB, WEB, API):
        cluster.put(service("web", address), endpoints)
        assert cluster.everyone(address) == {"a1", "a2"}
        cluster.put()
        assert cluster.everyone(address) == NOBODY


def test_of_two_services_with_the_same_pods_one_outlives_the_other(cluster: Cluster) -> None:
    web = [service("web", WEB), *slices("web", cluster["a1"], cluster["a2"])]
    api = [service("api", API), *slices("api", cluster["a1"], cluster["a2"])]
    cluster.put(web, api)
    assert cluster.everyone(WEB) == cluster.everyone(API) == {"a1", "a2"}
    cluster.put(web)
    assert cluster.everyone(WEB) == {"a1", "a2"}
    assert cluster.everyone(API) == NOBODY


def test_a_service_without_endpoints_refuses_at_once(cluster: Cluster) -> None:
    cluster.put(service("web", WEB, both(80, node_port=30080), externalIPs=["203.0.113.10", "2001:db8::10"]))
    assert cluster.everyone(WEB) == NOBODY
    assert cluster.everyone(Address("203.0.113.10", "2001:db8::10")) == NOBODY
    for node in ("node-1", "node-2", "node-3"):
        assert cluster.everyone(cluster[node], 30080) == NOBODY


def test_a_service_whose_pods_were_evicted_refuses_though_it_publishes_unready_ones(cluster: Cluster) -> None:
    web = service("web", WEB, publishNotReadyAddresses=True)
    cluster.put(web, slices("web", cluster["a1"]))
    assert cluster.everyone(WEB) == {"a1"}
    cluster.put(web, slices("web"))
    assert cluster.everyone(WEB) == NOBODY


def test_an_unready_endpoint_gets_traffic_once_it_is_ready(cluster: Cluster) -> None:
    web, a1, a2 = service("web", WEB), cluster["a1"], cluster["a2"]
    cluster.put(web, slices("web", unready(a1), unready(a2)))
    assert cluster.everyone(WEB) == NOBODY
    cluster.put(web, slices("web", unready(a1), a2))
    assert cluster.everyone(WEB) == {"a2"}
    cluster.put(web, slices("web", a1, a2))
    assert cluster.everyone(WEB) == {"a1", "a2"}


def test_publishing_unready_addresses_is_switched_live(cluster: Cluster) -> None:
    a1 = cluster["a1"]
    published = Endpoint(a1, a1.node, ready=True, serving=False)
    for endpoint, seen in ((unready(a1), NOBODY), (published, {"a1"}), (unready(a1), NOBODY)):
        cluster.put(service("web", WEB), slices("web", endpoint))
        assert cluster.everyone(WEB) == seen


def test_only_the_ready_colour_is_served_after_a_switch(cluster: Cluster) -> None:
    web, blue, green = service("web", WEB), cluster["a1"], cluster["b2"]
    for endpoints, seen in (
        ([ready(blue), unready(green)], {"a1"}),
        ([ready(blue), ready(green)], {"a1", "b2"}),
        ([terminating(blue), ready(green)], {"b2"}),
        ([terminating(blue, serving=False), ready(green)], {"b2"}),
    ):
        cluster.put(web, slices("web", *endpoints))
        assert cluster.everyone(WEB) == seen


def test_endpoints_of_the_host_network_are_reached_from_everywhere(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["node-1"], cluster["node-2"], cluster["a1"]))
    assert cluster.everyone(WEB) == {"node-1", "node-2", "a1"}


@pytest.mark.parametrize("way", CONNECTING, ids=str)
def test_long_requests_come_through(cluster: Cluster, way: Way) -> None:
    cluster.put(service("web", WEB), slices("web", cluster["a2"]))
    for client in cluster.clients:
        for length in (2_000, 50_000):
            assert client.do(payload, way, way.text(WEB.ipv4, WEB.ipv6), 80, length) == length


def test_a_named_target_port_may_have_another_number_in_each_pod(cluster: Cluster) -> None:
    cluster.put(
        service("web", WEB),
        slices("web", cluster["a1"], ports=both(8080), suffix="one"),
        slices("web", cluster["a2"], ports=both(8081), suffix="two"),
    )
    assert cluster.everyone(WEB) == {"a1", "a2"}
    targets = {"a1": 8080, "a2": 8081}
    for answer in cluster.place("client-1").ask(WAYS[0], WEB, 80, times=10):
        assert isinstance(answer, Reply)
        assert answer.server[1] == targets[answer.pod]


def test_hand_made_slices_with_several_ports_and_several_addresses_are_served(cluster: Cluster) -> None:
    cluster.put(
        service("web", WEB, (*both(80, name="one-"), *both(81, name="two-"))),
        slices("web", cluster["a1"], cluster["b1"], ports=both(8080, name="one-"), suffix="p"),
        slices("web", Endpoint(cluster["a2"]), ports=both(8081, name="one-"), suffix="q"),
        slices("web", cluster["a3"], ports=both(8081, name="two-"), suffix="r"),
    )
    assert cluster.everyone(WEB, 80) == {"a1", "b1", "a2"}
    assert cluster.everyone(WEB, 81) == {"a3"}


def test_a_reused_address_is_served_while_its_last_owner_still_terminates(cluster: Cluster) -> None:
    pod = cluster["a1"]
    for endpoints in ([terminating(pod), ready(pod)], [ready(pod), terminating(pod)]):
        pieces = [slices("web", one, suffix=f"s{i}") for i, one in enumerate(endpoints)]
        cluster.put(service("web", WEB), *pieces, slices("web", terminating(cluster["a2"]), suffix="other"))
        assert cluster.everyone(WEB) == {"a1"}


def test_an_endpoint_that_moves_between_slices_is_never_lost(cluster: Cluster) -> None:
    web = service("web", WEB)
    for suffix in ("p", "q", "p"):
        cluster.put(web, slices("web", cluster["a1"], suffix=suffix))
        assert cluster.everyone(WEB) == {"a1"}


def test_the_other_protocol_of_a_port_is_another_service_port(cluster: Cluster) -> None:
    ports = Port("tcp", 80, "TCP"), Port("udp", 80, "UDP")
    cluster.put(
        service("web", WEB, ports),
        slices("web", cluster["a1"], ports=[Port("tcp", 8080, "TCP")], suffix="t"),
        slices("web", cluster["a2"], ports=[Port("udp", 8080, "UDP")], suffix="u"),
    )
    for client in cluster.clients:
        for way in WAYS:
            names = {answer.pod for answer in client.ask(way, WEB, 80, times=4) if isinstance(answer, Reply)}
            assert names == ({"a1"} if way.protocol == "TCP" else {"a2"})


def test_every_endpoint_has_the_same_chance(cluster: Cluster) -> None:
    cluster.put(service("web", WEB), slices("web", *(cluster[name] for name in ("a1", "b1", "a2", "b2"))))
    dials = 2_000
    answers = cluster.place("client-1").ask(CONNECTING[0], WEB, 80, dials)
    shares = Counter(answer.pod for answer in answers if isinstance(answer, Reply))
    assert shares.total() == dials
    assert all(abs(share / dials - 1 / 4) < 0.06 for share in shares.values()), "six standard deviations"
