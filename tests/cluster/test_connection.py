"""Credentials, certificates and addresses, against a server that really checks them."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import create_default_context
from typing import ClassVar

import msgspec
import pytest
import yaml

from pyagent.agent.config import parse_run_options
from pyagent.agent.run import api_servers
from pyagent.cluster.access import Access, Credentials, find_kubeconfig, load_credentials
from pyagent.cluster.addresses import Addresses
from pyagent.cluster.api_source import Wanted, open_api_source
from pyagent.cluster.connection import Connection, server_names
from pyagent.cluster.server_address import (
    FILE_NAME,
    dial_order,
    parse_host_port,
    recall,
    remedy,
    remember,
)
from pyagent.model.address import parse_address
from pyagent.model.failures import ClusterUnreachable, UsageError
from pyagent.model.kube_objects import EndpointSlice
from pyagent.model.source_events import Replaced
from tests.cluster.conftest import QUICK, Follow, credentials_of
from tests.cluster.support import endpoint_slice, service
from tests.fakes.api_server import ApiServer

CLOSED = "127.0.0.1:9"  # nobody listens on the discard port


Connect = Callable[..., Connection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A connection with the given credentials."""
    made: list[Connection] = []

    def open_connection(credentials: Credentials, flag: str | None = None) -> Connection:
        made.append(Connection(Access(lambda: credentials), Addresses(flag, None, lambda: 0.0)))
        return made[-1]

    yield open_connection
    for one in made:
        one.close()


def test_a_kubeconfig_leads_to_the_server_with_an_authorization_header(
    server: ApiServer, connect: Connect, tmp_path: Path
) -> None:
    credentials = load_credentials(str(server.kubeconfig(tmp_path / "config.yaml")))
    assert connect(credentials).get("/api/v1/services?limit=1", 5).status == 200
    assert server.seen()[0].authorization == f"Bearer {server.token}"


