"""A Kubernetes API server for tests: list and watch over TLS with bearer tokens, and faults on demand.

In a test: `with ApiServer() as server: server.put({...}); server.kubeconfig(path)`.
As a process: `python -m tests.fakes.api_server --dir DIR [--manifests DIR]` prints the kubeconfig's path,
then serves until it is told to stop. It is driven over HTTP by whoever holds the token:
`POST /_test/put`, `/_test/delete`, `/_test/fault`, `/_test/clear`, `/_test/compact` with a JSON body.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import socket
import ssl
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import trustme
import yaml

from tests.fakes.faults import Fault, Faults
from tests.fakes.routes import Handler
from tests.fakes.store import Key, Object, Store

Backup = tuple[int, dict[str, dict[Key, Object]]]


class Request(NamedTuple):
    """A request as it arrived, for tests that look at how polite a client is."""

    at: float
    verb: str
    kind: str
    query: dict[str, str]
    authorization: str
    accept: str = ""
    path: str = ""
    body: Any = None  # of POST and PATCH


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    owner: ApiServer

    def get_request(self) -> tuple[socket.socket, Any]:
        raw, address = super().get_request()
        raw.settimeout(30)
        wrapped = self.owner.context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        with self.owner.lock:
            self.owner.connections.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        with self.owner.lock:
            self.owner.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests, also in the middle of a handshake."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class ApiServer:
    """See the module. `watch_list` is "yes", "invalid" (422) or "refused" (an ERROR inside the stream)."""

    def __init__(
        self, port: int = 0, names: tuple[str, ...] = ("127.0.0.1", "kubernetes.default.svc")
    ) -> None:
        self.store = Store()
        self.faults = Faults()
        self.requests: list[Request] = []
        self.connections: set[ssl.SSLSocket] = set()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.watch_list = "yes"
        self.absent_kinds: set[str] = set()  # their API answers 404
        self.forbidden_without_selector: set[str] = set()  # kinds that may not be listed whole: 403
        self.events: dict[str, Object] = {}  # those posted, by namespace/name; patched in place
        self.field_selectors = True  # False: spec.clusterIP is refused with 400
        self.page_limit = 0  # a server-side cap of `limit`
        self.bookmark_seconds = 1.0
        self.tokens = {secrets.token_hex(8)}
        self.names = names
        self.ca = trustme.CA()
        self.context = self._new_context()
        self._port = port
        self._http: _Server | None = None
        self.up()

    # --- objects

    def put(self, obj: Object) -> str:
        """Create or replace an object; returns its resourceVersion."""
        return self.store.put(obj)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.store.delete(kind, namespace, name)

    def compact(self) -> None:
        self.store.compact()

    def backup(self) -> Backup:
        return self.store.backup()

    def restore(self, backup: Backup) -> None:
        self.store.restore(backup)

    # --- faults

    def fault(self, action: str, **how: Any) -> None:
        """Make coming requests fail; arguments as in `Fault`."""
        self.faults.add(Fault(action, **how))

    def cut_all(self) -> None:
        """Reset every open connection."""
        with self.lock:
            held = list(self.connections)
        for one in held:
            try:
                socket.socket.setsockopt(one, socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                socket.socket.shutdown(one, socket.SHUT_RDWR)
            except OSError:
                continue

    def down(self) -> None:
        """Stop listening and drop everyone; connections are refused from now."""
        self.closing.set()
        with self.store.changed:
            self.store.changed.notify_all()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
        self.cut_all()

    def up(self) -> None:
        """Listen (again), on the same port as before."""
        self.closing.clear()
        self._http = _Server(("127.0.0.1", self._port), Handler)
        self._http.owner = self
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def rotate_token(self) -> str:
        """Only the new token is valid from now."""
        token = secrets.token_hex(8)
        self.tokens = {token}
        return token

    def rotate_certificate(self, new_ca: bool = False) -> None:
        """New connections see another certificate."""
        if new_ca:
            self.ca = trustme.CA()
        self.context = self._new_context()

    # --- how to reach it

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def token(self) -> str:
        return next(iter(self.tokens))

    @property
    def ca_pem(self) -> str:
        return self.ca.cert_pem.bytes().decode()

    def kubeconfig(self, path: Path, token_file: Path | None = None, server: str | None = None) -> Path:
        """Write a kubeconfig (and the CA beside it) that leads here."""
        ca_file = path.with_suffix(".ca.pem")
        ca_file.write_text(self.ca_pem)
        user = {"tokenFile": str(token_file)} if token_file else {"token": self.token}
        if token_file:
            token_file.write_text(self.token)
        cluster = {"server": server or f"https://{self.address}", "certificate-authority": str(ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def seen(self, verb: str = "", kind: str = "") -> list[Request]:
        """The requests so far."""
        with self.lock:
            return [r for r in self.requests if verb in ("", r.verb) and kind in ("", r.kind)]

    def note(self, request: Request) -> None:
        with self.lock:
            self.requests.append(request)

    def __enter__(self) -> ApiServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*self.names).configure_cert(context)
        return context


def command(server: ApiServer, name: str, body: Any) -> None:
    """Do what `POST /_test/NAME` asks for."""
    match name:
        case "put":
            for obj in body.get("items", [body]):
                server.put(obj)
        case "delete":
            server.delete(body["kind"], body.get("namespace", ""), body["name"])
        case "fault":
            server.fault(**body)
        case "clear":
            server.faults.clear()
        case "compact":
            server.compact()
        case "cut":
            server.cut_all()
        case _:
            raise ValueError(f"no such command: {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dir", type=Path, required=True, help="where the kubeconfig goes")
    parser.add_argument("--manifests", type=Path, help="objects to begin with: YAML or JSON files")
    parser.add_argument("--watch-list", choices=("yes", "invalid", "refused"), default="yes")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ApiServer(options.port) as server:
        server.watch_list = options.watch_list
        for path in sorted(options.manifests.iterdir()) if options.manifests else ():
            for document in yaml.safe_load_all(path.read_text()):
                command(server, "put", document)
        print(server.kubeconfig(options.dir / "kubeconfig.yaml"), flush=True)
        while not stop.is_set():
            time.sleep(0.1)


def as_json(body: bytes) -> Any:
    return json.loads(body or b"{}")


if __name__ == "__main__":
    main()
