"""Every way of dialling with every outcome: what the application sees, and what is counted."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from pyagent.datapath.encoded import PROBE_PORT
from pyagent.datapath.layout import FRONTEND_KEY, Scope, frontend_tag
from pyagent.datapath.served_prefixes import prefixes_of_frontend
from pyagent.datapath.writes import Put
from pyagent.kernel.probe import PROBE_IPV4, PROBE_IPV6
from pyagent.model.address import parse_address
from pyagent.model.outcome import ERRNO_OF, Outcome
from tests.datapath.ground import Reply, endpoint_slice, service, service_cidr
from tests.datapath.ground.dialling import WAYS, Way, ask, refusal
from tests.datapath.ground.hooks import Hooks

pytestmark = pytest.mark.kernel

PORTS = [("t", 80, "TCP"), ("u", 80, "UDP")]
TARGETS = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
PREFIX4, PREFIX6 = "10.96.0.", "fd44:10:96::"


class Row(NamedTuple):
    """What is dialled, by its number in the service network, and what comes of it."""

    number: int
    port: int
    outcome: Outcome
    seen: str = ""  # errno; "": as of the outcome
    service_port: str = ""  # that the refusal is counted for


ROWS = {
    "no endpoints": Row(2, 80, Outcome.REFUSED_NO_ENDPOINTS, service_port="default/empty"),
    "an endpoint that is not ready": Row(3, 80, Outcome.REFUSED_NO_ENDPOINTS, service_port="default/unready"),
    "no local endpoints": Row(4, 80, Outcome.REFUSED_NO_LOCAL_ENDPOINTS, service_port="default/local"),
    "a port that the Service has not": Row(1, 81, Outcome.REFUSED_UNDEFINED_PORT),
    "an address that no Service has": Row(0x99, 80, Outcome.REFUSED_UNALLOCATED_ADDRESS),
    "another proxy's Service": Row(5, 80, Outcome.PASSED_OTHER_PROXY, "ENETUNREACH"),
    "another proxy's Service, any port": Row(5, 8443, Outcome.PASSED_OTHER_PROXY, "ENETUNREACH"),
}


def both(number: int) -> list[str]:
    return [f"{PREFIX4}{number}", f"{PREFIX6}{number:x}"]


@pytest.fixture(scope="module", autouse=True)
def _served(hooks: Hooks) -> Iterator[None]:
    a = hooks.cluster.server("a")
    elsewhere = {"node_name": "elsewhere"}
    other = service("other", both(5), PORTS)
    other["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "another"}
    sticky = service("sticky", both(6), PORTS, sessionAffinity="ClientIP")
    hooks.serve(
        [
            service_cidr("10.96.0.0/16", "fd44:10:96::/112"),
            service("web", both(1), PORTS),
            service("empty", both(2), PORTS),
            service("unready", both(3), PORTS),
            service("local", both(4), PORTS, internalTrafficPolicy="Local"),
            other,
            sticky,
            *(
                endpoint_slice(name, [a.address(family)], TARGETS, **how)
                for family in (4, 6)
                for name, how in (
                    ("web", {}),
                    ("unready", {"conditions": {"ready": False, "serving": False}}),
                    ("local", elsewhere),
                    ("other", {}),
                    ("sticky", {}),
                )
            ),
        ]
    )
    yield
    hooks.serve([])


def address_of(way: Way, number: int) -> str:
    return way.text(*both(number))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_service_is_translated_there_and_back(hooks: Hooks, way: Way) -> None:
    frontend = (address_of(way, 1), 80)
    got = hooks.measure(lambda: ask(way, *frontend))
    assert isinstance(got.answer, Reply)
    a = hooks.cluster.server("a")
    backend = a.address(6 if way.family == 6 else 4)
    assert got.answer.pod == "a"
    assert got.answer.peer == frontend
    assert got.answer.server == (backend, 8080)
    back = {
        "tcp": {Outcome.PEER_TRANSLATED: 1},
        "udp": {Outcome.PEER_TRANSLATED: 1, Outcome.REPLY_TRANSLATED: 1},
        "datagram": {Outcome.REPLY_TRANSLATED: 1},
    }[way.call]
    assert got.outcomes == {Outcome.TRANSLATED: 1, **back}
    assert got.chosen == {f"[{backend}]:8080" if way.family == 6 else f"{backend}:8080": 1}
    assert got.refused == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_what_is_not_served_fails_at_once_or_passes(hooks: Hooks, way: Way, row: Row) -> None:
    got = hooks.measure(lambda: ask(way, address_of(way, row.number), row.port))
    assert got.answer == (row.seen or refusal(errno.errorcode[ERRNO_OF[row.outcome]]))
    assert got.outcomes == {row.outcome: 1}
    assert got.chosen == {}
    port = f"{row.service_port}:{way.call[0].replace('d', 'u')}/{way.protocol}"
    assert got.refused == ({port: 1} if row.service_port else {})


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_reserved_address_is_answered_by_the_hook_itself(hooks: Hooks, way: Way) -> None:
    got = hooks.measure(lambda: ask(way, way.text(PROBE_IPV4, PROBE_IPV6), PROBE_PORT))
    assert got.answer == refusal("EL2HLT")
    assert got.outcomes == {Outcome.PROBED: 1}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_is_not_a_service_is_neither_touched_nor_counted(hooks: Hooks, way: Way) -> None:
    b = hooks.cluster.server("b")
    address = way.text(b.ipv4, b.ipv6)
    got = hooks.measure(lambda: ask(way, address, 8080))
    assert isinstance(got.answer, Reply)
    assert (got.answer.pod, got.answer.peer) == ("b", (address, 8080))
    assert got.outcomes == {}


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_second_dial_of_a_client_is_counted_as_affinity(hooks: Hooks, way: Way) -> None:
    hooks.client(lambda: ask(way, address_of(way, 6), 80))
    got = hooks.measure(lambda: ask(way, address_of(way, 6), 80))
    assert isinstance(got.answer, Reply)
    assert got.outcomes[Outcome.TRANSLATED_BY_AFFINITY] == 1
    assert Outcome.TRANSLATED not in got.outcomes
    assert sum(got.chosen.values()) == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_an_entry_that_belongs_to_another_key_is_never_passed_through(hooks: Hooks, way: Way) -> None:
    number = 0x77
    for address in both(number):
        protocol = 6 if way.call == "tcp" else 17
        key = FRONTEND_KEY.pack(parse_address(address), 80, protocol, Scope.ADDRESS)
        word = struct.pack("=Q", 1 << 32 | (frontend_tag(key) ^ 1))
        hooks.store(Put("frontends", key, word))
        hooks.held.frontends[key] = -1  # the planner knows bad tags and removes them
        hooks.held.prefixes.add(prefixes_of_frontend(key))
    got = hooks.measure(lambda: ask(way, address_of(way, number), 80))
    assert got.answer == refusal("EAGAIN")
    assert got.outcomes == {Outcome.REFUSED_UNSTABLE: 1}
