"""Tables of the bench, and the objects that it measures with."""

from __future__ import annotations

import ipaddress
import json

import pytest

from bench import objects
from bench.objects import Plan
from bench.parts.memory import per_cpu
from bench.ratios import summarize
from bench.tables import RATIO_COLUMNS, Table, duration, ratio_row, rendered, size
from pyagent.cluster.decode import decode_list
from pyagent.datapath.layout import Capacities, map_specs


def test_a_table_is_aligned_and_is_markdown() -> None:
    text = rendered(Table("Title", ("what", "n"), [("a", "1"), ("longer", "1,000")], ("A note.",)))
    lines = text.splitlines()
    assert lines[0] == "### Title"
    assert {len(line) for line in lines[2:6]} == {len("| longer | 1,000 |")}
    assert lines[3] == "|--------|------:|"
    assert lines[-1] == "A note."


def test_a_ratio_row_tells_of_its_budget() -> None:
    row = ratio_row("connect", summarize([1.2] * 50), summarize([14_000] * 50), 1.05)
    assert dict(zip(RATIO_COLUMNS, row, strict=True)) == {
        "what": "connect",
        "median": "1.200",
        "p10–p90": "1.200–1.200",
        "95 % of the median": "1.200–1.200",
        "reference": "14.0 µs",
        "budget": "≤ 1.05",
        "met": "no",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000000726, "72.6 ns"),
        (0.000014, "14.0 µs"),
        (0.00224, "2.24 ms"),
        (0.158, "158 ms"),
        (2.9, "2.90 s"),
    ],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_are_decimal() -> None:
    assert (size(54_900_000), size(263_000)) == ("54.9 MB", "263 kB")
    assert (size(9.9e9), size(12.3e9), size(1.23e14)) == ("9900 MB", "12.3 GB", "123 TB")


def test_addresses_of_services_and_endpoints_are_each_their_own() -> None:
    plans = list(objects.plans(500, 3))
    frontends = [plan.cluster_ips[0] for plan in plans]
    pods = [plan.pod(number) for plan in plans for number in range(3)]
    assert len(set(frontends)) == 500
    assert len(set(pods)) == 1500
    assert all(ipaddress.ip_address(a) in objects.SERVICE_NETWORK for a in frontends)
    assert all(ipaddress.ip_address(a) in objects.ENDPOINT_NETWORK for a in pods)


def test_services_and_endpoints_follow_each_other() -> None:
    """The client dials `count` addresses from the first one on."""
    first, second = objects.plans(2, 3)
    assert (
        int(ipaddress.ip_address(second.cluster_ips[0]))
        == int(ipaddress.ip_address(first.cluster_ips[0])) + 1
    )
    assert int(ipaddress.ip_address(second.pod(0))) == int(ipaddress.ip_address(first.pod(2))) + 1


def test_sixty_thousand_services_fit_the_networks_and_the_maps() -> None:
    last = next(objects.plans(1, 3, first=objects.FIRST + 59_999))
    assert ipaddress.ip_address(last.cluster_ips[0]) in objects.SERVICE_NETWORK
    assert ipaddress.ip_address(last.pod(2)) in objects.ENDPOINT_NETWORK
    assert Capacities().backends > 60_000 * 3


def test_the_lists_are_read_without_a_problem() -> None:
    plans = [Plan("two-families", 3, 250, 0, affinity=True, external=True, dual_stack=True)]
    services = decode_list("Service", objects.service_listing(plans))
    slices = decode_list("EndpointSlice", objects.slice_listing(plans))
    assert (services.problems, slices.problems) == ((), ())
    assert len(services.objects) == 1
    assert len(slices.objects) == 6  # 250 endpoints of each family in slices of 100


def test_a_replaced_pod_is_in_its_slice() -> None:
    plan = Plan("web", 3, 10, 0)
    found = json.loads(objects.slice_manifest(plan, 7))
    addresses = [endpoint["addresses"][0] for endpoint in found["endpoints"]]
    assert addresses[0] == objects.replaced_pod(plan, 7)
    assert addresses[1:] == [plan.pod(number) for number in range(1, 10)]


def test_only_small_things_of_the_maps_grow_with_the_processors() -> None:
    specs = map_specs(Capacities())
    assert sum(per_cpu(spec) for spec in specs) < 20_000
    outcomes = next(spec for spec in specs if spec.name == "outcomes")
    assert per_cpu(outcomes) == 8 * outcomes.max_entries
