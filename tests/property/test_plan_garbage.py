"""Maps with anything in them: restoring never raises, and a full plan makes them right."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.encoded import name_key
from pyagent.datapath.evaluate import evaluate
from pyagent.datapath.layout import (
    BACKEND,
    BLOCK_HEADER_WORDS,
    FRONTEND_KEY,
    NAME,
    SERVICE_ADDRESS_KEY,
    NameKind,
    frontend_word,
)
from pyagent.datapath.plan import no_change
from pyagent.model.service import ANY_OTHER_NODE, CLUSTER_SET, LOCAL_SET, AddressRule
from tests.property.test_plan import DIALS, NETWORKS, NODE_ADDRESSES
from tests.unit.datapath_plan.desires import Desired, backend, dialled, node_port, port_key, service_port
from tests.unit.datapath_plan.fake_maps import SMALL
from tests.unit.datapath_plan.node import Node


def some_desired() -> Desired:
    desired = Desired()
    shop = service_port(
        port_key("a"),
        {CLUSTER_SET: [backend("10.8.0.1"), backend("10.8.0.2")], LOCAL_SET: [backend("10.8.0.1")]},
    )
    desired.add(shop, dialled("10.96.0.1"), node_port(30001), node_port(30001, ANY_OTHER_NODE))
    desired.add(service_port(port_key("b"), {CLUSTER_SET: []}), dialled("10.96.0.2"), dialled("fd00:10::1"))
    desired.service_addresses = dict.fromkeys(NETWORKS, AddressRule.REFUSE_UNALLOCATED)
    desired.node_addresses = {NODE_ADDRESSES[0]: "", NODE_ADDRESSES[1]: "n1"}
    return desired


def garbled(node: Node, data: st.DataObject) -> None:
    """Change words and entries, near enough to sense that some of it gets through."""
    small = st.integers(0, 12)
    word = st.one_of(
        st.integers(0, 2**64 - 1),
        st.builds(lambda a, b: a << 32 | b, small, small),
        st.builds(lambda a, b, c: a << 32 | b << 16 | c, st.integers(0, SMALL.slots + 8), small, small),
    )
    for name in ("sets", "slots", "backends", "config"):
        array = node.maps.arrays[name]
        # the self-probe's set is repaired in place
        first = {"slots": BLOCK_HEADER_WORDS, "sets": 1}.get(name, 0)
        for at, value in data.draw(st.dictionaries(st.integers(first, 40), word, max_size=4), name).items():
            if at * 8 + 8 <= len(array):
                array[at * 8 : at * 8 + 8] = struct.pack("=Q", value)
    hashes = node.maps.hashes
    for name, entries in hashes.items():
        for key in data.draw(st.lists(st.sampled_from(sorted(entries)), max_size=2), name) if entries else []:
            entries.pop(key, None)
    blob: Any = st.binary
    hashes["frontends"].update(
        data.draw(
            st.dictionaries(
                blob(min_size=FRONTEND_KEY.size, max_size=FRONTEND_KEY.size), words(word), max_size=2
            )
        )
    )
    for key in list(hashes["frontends"])[: data.draw(small)]:
        hashes["frontends"][key] = struct.pack("=Q", frontend_word(data.draw(small), key))
    names = st.builds(name_key, st.sampled_from(list(NameKind)), small)
    hashes["names"].update(
        data.draw(st.dictionaries(names, blob(min_size=NAME.size, max_size=NAME.size), max_size=2))
    )
    prefixed = st.builds(
        lambda p, a: struct.pack("=I", p) + a, st.integers(0, 128), blob(min_size=16, max_size=16)
    )
    assert SERVICE_ADDRESS_KEY.size == 20
    hashes["service_addresses"].update(
        data.draw(st.dictionaries(prefixed, blob(min_size=4, max_size=4), max_size=2))
    )
    hashes["node_addresses"].update(
        data.draw(
            st.dictionaries(blob(min_size=16, max_size=16), st.builds(struct.pack, st.just("=I"), small))
        )
    )


def words(word: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return word.map(lambda w: struct.pack("=Q", w))


@given(st.data())
def test_a_full_plan_repairs_maps_with_garbage_in_them(data: st.DataObject) -> None:
    desired = some_desired()
    node = Node(DIALS)
    node.change(desired.full(), complete=True)
    garbled(node, data)
    node.dials = []  # what a dial gets from garbage is nobody's promise
    node.restart()
    node.change(desired.full(), complete=True)
    # garbage may have claimed so much that the rest found room only now
    node.end_grace_period()
    node.change(no_change())
    node.dials = DIALS
    node.assert_answers(desired)
    assert not node.held.waiting
    node.end_grace_period()
    assert not node.change(desired.full(), complete=True).writes
    node.restart()
    assert not node.change(desired.full(), complete=True).writes


@given(st.data())
def test_an_evaluation_of_garbage_never_raises(data: st.DataObject) -> None:
    node = Node(DIALS)
    node.change(some_desired().full(), complete=True)
    garbled(node, data)
    for dial in DIALS:
        evaluate(node.maps.raw, *dial)
    assert len(node.maps.arrays["backends"]) == SMALL.backends * BACKEND.size
