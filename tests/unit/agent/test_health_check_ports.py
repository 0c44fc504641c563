"""healthCheckNodePort servers as a load balancer sees them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest

from pyagent.agent.health_check_ports import HealthCheckPorts
from pyagent.agent.http_server import HttpServer
from pyagent.model.address import parse_address
from tests.unit.agent.asking import LOOPBACK, free_port, get, loopback_listener

WEB = ("shop", "web")
API = ("shop", "api")
HERE = (LOOPBACK,)


class Proxy:
    healthy = True


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


@pytest.fixture
def ports(server: HttpServer, proxy: Proxy) -> Iterator[HealthCheckPorts]:
    health_check_ports = HealthCheckPorts(server, lambda: proxy.healthy)
    yield health_check_ports
    health_check_ports.sync({})


def refuses(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        return client.connect_ex((host, port)) != 0


@pytest.mark.parametrize(("ready", "status"), [(0, 503), (1, 200), (18, 200)])
def test_a_service_is_healthy_with_local_ready_endpoints(
    ports: HealthCheckPorts, ready: int, status: int
) -> None:
    port = free_port()
    assert ports.sync({WEB: (port, ready)}, HERE) == ()
    answer = get(port, "/")
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-load-balancing-endpoint-weight"] == str(ready)
    assert answer.json == {
        "service": {"namespace": "shop", "name": "web"},
        "localEndpoints": ready,
        "serviceProxyHealthy": True,
    }


def test_the_body_is_laid_out_as_kube_proxys(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 3)}, HERE)
    assert get(port, "/").body == (
        b'{\n\t"service": {\n\t\t"namespace": "shop",\n\t\t"name": "web"\n\t},\n'
        b'\t"localEndpoints": 3,\n\t"serviceProxyHealthy": true\n}'
    )


def test_any_path_is_answered(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)}, HERE)
    assert get(port, "/healthz?x=y").status == 200


def test_an_unhealthy_proxy_is_503_and_still_tells_the_weight(ports: HealthCheckPorts, proxy: Proxy) -> None:
    port = free_port()
    ports.sync({WEB: (port, 4)}, HERE)
    proxy.healthy = False
    answer = get(port, "/")
    assert answer.status == 503
    assert answer.headers["x-load-balancing-endpoint-weight"] == "4"
    assert answer.json["localEndpoints"] == 4
    assert answer.json["serviceProxyHealthy"] is False
    proxy.healthy = True
    assert get(port, "/").status == 200


def test_a_changed_count_needs_no_new_socket(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 4)}, HERE)
    before = ports.listening
    ports.sync({WEB: (port, 0)}, HERE)
    assert get(port, "/").status == 503
    assert ports.listening == before


def test_a_changed_port_closes_the_old_one(ports: HealthCheckPorts) -> None:
    old, new = free_port(), free_port()
    ports.sync({WEB: (old, 1)}, HERE)
    ports.sync({WEB: (new, 1)}, HERE)
    assert refuses(old)
    assert get(new, "/").status == 200


def test_a_service_that_is_gone_closes_its_port(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)}, HERE)
    ports.sync({}, HERE)
    assert refuses(port)
    assert ports.listening == ()


def test_a_port_may_pass_from_one_service_to_another(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)}, HERE)
    assert ports.sync({API: (port, 2)}, HERE) == ()
    assert get(port, "/").json["service"]["name"] == "api"


def test_two_services_on_one_port_leave_it_to_its_holder(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)}, HERE)
    (problem,) = ports.sync({API: (port, 1), WEB: (port, 1)}, HERE)
    assert (problem.name, problem.field) == ("api", "spec.healthCheckNodePort")
    assert get(port, "/").json["service"]["name"] == "web"


def test_a_taken_port_is_reported_and_tried_again_at_the_next_sync(
    ports: HealthCheckPorts, caplog: pytest.LogCaptureFixture
) -> None:
    holder, port = loopback_listener()
    other = free_port()
    wanted = {WEB: (port, 1), API: (other, 1)}
    for _ in range(2):
        (problem,) = ports.sync(wanted, HERE)
        assert (problem.kind, problem.namespace, problem.name) == ("Service", "shop", "web")
        assert f"127.0.0.1:{port}: Address already in use" in problem.reason
    assert len(caplog.records) == 1  # told once, not at each attempt
    assert get(other, "/").status == 200  # the others work
    holder.close()
    assert ports.sync(wanted, HERE) == ()
    assert get(port, "/").status == 200


def test_only_the_given_addresses_are_listened_on(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)}, HERE)
    assert refuses(port, "127.0.0.2")
    assert refuses(port, "::1")


def test_without_addresses_all_of_both_families_are_listened_on(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)})
    assert get(port, "/").status == 200
    assert get(port, "/", host="::1").status == 200


def test_changed_addresses_are_followed(ports: HealthCheckPorts) -> None:
    port = free_port()
    ports.sync({WEB: (port, 1)}, HERE)
    ports.sync({WEB: (port, 1)}, (LOOPBACK, parse_address("::1")))
    assert get(port, "/", host="::1").status == 200
    ports.sync({WEB: (port, 1)}, (parse_address("::1"),))
    assert refuses(port)
    assert get(port, "/", host="::1").status == 200


def test_an_address_that_is_not_ours_does_not_close_the_others(ports: HealthCheckPorts) -> None:
    port = free_port()
    (problem,) = ports.sync({WEB: (port, 1)}, (LOOPBACK, parse_address("203.0.113.9")))
    assert "203.0.113.9" in problem.reason
    assert get(port, "/").status == 200


def test_link_local_ipv6_addresses_are_left_out(ports: HealthCheckPorts) -> None:
    port = free_port()
    assert ports.sync({WEB: (port, 1)}, (LOOPBACK, parse_address("fe80::1"))) == ()
    assert len(ports.listening) == 1


def test_many_services_share_one_thread(ports: HealthCheckPorts) -> None:
    wanted = {("shop", f"s{n}"): (free_port(), n % 2) for n in range(50)}
    unserved = {problem.name for problem in ports.sync(wanted, HERE)}
    for (_, name), (port, ready) in wanted.items():
        if name not in unserved:  # the kernel may have given two of them one number
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/")
            assert connection.getresponse().status == (200 if ready else 503)
            connection.close()
    assert len(unserved) < 10
