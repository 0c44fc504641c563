"""Session affinity ClientIP: a client, seen as its network namespace, stays on its backend for a while."""

from __future__ import annotations

import struct
import time
from contextlib import closing
from typing import Any

import pytest

from pyagent.datapath.layout import AFFINITY, AFFINITY_KEY
from pyagent.datapath.writes import Put
from pyagent.model.outcome import Outcome
from tests.datapath.ground import Reply, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.dialling import WAYS, Way, ask, make_socket
from tests.datapath.ground.hooks import Hooks

pytestmark = pytest.mark.kernel

PORTS = [("t", 80, "TCP"), ("u", 80, "UDP")]
TARGETS = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
TCP = Way("tcp", 4)
CLUSTER_IPS = ["10.96.3.1", "fd44:10:96::3:1"]
TRIES = 12


def web(hooks: Hooks, *names: str, timeout: int | None = 10_800) -> list[dict[str, Any]]:
    """The Service on these pods, sticky unless `timeout` is None."""
    spec: dict[str, Any] = {}
    if timeout is not None:
        config = {"clientIP": {"timeoutSeconds": timeout}}
        spec = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}
    pods = [hooks.cluster.server(name) for name in names]
    return [
        service("web", CLUSTER_IPS, PORTS, **spec),
        *(endpoint_slice("web", [pod.address(family) for pod in pods], TARGETS) for family in (4, 6)),
    ]


def pods_of(client: InClient, way: Way = TCP, tries: int = TRIES) -> list[str]:
    """Who answers dial after dial, each on a socket of its own."""

    def dial() -> list[str]:
        answers = [ask(way, way.text(*CLUSTER_IPS), 80) for _ in range(tries)]
        return [answer.pod if isinstance(answer, Reply) else answer for answer in answers]

    return client(dial)


def pod_of(client: InClient, way: Way = TCP) -> str:
    return pods_of(client, way, 1)[0]


def age(hooks: Hooks, seconds: int) -> int:
    """Make every client's entry that much older. Returns how many there are."""
    entries = hooks.datapath.maps.items("affinity")
    at = AFFINITY.offsets["last_used"]
    for key, value in entries:
        # As the programs count, in 64 bits: a machine may have started less than that ago.
        last_used = (struct.unpack_from("=Q", value, at)[0] - seconds) % (1 << 64)
        hooks.store(Put("affinity", key, value[:at] + struct.pack("=Q", last_used) + value[at + 8 :]))
    return len(entries)


@pytest.fixture(autouse=True)
def _forgotten(hooks: Hooks) -> None:
    """Each test begins with clients that nobody knows."""
    hooks.serve([])


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_client_stays_on_its_backend(hooks: Hooks, way: Way) -> None:
    hooks.serve(web(hooks, "a", "b", "c"))
    assert len(set(pods_of(hooks.client, way))) == 1


