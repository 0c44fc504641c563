"""Rows of services, backends and client affinity, from maps of known contents."""

from __future__ import annotations

import struct

from pyagent.datapath.encoded import PROBE_FRONTENDS
from pyagent.datapath.layout import AFFINITY, AFFINITY_KEY, NodeId, pair_word
from pyagent.model.address import Protocol
from pyagent.model.service import PolicyBit, ServiceType, View
from pyagent.view.affinity_table import affinity_rows
from pyagent.view.backend_table import backend_rows
from pyagent.view.live import AgentFacts
from pyagent.view.map_table import nearly_full
from pyagent.view.node_status import NodeStatus, status_fields
from pyagent.view.service_table import matches, service_rows
from tests.unit.view.maps_made import DRAINING, B, S, live, shop


def test_a_service_port_has_one_row_with_its_frontends_and_counts() -> None:
    (row,) = service_rows(live([shop(refused=4, affinity=10800)]))
    assert row == {
        "namespace": "shop",
        "name": "web",
        "port": "http",
        "protocol": "TCP",
        "family": "IPv4",
        "type": "ClusterIP",
        "frontends": ["10.96.0.1:80"],
        "remoteFrontends": [],
        "ready": 2,
        "terminating": 1,
        "local": 0,
        "policy": "Cluster",
        "affinitySeconds": 10800,
        "chosen": 4,
        "refused": 4,
        "id": 1,
        "old": False,
    }


def test_rows_come_in_the_order_of_names_whatever_the_ids() -> None:
    rows = service_rows(live([S("b/x"), S("a/z:2"), S("a/z:1"), S("a/a")]))
    assert [(r["namespace"], r["name"], r["port"]) for r in rows] == [
        ("a", "a", ""),
        ("a", "z", "1"),
        ("a", "z", "2"),
        ("b", "x", ""),
    ]


def test_a_backend_in_two_sets_counts_once() -> None:
    both, far = B("10.1.0.1:80", chosen=5), B("10.1.0.2:80", chosen=2)
    sets = ((View.CLUSTER, 0, (both, far)), (View.LOCAL, 0, (both,)))
    (row,) = service_rows(live([shop(sets=sets, policy=PolicyBit.EXTERNAL_LOCAL)]))
    assert (row["ready"], row["chosen"], row["policy"]) == (2, 7, "ExternalLocal")


def test_the_status_does_not_count_the_frontends_of_the_self_probe() -> None:
    maps = live([shop()])
    held = {**maps.raw.frontends, **dict.fromkeys(PROBE_FRONTENDS, bytes(8))}
    status = NodeStatus("", maps._replace(raw=maps.raw._replace(frontends=held)), [], [])
    assert status_fields(status)["frontends"] == 1


def test_a_service_without_frontends_and_backends_is_still_listed() -> None:
    (row,) = service_rows(live([S("a/b", sets=((View.CLUSTER, 0, ()),))]))
    assert (row["frontends"], row["ready"], row["chosen"]) == ([], 0, 0)


def test_own_node_ports_are_frontends_and_those_of_other_nodes_are_apart() -> None:
    node_ports = ((NodeId.OWN, 30080), (3, 30080), (NodeId.ANY_OTHER, 30080))
    service = shop(node_ports=node_ports, service_type=ServiceType.NODE_PORT)
    (row,) = service_rows(live([service], {3: "worker-3"}))
    assert row["type"] == "NodePort"
    assert row["frontends"] == ["10.96.0.1:80", "node:30080"]
    assert sorted(row["remoteFrontends"]) == ["*:30080", "worker-3:30080"]


def test_ipv6_frontends_are_in_brackets() -> None:
    (row,) = service_rows(live([shop(frontends=("[fd00::1]:53",), protocol=Protocol.UDP)]))
    assert (row["frontends"], row["family"], row["protocol"]) == (["[fd00::1]:53"], "IPv6", "UDP")


def test_a_backend_that_was_replaced_while_we_read_is_not_counted() -> None:
    found = live([shop()])
    backends = bytearray(found.raw.backends)
    struct.pack_into("=I", backends, 32 + 20, 77)  # the first one's incarnation
    found = found._replace(raw=found.raw._replace(backends=bytes(backends)))
    assert service_rows(found)[0]["ready"] == 1
    assert len(backend_rows(found)) == 2


def test_a_set_of_an_earlier_owner_of_the_id_is_not_shown() -> None:
    found = live([shop()])
    slots = bytearray(found.raw.slots)
    first = struct.unpack_from("=Q", found.raw.sets, 8)[0] >> 32
    struct.pack_into("=Q", slots, first * 8, pair_word(1, 5))
    found = found._replace(raw=found.raw._replace(slots=bytes(slots)))
    assert service_rows(found)[0]["ready"] == 0


