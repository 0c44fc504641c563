"""Certificates and tokens that are exchanged, expire or cannot be read, with a server that really checks."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from pyagent.cluster import lists
from pyagent.cluster.access import RENEW_SECONDS, Access, Credentials, load_credentials
from pyagent.cluster.addresses import Addresses
from pyagent.cluster.connection import Connection
from pyagent.cluster.decode import decode_watch_line
from pyagent.model.failures import ClusterUnreachable
from pyagent.model.source_events import Replaced
from tests.cluster.conftest import QUICK, Follow, credentials_of
from tests.cluster.support import service
from tests.fakes.api_server import ApiServer


def demand_client_certificates(server: ApiServer, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.ca.issue_cert(*server.names).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server.context = context


def certificate(authority: trustme.CA) -> dict[str, str]:
    made = authority.issue_cert("kubesock@node-a")
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    return {"client_certificate": chain.decode(), "client_key": made.private_key_pem.bytes().decode()}


def test_a_client_certificate_that_is_exchanged_on_both_sides_is_read_again(
    server: ApiServer, follow: Follow
) -> None:
    old, new = trustme.CA(), trustme.CA()
    on_disk = certificate(old)
    demand_client_certificates(server, old)
    server.put(service("web"))
    _, recorder = follow(load=lambda: credentials_of(server, **on_disk))
    recorder.wait_for_watching()
    demand_client_certificates(server, new)
    server.cut_all()
    server.put(service("api"))
    recorder.wait(
        lambda: any("refuses our client certificate" in e for e in recorder.errors()), "a complaint"
    )
    assert recorder.names() == {"web"}
    on_disk.update(certificate(new))
    recorder.wait_for_names({"web", "api"})
    assert len(recorder.of(Replaced)) == 1, "it went on where it was"


@pytest.mark.parametrize("days", [-2, 2], ids=["expired", "not yet valid"])
def test_a_certificate_that_is_not_valid_now_points_to_the_clock(
    server: ApiServer, follow: Follow, days: int
) -> None:
    """What a node sees whose clock has jumped."""
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    bounds: dict[str, Any] = {"not_before": now, "not_after": now + dt.timedelta(days=1)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.ca.issue_cert(*server.names, **bounds).configure_cert(context)
    server.context = context
    server.cut_all()
    server.put(service("api"))
    recorder.wait(lambda: any("compare this machine's clock" in e for e in recorder.errors()), "a complaint")
    assert recorder.names() == {"web"}
    server.rotate_certificate()
    recorder.wait_for_names({"web", "api"})
    assert len(recorder.of(Replaced)) == 1


def test_credentials_that_stay_refused_are_read_ever_more_seldom() -> None:
    now, loads = [100.0], [0]

    def load() -> Credentials:
        loads[0] += 1
        return Credentials("https://192.0.2.1:6443", authorization="Bearer stale")

    access = Access(load, lambda: now[0])
    for _ in range(300):
        access.renew(access.current()[0])
        now[0] += 1
    assert loads[0] <= 6 + 300 / RENEW_SECONDS[1] + 1


def test_credentials_that_changed_are_read_again_soon() -> None:
    now, loads = [100.0], [0]

    def load() -> Credentials:
        loads[0] += 1
        return Credentials("https://192.0.2.1:6443", authorization=f"Bearer {loads[0]}")

    access = Access(load, lambda: now[0])
    for count in range(1, 5):
        access.renew(access.current()[0])
        assert loads[0] == count + 1
        now[0] += RENEW_SECONDS[0]


def test_a_token_file_that_cannot_be_read_for_a_moment_costs_nothing(
    server: ApiServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(server.token)
    found = Access(lambda: credentials_of(server, token_file=str(token), in_cluster=True))
    link = Connection(found, Addresses(None, None, lambda: 0.0))
    link.get("/api/v1/nodes", 5).read_all(1 << 20)
    token.unlink()
    token.mkdir()
    assert link.get("/api/v1/nodes", 5).status == 200
    link.close()


def test_no_process_for_the_credentials_is_a_failure_among_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def none(*_args: Any, **_more: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("pyagent.cluster.access.subprocess.run", none)
    (tmp_path / "config").write_text("apiVersion: v1")
    with pytest.raises(ClusterUnreachable, match="no process can be started"):
        load_credentials(str(tmp_path / "config"))


def test_what_nobody_foresaw_ends_no_thread(
    server: ApiServer, follow: Follow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(service("web"))
    _, recorder = follow()
    recorder.wait_for_watching()
    broken = threading.Event()

    def decode_or_break(*args: Any) -> Any:
        if args[0] == "Service" and not broken.is_set():
            broken.set()
            raise RuntimeError("nobody thought of this")
        return decode_watch_line(*args)

    monkeypatch.setattr("pyagent.cluster.reflector.decode_watch_line", decode_or_break)
    server.delete("Service", "shop", "web")
    server.put(service("api"))
    recorder.wait_for_names({"api"})
    assert "RuntimeError: nobody thought of this" in recorder.errors()
    assert "please report it" in caplog.text


@pytest.mark.parametrize("watch_list", ["yes", "invalid"])
def test_a_list_beyond_measure_is_refused_and_takes_nothing_away(
    server: ApiServer, follow: Follow, watch_list: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.watch_list = watch_list
    server.page_limit = 2
    for number in range(4):
        server.put(service(f"s{number}"))
    _, recorder = follow()
    recorder.wait_for_watching()
    monkeypatch.setattr(lists, "MAX_LIST_OBJECTS", 4)
    for number in range(4, 8):
        server.put(service(f"s{number}"))
    recorder.wait_for_names({f"s{number}" for number in range(8)})
    server.compact()
    server.cut_all()
    recorder.wait(lambda: any("beyond measure" in error for error in recorder.errors()), "a complaint")
    assert len(recorder.names()) == 8
    monkeypatch.setattr(lists, "MAX_LIST_OBJECTS", 100)
    recorder.wait(lambda: len(recorder.of(Replaced)) == 2, "the list")


@pytest.mark.parametrize("watch_list", ["yes", "invalid"])
@pytest.mark.parametrize(("limit", "most"), [("MAX_LIST_OBJECTS", 4), ("MAX_LIST_BYTES", 1000)])
def test_a_list_beyond_measure_is_refused_in_one_page_too(
    server: ApiServer,
    follow: Follow,
    watch_list: str,
    limit: str,
    most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lists, limit, most)
    server.watch_list = watch_list
    names = {f"s{number}" for number in range(40)}
    for name in names:
        server.put(service(name))
    _, recorder = follow()
    recorder.wait(lambda: any("beyond measure" in error for error in recorder.errors()), "a complaint")
    assert not recorder.of(Replaced)
    monkeypatch.setattr(lists, limit, 1 << 20)
    recorder.wait_for_names(names)


def test_pages_without_end_are_refused(
    server: ApiServer, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MAX_LIST_PAGES", 3)
    server.watch_list = "invalid"
    server.page_limit = 1
    for number in range(5):
        server.put(service(f"s{number}"))
    _, recorder = follow()
    recorder.wait(lambda: any("more than 3 pages" in error for error in recorder.errors()), "a complaint")


def test_a_page_too_large_is_asked_for_in_pieces(
    server: ApiServer, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers before 1.34 send all they have at hand at once, whatever the limit."""
    monkeypatch.setattr(lists, "MAX_PAGE_BYTES", 4000)
    server.watch_list = "invalid"
    names = {f"web-{number:0100}" for number in range(40)}
    for name in names:
        server.put(service(name))
    _, recorder = follow(QUICK)
    recorder.wait(lambda: bool(recorder.errors()), "a complaint")
    server.page_limit = 5
    recorder.wait_for_names(names)
    assert "resourceVersion" not in server.seen("list", "Service")[-1].query


def test_after_a_restart_nothing_older_than_what_serves_is_listed(server: ApiServer, follow: Follow) -> None:
    server.watch_list = "invalid"
    server.put(service("web"))
    _, recorder = follow(had_objects=True)
    recorder.wait_for_names({"web"})
    assert "resourceVersion" not in server.seen("list", "Service")[0].query, "a quorum read"
