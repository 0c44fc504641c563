"""What `explain` can be asked, and what a Service's name stands for in the maps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.datapath.encoded import NODE, RULE, service_address_key
from pyagent.model.address import Network, Protocol, format_endpoint, parse_address
from pyagent.model.failures import UsageError
from pyagent.model.service import AddressRule
from pyagent.view.explain_question import (
    ANYBODY,
    AddressTarget,
    Dial,
    ServiceTarget,
    dial_of,
    dials_of,
    parse_target,
)
from tests.unit.view.maps_made import S, live, shop

V4, V6 = parse_address("10.96.0.1"), parse_address("fd00::1")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.96.0.1:80", AddressTarget(V4, 80, None)),
        ("10.96.0.1:80/UDP", AddressTarget(V4, 80, Protocol.UDP)),
        ("10.96.0.1:80/tcp", AddressTarget(V4, 80, Protocol.TCP)),
        ("[fd00::1]:443/TCP", AddressTarget(V6, 443, Protocol.TCP)),
        ("[::ffff:10.96.0.1]:80", AddressTarget(V4, 80, None)),
        ("localhost:30080", AddressTarget(parse_address("127.0.0.1"), 30080, None)),
        ("web", ServiceTarget("", "web", "", None)),
        ("shop/web", ServiceTarget("shop", "web", "", None)),
        ("shop/web:http", ServiceTarget("shop", "web", "http", None)),
        ("shop/web:80/UDP", ServiceTarget("shop", "web", "80", Protocol.UDP)),
        ("shop/web/TCP", ServiceTarget("shop", "web", "", Protocol.TCP)),
        ("shop/tcp", ServiceTarget("shop", "tcp", "", None)),
    ],
)
def test_addresses_and_names_are_told_apart(text: str, target: AddressTarget | ServiceTarget) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.96.0.1", "without a port"),
        ("fd00::1", "without a port"),
        ("fd00::1:80", "brackets|without a port"),
        ("10.96.0.1:0", "not a port"),
        ("10.96.0.1:70000", "not a port"),
        ("10.96.0.1:http", "not a port"),
        ("10.96.0.1:80/SCTP", "SCTP"),
        ("", "want ADDRESS:PORT"),
        ("/web", "want ADDRESS:PORT"),
        ("a/b/c", "want ADDRESS:PORT"),
    ],
)
def test_what_is_neither_is_told_with_what_is_wanted(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        parse_target(text)


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    told = ""
    try:
        assert parse_target(text)
    except UsageError as error:
        told = str(error)
    assert told.isprintable()


@given(st.binary(min_size=16, max_size=16), st.integers(1, 65535), st.sampled_from(["", "/TCP", "/UDP"]))
def test_every_address_can_be_asked_for(address: bytes, port: int, protocol: str) -> None:
    wanted = Protocol[protocol[1:]] if protocol else None
    assert parse_target(format_endpoint(address, port) + protocol) == AddressTarget(address, port, wanted)


DNS = shop(text="shop/dns:dns", frontends=("10.96.0.53:53",), protocol=Protocol.UDP)


def test_without_a_protocol_it_is_the_one_that_is_served() -> None:
    raw = live([shop(), DNS]).raw
    dial = dial_of(AddressTarget(parse_address("10.96.0.53"), 53, None), raw, ANYBODY)
    assert dial.protocol is Protocol.UDP
    for address in ("10.96.0.1", "10.96.0.2"):
        assert dial_of(AddressTarget(parse_address(address), 80, None), raw, ANYBODY).protocol is Protocol.TCP


def test_a_service_stands_for_its_ports_and_its_cluster_ip_comes_first() -> None:
    web = shop(frontends=("1.2.3.4:80", "10.96.0.1:80"), node_ports=((0, 30080),))
    found = live([web, DNS])
    key = service_address_key(Network(V4, 128))
    raw = found.raw._replace(service_addresses={key: RULE.pack(AddressRule.REFUSE_UNDEFINED_PORT)})
    assert dials_of(ServiceTarget("shop", "web", "", None), raw) == [Dial(V4, 80, Protocol.TCP)]
    assert dials_of(ServiceTarget("", "dns", "", None), raw) == [
        Dial(parse_address("10.96.0.53"), 53, Protocol.UDP)
    ]
    assert dials_of(ServiceTarget("shop", "web", "http", None), raw)[0].port == 80
    assert dials_of(ServiceTarget("shop", "web", "30080", None), raw)[0].port == 30080


def test_a_node_port_is_dialled_on_an_address_of_this_node() -> None:
    web = S("shop/web:http", (), shop().sets, ((0, 30080), (1, 30080)))
    raw = live([web], {1: "worker-1"}).raw
    own, other = parse_address("192.168.0.1"), parse_address("192.168.0.2")
    raw = raw._replace(node_addresses={own: NODE.pack(0), other: NODE.pack(1)})
    assert dials_of(ServiceTarget("shop", "web", "", None), raw) == [Dial(own, 30080, Protocol.TCP)]


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        (ServiceTarget("", "nobody", "", None), "no such Service"),
        (ServiceTarget("kube-system", "web", "", None), "no such Service"),
        (ServiceTarget("shop", "web", "81", None), "no such Service"),
        (ServiceTarget("shop", "web", "", Protocol.UDP), "no such Service"),
        (ServiceTarget("", "twice", "", None), "in each of one, two"),
    ],
)
def test_a_service_that_is_not_there_or_not_clear_is_told(target: ServiceTarget, hint: str) -> None:
    twice = [
        shop(text=f"{namespace}/twice:http", frontends=(f"10.96.1.{i}:80",))
        for i, namespace in enumerate(("one", "two"), 1)
    ]
    with pytest.raises(UsageError, match=hint):
        dials_of(target, live([shop(), *twice]).raw)