def test_the_official_client_stays_out_of_this_process(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "config.yaml")
    code = (
        "import sys\n"
        "from pyagent.cluster.api_source import Wanted, open_api_source\n"
        f"open_api_source({str(path)!r}, Wanted('n'))\n"
        "assert not {'kubernetes', 'pydantic', 'requests', 'urllib3'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_client_certificates_of_a_kubeconfig_are_kept_in_memory_only(
    server: ApiServer, connect: Connect, tmp_path: Path
) -> None:
    path = server.kubeconfig(tmp_path / "config.yaml")
    config = yaml.safe_load(path.read_text())
    issued = server.ca.issue_cert("client")
    (tmp_path / "client.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    (tmp_path / "client.key").write_bytes(issued.private_key_pem.bytes())
    config["users"][0]["user"] |= {"client-certificate": "client.pem", "client-key": "client.key"}
    path.write_text(yaml.safe_dump(config))
    credentials = load_credentials(str(path))
    (tmp_path / "client.key").unlink()
    assert connect(credentials).get("/api/v1/nodes", 5).status == 200


def test_an_exec_plugin_gives_the_token(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "config.yaml")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
               "status": {{"token": "{server.token}"}}}}'
        """)
    )
    plugin.chmod(0o755)
    config = yaml.safe_load(path.read_text())
    run = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}
    config["users"][0]["user"] = {"exec": run}
    path.write_text(yaml.safe_dump(config))
    assert load_credentials(str(path)).authorization == f"Bearer {server.token}"
    plugin.write_text("#!/bin/sh\necho no ticket >&2\nexit 3\n")
    with pytest.raises(UsageError, match=r"process returned 3.*no ticket"):
        load_credentials(str(path))
    plugin.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(ClusterUnreachable, match="plugin did not answer"):
        load_credentials(str(path), timeout=1.5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no such file"),
        ("", "empty"),
        ("a: [", "cannot be used"),
        ("apiVersion: v1\nkind: Config\n", "cannot be used"),
        ("clusters: 5\ncontexts: x\nusers: y\ncurrent-context: z", "cannot be used"),
    ],
)
def test_an_unusable_kubeconfig_is_one_line(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=reason) as caught:
        load_credentials(str(path))
    assert str(path) in str(caught.value)
    assert "--kubeconfig" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_kubeconfig_is_the_flag_then_the_pod_then_the_environment(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBECONFIG": "/k"}
    assert find_kubeconfig("/flag", environ, token) == "/flag"
    assert find_kubeconfig(None, environ, token) == ""
    assert find_kubeconfig(None, environ, tmp_path / "none") == "/k"
    with pytest.raises(UsageError, match="--kubeconfig FILE or --manifests DIR"):
        find_kubeconfig(None, {}, token)


def test_a_rotated_token_in_a_kubeconfigs_token_file_is_used_after_one_401(
    server: ApiServer, follow: Follow, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    path = server.kubeconfig(tmp_path / "config.yaml", token_file=token)
    server.put(service("web"))
    _, recorder = follow(load=lambda: load_credentials(str(path)))
    recorder.wait_for_watching()
    token.write_text(server.rotate_token() + "\n")
    server.cut_all()
    server.put(service("api"))
    recorder.wait_for_names({"web", "api"})
    assert len(recorder.of(Replaced)) == 1


def test_a_rotated_service_account_token_is_used_before_the_old_one_expires(
    server: ApiServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(server.token)
    access = Access(lambda: credentials_of(server, token_file=str(token), in_cluster=True))
    link = Connection(access, Addresses(None, None, lambda: 0.0))
    link.get("/api/v1/nodes", 5).read_all(1 << 20)
    fresh = tmp_path / "fresh"
    fresh.write_text(server.rotate_token())
    fresh.rename(token)
    assert link.get("/api/v1/nodes", 5).status == 200
    link.close()


def test_a_token_that_stays_refused_is_told_with_its_remedy(server: ApiServer, follow: Follow) -> None:
    _, recorder = follow(load=lambda: credentials_of(server, authorization="Bearer stale"))
    recorder.wait(lambda: bool(recorder.errors()))
    assert "does not accept the credentials (401)" in recorder.errors()[0]


def test_a_new_certificate_authority_is_read_again(server: ApiServer, follow: Follow) -> None:
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    server.rotate_certificate(new_ca=True)
    server.cut_all()
    server.put(service("api"))
    recorder.wait_for_names({"web", "api"})


def test_a_certificate_of_another_authority_is_never_trusted(server: ApiServer, follow: Follow) -> None:
    with ApiServer() as other:
        _, recorder = follow(load=lambda: credentials_of(server, ca=other.ca_pem))
        recorder.wait(lambda: bool(recorder.errors()))
    assert "certificate is not trusted" in recorder.errors()[0]
    assert server.seen() == []


def test_a_refused_connection_is_told_with_address_and_remedy(server: ApiServer, follow: Follow) -> None:
    _, recorder = follow(load=lambda: credentials_of(server, server=f"https://{CLOSED}"))
    recorder.wait(lambda: bool(recorder.errors()))
    assert recorder.errors()[0] == (
        f"API server {CLOSED}: connection refused; check the server in the kubeconfig"
    )


def test_an_overridden_address_keeps_the_clusters_ca_and_name(connect: Connect) -> None:
    with ApiServer(names=("kubernetes.default.svc",)) as server:
        in_cluster = credentials_of(server, server="https://10.96.0.1:443", in_cluster=True)
        assert connect(in_cluster, flag=server.address).get("/api/v1/nodes", 5).status == 200
        plain = connect(credentials_of(server))
        with pytest.raises(ClusterUnreachable, match="not trusted"):
            plain.get("/api/v1/nodes", 5)


def test_an_overridden_address_that_has_its_own_name_in_the_certificate_works_too(connect: Connect) -> None:
    with ApiServer(names=("127.0.0.1",)) as server:
        link = connect(
            credentials_of(server, server="https://10.96.0.1:443", in_cluster=True), flag=server.address
        )
        with pytest.raises(ClusterUnreachable):
            link.get("/api/v1/nodes", 5)
        assert link.get("/api/v1/nodes", 5).status == 200


def test_names_expected_in_the_certificate() -> None:
    pod = Credentials("https://10.96.0.1:443", in_cluster=True)
    kube = Credentials("https://api.example:6443")
    named = Credentials("https://api.example:6443", server_name="inner")
    assert server_names("10.96.0.1", pod, False) == ("10.96.0.1",)
    assert server_names("192.0.2.1", pod, True) == ("kubernetes.default.svc", "192.0.2.1")
    assert server_names("lb.example", pod, True) == ("lb.example", "kubernetes.default.svc")
    assert server_names("192.0.2.1", kube, True) == ("api.example", "192.0.2.1")
    assert server_names("192.0.2.1", named, True) == ("inner",)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("192.0.2.1:6443", ("192.0.2.1", 6443)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("api:1", ("api", 1)),
    ],
)
def test_an_api_server_address_is_host_and_port(text: str, parsed: tuple[str, int]) -> None:
    assert parse_host_port(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "1::2:443", "h:0", "h:65536", "h:1x", "a b:1", "u/h:1"]
)
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_host_port(text)


def test_the_order_of_addresses() -> None:
    assert dial_order("flag:1", ["a:1"], "10.96.0.1:443", True) == ("flag:1",)
    assert dial_order(None, ["a:1", "b:1"], "10.96.0.1:443", True) == ("a:1", "b:1", "10.96.0.1:443")
    assert dial_order(None, [], "10.96.0.1:443", True) == ("10.96.0.1:443",)
    assert dial_order(None, ["a:1"], "api:443", False) == ("api:443",)


def test_the_flag_is_advised_after_ten_seconds_in_a_cluster() -> None:
    assert remedy(None, True, 9.9) == ""
    assert "--api-server HOST:PORT" in remedy(None, True, 10.0)


def test_known_endpoints_are_kept_and_dialled_first_after_a_restart(
    server: ApiServer, follow: Follow, tmp_path: Path
) -> None:
    host, port = server.address.rsplit(":", 1)
    known = endpoint_slice("kubernetes", "kubernetes", host, namespace="default")
    known["ports"][0]["port"] = int(port)
    server.put(known)
    _, recorder = follow()
    recorder.wait(lambda: recall(tmp_path / "state") == [server.address])
    dead_service = credentials_of(server, server=f"https://{CLOSED}", in_cluster=True)
    _, restarted = follow(load=lambda: dead_service)
    restarted.wait_for_watching()


def test_dead_remembered_endpoints_give_way_to_the_service(
    server: ApiServer, follow: Follow, tmp_path: Path
) -> None:
    remember(tmp_path / "state", [CLOSED])
    server.put(service("web"))
    _, recorder = follow(load=lambda: credentials_of(server, in_cluster=True))
    recorder.wait_for_names({"web"})


def test_a_damaged_or_linked_memory_is_no_memory(tmp_path: Path) -> None:
    kept = tmp_path / FILE_NAME
    for text in ("", "{", "[]", '{"endpoints": [5]}', '{"endpoints": ["nonsense"]}'):
        kept.write_text(text)
        assert recall(tmp_path) == []
    remember(tmp_path, ["192.0.2.1:6443"])
    assert recall(tmp_path) == ["192.0.2.1:6443"]
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]
    assert kept.stat().st_mode & 0o077 == 0
    elsewhere = tmp_path / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)
    assert recall(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
@pytest.mark.parametrize(("owner", "mode"), [(12345, 0o666), (12345, 0o600), (0, 0o666)])
@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_memory_that_others_could_write_is_no_memory(
    tmp_path: Path, owner: int, mode: int, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    remember(tmp_path / "state", ["192.0.2.1:6443"])
    changed = tmp_path / "state" / FILE_NAME if part == "file" else tmp_path / "state"
    changed.chmod(mode | 0o100)
    os.chown(changed, owner, -1)
    assert recall(tmp_path / "state") == []
    assert f"{changed} is not used" in caplog.text


def test_a_state_directory_that_cannot_be_written_is_no_failure(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    addresses = Addresses(None, tmp_path / "file", lambda: 0.0)
    one = msgspec.convert(endpoint_slice("k", "kubernetes", "192.0.2.1", namespace="default"), EndpointSlice)
    addresses.observe(Replaced("EndpointSlice", [one]))
    assert "make the state directory writable" in caplog.text
    pod = Credentials("https://10.96.0.1:443", in_cluster=True)
    assert addresses.next(pod) == "192.0.2.1:6443"


def test_the_server_runs_as_a_process_of_its_own(connect: Connect, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "web.yaml").write_text(yaml.safe_dump(service("web")))
    command = [sys.executable, "-m", "tests.fakes.api_server", "--dir", str(tmp_path)]
    running = subprocess.Popen(
        [*command, "--manifests", str(manifests)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert running.stdout is not None
        credentials = load_credentials(running.stdout.readline().strip())
        request = urllib.request.Request(
            f"{credentials.server}/_test/delete",
            data=b'{"kind": "Service", "namespace": "shop", "name": "web"}',
            headers={"Authorization": credentials.authorization},
        )
        link = connect(credentials)
        assert b'"web"' in link.get("/api/v1/services", 5).read_all(1 << 20)
        urllib.request.urlopen(
            request, context=create_default_context(cadata=credentials.ca), timeout=5
        ).close()
        assert b'"web"' not in link.get("/api/v1/services", 5).read_all(1 << 20)
    finally:
        running.terminate()
        running.communicate(timeout=10)


def test_a_server_that_dies_and_comes_back_is_followed_again(server: ApiServer, follow: Follow) -> None:
    server.put(service("web"))
    _, recorder = follow(QUICK)
    recorder.wait_for_watching()
    server.down()
    recorder.wait(lambda: bool(recorder.errors()))
    server.put(service("api"))
    server.up()
    recorder.wait_for_names({"web", "api"})
    assert len(recorder.of(Replaced)) == 1


class ConnectProxy(socketserver.ThreadingTCPServer):
    """Accepts CONNECT to anywhere on this machine, and remembers it."""

    allow_reuse_address = True
    daemon_threads = True
    seen: ClassVar[list[str]] = []

    class RequestHandlerClass(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = self.rfile.readline().decode()
            while self.rfile.readline() not in (b"\r\n", b""):
                continue
            ConnectProxy.seen.append(head.split()[1])
            host, port = parse_host_port(head.split()[1])
            with socket.create_connection((host, port), timeout=5) as upstream:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(upstream, self.request), daemon=True)
                back.start()
                pump(self.request, upstream)
                back.join(5)


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_a_proxy_of_the_kubeconfig_is_used(server: ApiServer, connect: Connect, tmp_path: Path) -> None:
    ConnectProxy.seen.clear()
    with ConnectProxy(("127.0.0.1", 0), ConnectProxy.RequestHandlerClass) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        path = server.kubeconfig(tmp_path / "config.yaml")
        config = yaml.safe_load(path.read_text())
        config["clusters"][0]["cluster"]["proxy-url"] = f"http://127.0.0.1:{proxy.server_address[1]}"
        path.write_text(yaml.safe_dump(config))
        assert connect(load_credentials(str(path))).get("/api/v1/nodes", 5).status == 200
        assert ConnectProxy.seen == [server.address]
        proxy.shutdown()


def test_a_proxy_that_is_no_http_proxy_is_a_usage_error(server: ApiServer, connect: Connect) -> None:
    with pytest.raises(UsageError, match="only http:// proxies"):
        connect(credentials_of(server, proxy="socks5://127.0.0.1:1")).get("/api/v1/nodes", 5)


def test_the_api_server_that_a_kubeconfig_names_is_taken_over_by_nobody(
    server: ApiServer, tmp_path: Path
) -> None:
    """Also where it is a balancer's address, which is not among the endpoints of default/kubernetes."""
    path = str(server.kubeconfig(tmp_path / "config.yaml"))
    config = parse_run_options({"--kubeconfig": path}, environ={}, hostname="n")
    assert api_servers(config, open_api_source(path, Wanted("n"))) == {parse_address("127.0.0.1")}
