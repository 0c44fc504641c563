"""The replay of a dial: affinity, opt-out and contradictions, which no table of objects makes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.layout import (
    AFFINITY,
    AFFINITY_KEY,
    BACKEND,
    CLIENT_ADDRESSES,
    CONFIG,
    WORKLOAD_KEY,
    Feature,
    WorkloadKind,
    pair_word,
)
from pyagent.model.address import Protocol, parse_address
from pyagent.model.outcome import Outcome
from pyagent.view.explain import explain
from pyagent.view.explain_lookup import SLOT_SCAN, look_up
from pyagent.view.explain_maps import ClientMaps, decode_client_maps
from pyagent.view.explain_question import ANYBODY, Client, Dial
from pyagent.view.explain_text import explanation_text
from pyagent.view.live import AgentFacts, LiveMaps
from tests.unit.view.maps_made import B, live, plain_config, shop

DIAL = Dial(parse_address("10.96.0.1"), 80, Protocol.TCP)
POD, NODE = Client("pod", 42), Client("host", 7)
NOBODY_KNOWN = ClientMaps()
SECONDS = 60
NOW = 1000


def config(features: int = 0, level: int = 0, deeper: int = 0) -> bytes:
    raw = plain_config()
    struct.pack_into("=Q", raw, CONFIG.offsets["node_netns"], 7)
    struct.pack_into("=I", raw, CONFIG.offsets["features"], features)
    struct.pack_into("=HH", raw, CONFIG.offsets["opt_out_level"], level, deeper)
    return bytes(raw)


def sticky(word: int, age: int, slot: int, client: int = 42) -> LiveMaps:
    """Maps with an affinity entry of the only service port."""
    entry = (AFFINITY_KEY.pack(1, 101, client, 0), AFFINITY.pack(word, NOW - age, slot, 0))
    found = live([shop(affinity=SECONDS)], affinity=(entry,), now=NOW + 0.9)
    return found._replace(raw=found.raw._replace(config=config()))


@pytest.mark.parametrize(
    ("age", "slot", "outcome"),
    [
        (0, 1, Outcome.TRANSLATED_BY_AFFINITY),
        (SECONDS, 1, Outcome.TRANSLATED_BY_AFFINITY),  # to the second
        (SECONDS + 1, 1, Outcome.TRANSLATED),
        (0, 0, Outcome.TRANSLATED_BY_AFFINITY),  # it has moved: the hint is old
        (0, 9, Outcome.TRANSLATED_BY_AFFINITY),
    ],
)
def test_an_affinity_entry_decides_while_it_is_fresh(age: int, slot: int, outcome: Outcome) -> None:
    found = look_up(sticky(pair_word(2, 1002), age, slot), NOBODY_KNOWN, DIAL, POD)
    assert found.outcome is outcome
    fixed = (0.0, 1.0, 0.0)
    assert found.chances == (
        fixed if outcome is Outcome.TRANSLATED_BY_AFFINITY else (pytest.approx(1 / 3),) * 3
    )


def test_an_entry_of_another_client_or_backend_decides_nothing() -> None:
    for maps in (sticky(pair_word(2, 1002), 0, 1, client=43), sticky(pair_word(2, 999), 0, 1)):
        assert look_up(maps, NOBODY_KNOWN, DIAL, POD).outcome is Outcome.TRANSLATED
    assert look_up(sticky(pair_word(2, 1002), 0, 1), NOBODY_KNOWN, DIAL, ANYBODY).affinity is None


def test_a_backend_that_moved_beyond_the_scan_is_not_found_again() -> None:
    backends = tuple(B(f"10.1.{i // 250}.{i % 250 + 1}:80") for i in range(SLOT_SCAN + 2))
    service = shop(affinity=SECONDS, sets=((shop().sets[0][0], 0, backends),))
    word = pair_word(SLOT_SCAN + 1, 1000 + SLOT_SCAN + 1)  # stands at SLOT_SCAN
    for hint, decides in ((SLOT_SCAN, True), (0, False)):
        entry = (AFFINITY_KEY.pack(1, 101, 42, 0), AFFINITY.pack(word, NOW, hint, 0))
        maps = live([service], affinity=(entry,), now=NOW)
        maps = maps._replace(raw=maps.raw._replace(config=config()))
        found = look_up(maps, NOBODY_KNOWN, DIAL, POD)
        assert found.affinity is not None
        assert found.affinity.decides is decides


def opted_out(*workloads: tuple[WorkloadKind, int]) -> ClientMaps:
    entries = {WORKLOAD_KEY.pack(number, kind, 0): bytes(4) for kind, number in workloads}
    return decode_client_maps({}, {}, entries)


@pytest.mark.parametrize(
    ("features", "level", "client", "workloads", "alone"),
    [
        (0, 0, POD, ((WorkloadKind.NETNS, 42),), False),
        (Feature.OPT_OUT, 0, POD, ((WorkloadKind.NETNS, 42),), True),
        (Feature.OPT_OUT, 0, POD, ((WorkloadKind.NETNS, 43),), False),
        (Feature.OPT_OUT, 0, POD, ((WorkloadKind.CGROUP, 42),), False),
        (Feature.OPT_OUT, 2, Client("", 42, (1, 5, 9)), ((WorkloadKind.CGROUP, 9),), True),
        (Feature.OPT_OUT, 3, Client("", 42, (1, 5, 9)), ((WorkloadKind.CGROUP, 9),), False),
        (Feature.HOST_ONLY, 0, POD, (), True),
        (Feature.HOST_ONLY, 0, NODE, (), False),
        (Feature.HOST_ONLY, 0, ANYBODY, (), False),
    ],
)
def test_opted_out_clients_are_left_alone(
    features: int, level: int, client: Client, workloads: tuple[tuple[WorkloadKind, int], ...], alone: bool
) -> None:
    maps = live([shop()])
    maps = maps._replace(raw=maps.raw._replace(config=config(features, level, level)))
    found = look_up(maps, opted_out(*workloads), DIAL, client)
    assert (found.outcome is Outcome.PASSED_OPTED_OUT) is alone
    elsewhere = look_up(maps, opted_out(*workloads), DIAL._replace(port=81), client)
    assert elsewhere.outcome is Outcome.NOT_A_SERVICE


def test_a_client_whose_cgroups_are_unknown_may_be_opted_out_and_that_is_told() -> None:
    maps = live([shop()])
    maps = maps._replace(raw=maps.raw._replace(config=config(Feature.OPT_OUT, 2, 3)))
    for client, told in ((POD, True), (Client("", 42, (1, 5, 9)), False)):
        notes = explain(maps, look_up(maps, NOBODY_KNOWN, DIAL, client), None)["notes"]
        assert any("opted out by their cgroup" in note for note in notes) is told


def test_a_slot_whose_backend_was_replaced_is_shown_and_never_chosen() -> None:
    maps = live([shop()])
    backends = bytearray(maps.raw.backends)
    struct.pack_into("=I", backends, 2 * BACKEND.size + BACKEND.offsets["incarnation"], 5)
    maps = maps._replace(raw=maps.raw._replace(backends=bytes(backends), config=config()))
    found = look_up(maps, NOBODY_KNOWN, DIAL, ANYBODY)
    row = explain(maps, found, None)
    assert [backend["state"] == "torn" for backend in row["backends"]] == [False, True, False]
    assert row["backends"][1]["probability"] == 0.0


def test_a_kernel_without_errnos_refuses_with_eperm() -> None:
    empty = shop(sets=((shop().sets[0][0], 0, ()),))
    maps = live([empty])
    maps = maps._replace(raw=maps.raw._replace(config=config()))
    found = look_up(maps, NOBODY_KNOWN, DIAL, ANYBODY)
    assert explain(maps, found, None)["errno"] == "ECONNREFUSED"
    old = explain(maps, found, None, has_errno=False)
    assert old["errno"] == "EPERM"
    assert any("5.18" in note for note in old["notes"])


def test_maps_that_nobody_keeps_up_to_date_are_told() -> None:
    maps = live([shop()])._replace(agent=AgentFacts(False))
    maps = maps._replace(raw=maps.raw._replace(config=config()))
    text = explanation_text(explain(maps, look_up(maps, NOBODY_KNOWN, DIAL, ANYBODY), None))
    assert "no agent runs" in text
    assert "map level only" in text
    assert text.startswith("10.96.0.1:80/TCP: goes to one of 3 backends\n")


@given(st.data())
def test_maps_full_of_garbage_are_explained_without_an_error(data: st.DataObject) -> None:
    maps = live([shop(affinity=SECONDS)])
    raw = maps.raw

    def spoiled(buffer: bytes) -> bytes:
        changed = bytearray(buffer)
        for _ in range(data.draw(st.integers(0, 8))):
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
        return bytes(changed)

    raw = raw._replace(
        sets=spoiled(bytes(raw.sets)),
        slots=spoiled(bytes(raw.slots)),
        backends=spoiled(bytes(raw.backends)),
        config=spoiled(config()),
        frontends={key: spoiled(value) for key, value in raw.frontends.items()},
        names={key: spoiled(value) for key, value in raw.names.items()},
        service_addresses={spoiled(bytes(20)): spoiled(bytes(4))},
        node_addresses={spoiled(DIAL.address): spoiled(bytes(4))},
    )
    spoilt = maps._replace(raw=raw)
    clients = decode_client_maps(
        {spoiled(bytes(24)): bytes(4)},
        {bytes(8): spoiled(CLIENT_ADDRESSES.pack(bytes(16), bytes(16)))},
        {spoiled(bytes(16)): bytes(4)},
    )
    for client in (ANYBODY, POD, NODE):
        row = explain(spoilt, look_up(spoilt, clients, DIAL, client), None)
        assert explanation_text(row)
