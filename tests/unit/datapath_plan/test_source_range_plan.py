"""Source ranges become map entries: added before they matter, removed after."""

from __future__ import annotations

from pyagent.datapath.held import HeldState
from pyagent.datapath.layout import SOURCE_RANGE_KEY, Capacities
from pyagent.datapath.plan import plan
from pyagent.datapath.source_range_plan import SourceRangePlan
from pyagent.datapath.writes import Put, Remove
from pyagent.model.address import Family, Network, Protocol, parse_network
from pyagent.model.service import (
    RESTRICTED_SET,
    BackendSet,
    DesiredChange,
    ServicePort,
    ServicePortKey,
    ServiceType,
)

KEY = ServicePortKey("shop", "web", "http", Protocol.TCP, Family.IPV4)
OFFICE = parse_network("192.0.2.0/24")
HOME = parse_network("198.51.100.7/32")


def port(*ranges: Network) -> ServicePort:
    return ServicePort(
        KEY, ServiceType.LOAD_BALANCER, (BackendSet(RESTRICTED_SET, ()),), (), source_ranges=ranges
    )


def held_with(wanted: ServicePort) -> HeldState:
    held = HeldState(Capacities())
    plan(held, DesiredChange({KEY: wanted}, {}, {}, {}, {}), complete=True)
    return held


def networks(keys: list[bytes]) -> list[tuple[int, bytes]]:
    return [(prefix - 32, address) for prefix, _owner, address in map(SOURCE_RANGE_KEY.packer.unpack, keys)]


def test_ranges_are_written_under_the_id_of_their_service_port() -> None:
    held = held_with(port(OFFICE))
    writes = SourceRangePlan((), 10).plan({KEY: port(OFFICE)}, held, complete=True)
    assert [SOURCE_RANGE_KEY.packer.unpack(write.key)[1] for write in writes.before] == [
        held.service_ports[KEY].identifier
    ]
    assert networks([write.key for write in writes.before]) == [(OFFICE.prefix, OFFICE.address)]
    assert writes.after == ()


def test_a_changed_list_lets_new_clients_in_before_it_keeps_old_ones_out() -> None:
    held = held_with(port(OFFICE))
    ranges = SourceRangePlan((), 10)
    ranges.plan({KEY: port(OFFICE)}, held, complete=True)
    writes = ranges.plan({KEY: port(HOME)}, held, complete=False)
    assert all(isinstance(write, Put) for write in writes.before)
    assert networks([write.key for write in writes.before]) == [(HOME.prefix, HOME.address)]
    assert all(isinstance(write, Remove) for write in writes.after)
    assert networks([write.key for write in writes.after]) == [(OFFICE.prefix, OFFICE.address)]


def test_nothing_is_written_twice() -> None:
    held = held_with(port(OFFICE))
    ranges = SourceRangePlan((), 10)
    ranges.plan({KEY: port(OFFICE)}, held, complete=True)
    assert ranges.plan({KEY: port(OFFICE)}, held, complete=True) == ((), (), ())


def test_entries_of_an_earlier_agent_that_nobody_wants_are_removed() -> None:
    held = held_with(port(OFFICE))
    stale = SOURCE_RANGE_KEY.pack(160, 77, bytes(16))
    writes = SourceRangePlan([stale], 10).plan({KEY: port(OFFICE)}, held, complete=True)
    assert [write.key for write in writes.after] == [stale]


def test_a_service_that_is_gone_leaves_no_entry() -> None:
    held = held_with(port(OFFICE))
    ranges = SourceRangePlan((), 10)
    ranges.plan({KEY: port(OFFICE)}, held, complete=True)
    assert len(ranges.plan({KEY: None}, held, complete=False).after) == 1


def test_ranges_without_room_are_left_out_and_named() -> None:
    held = held_with(port(OFFICE, HOME))
    writes = SourceRangePlan((), 1).plan({KEY: port(OFFICE, HOME)}, held, complete=True)
    assert len(writes.before) == 1
    assert [(unfit.subject, unfit.map) for unfit in writes.unfit] == [(KEY, "source_ranges")]