def test_rows_are_old_when_no_agent_lives() -> None:
    found = live([shop()], agent=AgentFacts(False, 0, 60.0))
    assert [row["old"] for row in service_rows(found) + backend_rows(found)] == [True] * 4


def test_backends_have_place_state_and_share() -> None:
    rows = backend_rows(live([shop()], {1: "worker-1\0zone-a"}))
    assert [(r["backend"], r["state"], r["chosen"], r["share"]) for r in rows] == [
        ("10.1.0.1:8080", "ready", 3, 75.0),
        ("10.1.0.2:8080", "ready", 1, 25.0),
        ("10.1.0.3:8080", "terminating", 0, 0.0),
    ]
    assert (rows[1]["node"], rows[1]["zone"]) == ("worker-1", "zone-a")
    assert rows[0]["service"] == "shop/web:http/TCP"


def test_nothing_chosen_yet_has_no_share() -> None:
    sets = ((View.CLUSTER, 0, (B("10.1.0.1:80"),)),)
    assert backend_rows(live([shop(sets=sets)]))[0]["share"] is None


def test_backends_of_one_service_alone() -> None:
    other = shop(text="shop/api", sets=((View.CLUSTER, 0, (B("10.2.0.1:80", DRAINING),)),))
    rows = backend_rows(live([shop(), other]), "shop/api")
    assert [row["backend"] for row in rows] == ["10.2.0.1:80"]


def test_a_service_is_meant_by_any_part_of_its_name() -> None:
    (row,) = service_rows(live([shop()]))
    for wanted in (
        "web",
        "shop/web",
        "web:http",
        "shop/web:http",
        "shop/web:http/TCP",
        "shop/web/tcp",
        "web/tcp",
    ):
        assert matches(row, wanted), wanted
    for wanted in ("we", "other/web", "web:grpc", "shop/web/udp", "shop", "a/b/c/d", "/", ""):
        assert not matches(row, wanted), wanted


def affinity_entry(word: int, last_used: int, port: tuple[int, int] = (1, 101)) -> tuple[bytes, bytes]:
    return AFFINITY_KEY.pack(*port, 4711, 0), AFFINITY.pack(word, last_used, 0, 0)


def test_affinity_tells_how_long_a_client_stays() -> None:
    entries = (affinity_entry(pair_word(2, 1002), 70),)
    (row,) = affinity_rows(live([shop(affinity=60)], affinity=entries, now=100.0))
    assert (row["client"], row["service"], row["backend"]) == (4711, "shop/web:http/TCP", "10.1.0.2:8080")
    assert (row["remainingSeconds"], row["state"]) == (30, "active")


def test_affinity_entries_that_decide_nothing_say_so() -> None:
    late, gone = affinity_entry(pair_word(2, 1002), 1), affinity_entry(pair_word(9, 1009), 99)
    former_owner = affinity_entry(pair_word(2, 1002), 99, (1, 55))
    found = live([shop(affinity=60)], affinity=(late, gone, former_owner), now=100.0)
    assert [row["state"] for row in affinity_rows(found)] == ["expired", "gone"]


def test_a_map_over_80_percent_is_nearly_full_unless_it_evicts() -> None:
    from pyagent.view.live import MapFacts

    def facts(name: str, entries: int | None) -> MapFacts:
        return MapFacts(name, "hash", 4, 4, entries, 100, 0)

    assert nearly_full(facts("frontends", 81))
    assert not nearly_full(facts("frontends", 80))
    assert not nearly_full(facts("affinity", 100))
    assert not nearly_full(facts("origin", None))


def test_a_frontend_with_source_ranges_belongs_to_its_set_all_the_same() -> None:
    found = live([shop()])
    frontends = {
        key: struct.pack("=Q", struct.unpack("=Q", value)[0] | 1 << 63)
        for key, value in found.raw.frontends.items()
    }
    found = found._replace(raw=found.raw._replace(frontends=frontends))
    assert service_rows(found)[0]["frontends"] == ["10.96.0.1:80"]


def test_a_set_that_belongs_to_nobody_any_more_is_not_shown() -> None:
    found = live([shop()])
    sets = bytearray(found.raw.sets)
    word = struct.unpack_from("=Q", sets, 8)[0]
    struct.pack_into("=Q", sets, 8, word & ~0xFFFF)
    found = found._replace(raw=found.raw._replace(sets=bytes(sets)))
    assert service_rows(found)[0]["ready"] == 0
