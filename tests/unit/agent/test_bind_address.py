"""Addresses that servers listen on."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from pyagent.agent.bind_address import BindAddress, bind, parse_bind_address
from pyagent.agent.config import parse_run_options
from pyagent.model.address import parse_address
from pyagent.model.failures import InvalidField

GOOD = {
    "127.0.0.1:10249": "127.0.0.1:10249",
    "0.0.0.0:80": "0.0.0.0:80",
    " 10.0.0.7:9 ": "10.0.0.7:9",
    "10.0.0.7": "10.0.0.7:10256",
    "[::]:10256": "[::]:10256",
    "[fd00::1]:1": "[fd00::1]:1",
    "[fd00::1]": "[fd00::1]:10256",
    "fd00::1": "[fd00::1]:10256",
    "::": "[::]:10256",
}

BAD = [
    "localhost:80",
    "127.0.0.1:",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "127.0.0.1:-1",
    "127.0.0.1:http",
    "127.0.0.1:١",
    ":10249",
    "[::1]:",
    "[::1]80",
    "[::1",
    "[127.0.0.1]:80",
    "[fe80::1%eth0]:80",
    "10249",
    "http://127.0.0.1:80",
]


@pytest.mark.parametrize(("text", "shown"), GOOD.items())
def test_an_address_is_read_with_and_without_a_port(text: str, shown: str) -> None:
    where = parse_bind_address(text, 10256)
    assert str(where) == shown
    assert parse_bind_address(str(where), 1) == where


@pytest.mark.parametrize("text", ["", "0", "  "])
def test_empty_and_0_turn_a_server_off(text: str) -> None:
    assert parse_bind_address(text, 10256) is None


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        parse_bind_address(text, 10256)


def can_reach(family: socket.AddressFamily, host: str, port: int) -> bool:
    with closing(socket.socket(family, socket.SOCK_STREAM)) as client:
        return client.connect_ex((host, port)) == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_the_unspecified_address_listens_on_both_families(host: str) -> None:
    with closing(bind(BindAddress(parse_address(host), 0))) as listener:
        port = listener.getsockname()[1]
        assert can_reach(socket.AF_INET, "127.0.0.1", port)
        assert can_reach(socket.AF_INET6, "::1", port)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_one_address_listens_on_itself_alone(host: str, family: socket.AddressFamily) -> None:
    with closing(bind(BindAddress(parse_address(host), 0))) as listener:
        port = listener.getsockname()[1]
        assert can_reach(socket.AF_INET, "127.0.0.1", port) is (family == socket.AF_INET)
        assert can_reach(socket.AF_INET6, "::1", port) is (family == socket.AF_INET6)


def test_a_taken_port_is_an_error() -> None:
    with closing(bind(BindAddress(parse_address("127.0.0.1"), 0))) as listener:
        where = BindAddress(parse_address("127.0.0.1"), listener.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            bind(where)


@pytest.mark.parametrize(
    "settings",
    [{}, {"--profiling": "true"}, {"--bind-address": "10.0.0.7"}],
    ids=["none", "stacks", "address"],
)
def test_by_default_metrics_are_for_this_machine_alone_and_health_for_everybody(
    settings: dict[str, str],
) -> None:
    config = parse_run_options(settings, environ={}, hostname="n")
    assert str(config.metrics_bind_address) == "127.0.0.1:10249"
    assert str(config.healthz_bind_address) == "0.0.0.0:10256"