def test_without_affinity_a_client_is_spread(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c", timeout=None))
    assert set(pods_of(hooks.client, tries=60)) == {"a", "b", "c"}


def test_each_client_has_a_backend_of_its_own(hooks: Hooks) -> None:
    """That two clients choose the same of three each time has a chance of 3^-24."""
    other = hooks.client.of(hooks.cluster.other_client)
    choices = []
    for _ in range(24):
        hooks.serve([])
        hooks.serve(web(hooks, "a", "b", "c"))
        choices.append((pod_of(hooks.client), pod_of(other)))
        assert (pod_of(hooks.client), pod_of(other)) == choices[-1]
    assert any(one != two for one, two in choices)


def test_every_port_has_an_affinity_of_its_own(hooks: Hooks) -> None:
    """Per service port and family, as with kube-proxy."""
    hooks.serve(web(hooks, "a", "b", "c"))
    for way in (Way("tcp", 4), Way("tcp", 6), Way("datagram", 4)):
        pod_of(hooks.client, way)
    # Entries of Services before may still be there, of other incarnations.
    living = {(port.identifier, port.incarnation) for port in hooks.held.service_ports.values()}
    owners = {struct.unpack_from("=II", key) for key, _ in hooks.datapath.maps.items("affinity")}
    assert len(owners & living) == 3


def test_it_ends_when_the_client_stays_away_for_longer_than_the_timeout(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c", timeout=100))
    pod_of(hooks.client)
    assert age(hooks, 99)
    got = hooks.measure(lambda: ask(TCP, CLUSTER_IPS[0], 80))
    assert Outcome.TRANSLATED_BY_AFFINITY in got.outcomes, "and it is renewed by that"
    age(hooks, 99)
    got = hooks.measure(lambda: ask(TCP, CLUSTER_IPS[0], 80))
    assert Outcome.TRANSLATED_BY_AFFINITY in got.outcomes
    age(hooks, 102)
    got = hooks.measure(lambda: ask(TCP, CLUSTER_IPS[0], 80))
    assert got.outcomes[Outcome.TRANSLATED] == 1
    assert Outcome.TRANSLATED_BY_AFFINITY not in got.outcomes


def test_a_timeout_of_a_second_is_over_after_two(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c", timeout=1))
    pod_of(hooks.client)
    time.sleep(2.1)
    got = hooks.measure(lambda: ask(TCP, CLUSTER_IPS[0], 80))
    assert Outcome.TRANSLATED_BY_AFFINITY not in got.outcomes


def test_only_a_backend_that_may_be_chosen_counts(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c"))
    first = pod_of(hooks.client)
    others = [name for name in ("a", "b", "c") if name != first]
    hooks.serve(web(hooks, *others))
    second = pod_of(hooks.client)
    assert second in others
    hooks.serve(web(hooks, "a", "b", "c"))
    assert set(pods_of(hooks.client)) == {second}, "and it does not go back"


def test_a_backend_that_moved_inside_its_set_is_found(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "c"))
    assert pod_of(hooks.client) == "c"
    hooks.serve(web(hooks, "a", "b", "c"))
    assert set(pods_of(hooks.client)) == {"c"}
    hooks.serve(web(hooks, "c", "b"))
    assert set(pods_of(hooks.client)) == {"c"}


def test_a_large_set_still_finds_its_clients(hooks: Hooks) -> None:
    """Further than a bounded scan goes: the client's own hint leads there."""
    slots = [f"10.244.9.{number}" for number in range(1, 200)]
    objects = web(hooks, "a")
    for obj in objects:
        if obj["kind"] == "EndpointSlice" and obj["addressType"] == "IPv4":
            obj["endpoints"] = [{"addresses": [address]} for address in slots]

    def connect() -> str:
        with closing(make_socket(Way("udp", 4))) as made:
            made.connect((CLUSTER_IPS[0], 80))
            return str(made.getsockname()[0])

    hooks.serve(objects)
    got = hooks.measure(lambda: [connect() for _ in range(20)])
    assert got.outcomes == {Outcome.TRANSLATED: 1, Outcome.TRANSLATED_BY_AFFINITY: 19}
    assert len(got.chosen) == 1


def test_it_can_be_switched_on_and_off_while_serving(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c", timeout=None))
    assert set(pods_of(hooks.client, tries=60)) == {"a", "b", "c"}
    hooks.serve(web(hooks, "a", "b", "c"))
    assert len(set(pods_of(hooks.client))) == 1
    hooks.serve(web(hooks, "a", "b", "c", timeout=None))
    got = hooks.measure(lambda: [ask(TCP, CLUSTER_IPS[0], 80) for _ in range(60)])
    assert len(got.chosen) == 3
    assert Outcome.TRANSLATED_BY_AFFINITY not in got.outcomes


def test_it_survives_changes_of_other_services_and_of_the_timeout(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c"))
    first = pod_of(hooks.client)
    another = service("another", ["10.96.3.2"], [("t", 80, "TCP")])
    hooks.serve([another, *web(hooks, "a", "b", "c")])
    assert pod_of(hooks.client) == first
    hooks.serve(web(hooks, "a", "b", "c", timeout=7200))
    assert set(pods_of(hooks.client)) == {first}


def test_a_service_made_anew_begins_anew(hooks: Hooks) -> None:
    """Whoever gets the id of a removed Service does not inherit its clients."""
    hooks.serve(web(hooks, "a", "b", "c"))
    pod_of(hooks.client)
    hooks.serve([])
    hooks.serve(web(hooks, "a", "b", "c"))
    got = hooks.measure(lambda: ask(TCP, CLUSTER_IPS[0], 80))
    assert Outcome.TRANSLATED_BY_AFFINITY not in got.outcomes


def test_unconnected_datagrams_follow_the_client_and_not_the_socket(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a", "b", "c"))
    assert len(set(pods_of(hooks.client, Way("datagram", 4)))) == 1


def test_the_entries_say_who_the_client_is(hooks: Hooks) -> None:
    hooks.serve(web(hooks, "a"))
    pod_of(hooks.client)
    pod_of(hooks.client.of(hooks.cluster.other_client))
    key = next(k for k in hooks.held.service_ports if k.port_name == "t" and k.family == 4)
    port = hooks.held.service_ports[key]
    entries = [AFFINITY_KEY.as_dict(entry) for entry, _ in hooks.datapath.maps.items("affinity")]
    ours = [
        entry
        for entry in entries
        if (entry["service_port"], entry["incarnation"]) == (port.identifier, port.incarnation)
    ]
    assert len({entry["client"] for entry in ours}) == 2
