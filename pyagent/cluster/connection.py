"""One HTTP connection to the API server: a request, and its answer in pieces as they arrive.

`http.client` rather than a pool: a watch owns its connection, must be cut from another thread within moments,
and needs a name of its own in the TLS handshake (see `server_names`).
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from pyagent.cluster.access import Access, Credentials
from pyagent.cluster.server_address import configured_address, parse_host_port
from pyagent.model.failures import ClusterUnreachable, UsageError

CONNECT_SECONDS = 5.0
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 30, 15, 3
CHUNK_BYTES = 1 << 18
# Every API server's certificate carries this name, because pods dial it; its address need not be in there.
IN_CLUSTER_NAME = "kubernetes.default.svc"
USER_AGENT = "kubesock"

NETWORK_FAILURES = (OSError, http.client.HTTPException, ValueError)


def server_names(dialled: str, credentials: Credentials, overridden: bool) -> tuple[str, ...]:
    """The names to expect in the certificate, tried in this order.

    The configured address is expected as it is. An overridden one (`--api-server`, a remembered endpoint) is
    another way to the same server: its certificate has the name by which the credentials know it.
    """
    if credentials.server_name:
        return (credentials.server_name,)
    if not overridden:
        return (dialled,)
    known = IN_CLUSTER_NAME if credentials.in_cluster else (urlsplit(credentials.server).hostname or dialled)
    names = (known, dialled) if _is_address(dialled) else (dialled, known)
    return tuple(dict.fromkeys(names))


class _Line(http.client.HTTPSConnection):
    """A connection whose socket is known before it is connected, so that it can be cut at any moment."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, server_name: str) -> None:
        super().__init__(host, port, timeout=CONNECT_SECONDS, context=tls)
        self.tls = tls
        self.server_name = server_name
        self.is_cut = False

    def connect(self) -> None:
        raw = _dial(self.host, self.port, self._keep)
        if getattr(self, "_tunnel_host", None):
            self._tunnel()  # type: ignore[attr-defined]  # http.client's own way to CONNECT
        if self.tls is not None:
            name = self.server_name
            self._keep(self.tls.wrap_socket(raw, server_hostname=name, do_handshake_on_connect=False))
            self.sock.do_handshake()

    def cut(self) -> None:
        """Wake whoever reads or connects; from any thread."""
        self.is_cut = True
        held: socket.socket | None = self.sock
        if held is not None:
            try:
                # Not SSLSocket.shutdown: it would take the TLS object away from under the reader.
                socket.socket.shutdown(held, socket.SHUT_RDWR)
            except OSError:
                return  # not connected any more: nobody waits

    def _keep(self, raw: socket.socket) -> None:
        """From here on `cut` finds the socket; if it came before, it is obeyed now."""
        self.sock = raw
        if self.is_cut:
            raise OSError("stopped")


def _dial(host: str, port: int, keep: Callable[[socket.socket], None]) -> socket.socket:
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        raw = socket.socket(family, kind, protocol)
        keep(raw)
        try:
            raw.settimeout(CONNECT_SECONDS)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
            raw.connect(address)
        except OSError as error:
            raw.close()
            failure = error
        else:
            return raw
    raise failure or OSError(f"{host} has no address")


class _Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None


_HAS_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_HAS_PATCH = {"Accept": "application/json", "Content-Type": "application/strategic-merge-patch+json"}


class Answer:
    """An answer whose body is read in pieces."""

    def __init__(self, connection: Connection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str:
        return self._response.getheader(name) or ""

    def read_piece(self) -> bytes:
        """The next bytes as they arrive; b"" at the proper end of the body.

        Raises:
            ClusterUnreachable: the stream broke, or nothing came within the read timeout.
        """
        try:
            piece = self._response.read1(CHUNK_BYTES)
            if not piece and self._response.length:
                raise http.client.IncompleteRead(b"", self._response.length)
        except NETWORK_FAILURES as error:
            self._connection.close()
            raise ClusterUnreachable(cause_of(error)) from None
        if not piece:
            self._response.close()  # only now can the connection be used again
        return piece

    def read_all(self, limit: int) -> bytearray:
        """The whole body, not more than `limit` bytes.

        Raises:
            ClusterUnreachable: as `read_piece`. TooLarge: the body is larger.
        """
        body = bytearray()
        while piece := self.read_piece():
            body += piece
            if len(body) > limit:
                self._connection.close()
                raise TooLarge(f"the answer is larger than {limit >> 20} MiB")
        return body

    def close(self) -> None:
        """Give up the rest of the body."""
        if not self._response.isclosed():
            self._connection.close()


class TooLarge(ClusterUnreachable):
    """An answer beyond every measure."""


class AddressBook(Protocol):
    """Which server to dial; told how it went."""

    def next(self, credentials: Credentials) -> str: ...

    def answered(self) -> None: ...

    def failed(self, address: str) -> str:
        """Returns the remedy to print, or ""."""


class Connection:
    """Requests one after the other, over one TCP connection where the server allows it.

    Used by one thread; only `cut` may come from another.
    """

    def __init__(self, access: Access, addresses: AddressBook) -> None:
        self._access = access
        self._addresses = addresses
        self._address = ""
        self._line: _Line | None = None
        self._used: Credentials | None = None
        self._name_shift = 0
        self._cut = threading.Event()

    def get(self, path: str, read_timeout: float, accept: str = "application/json") -> Answer:
        """Send `GET path` and wait for the answer's header; see `send`."""
        return self.send(_Request("GET", path, {"Accept": accept}), read_timeout)

    def post(self, path: str, body: bytes, read_timeout: float) -> Answer:
        """Send `POST path` with a JSON body; see `send`."""
        return self.send(_Request("POST", path, _HAS_JSON, body), read_timeout)

    def patch(self, path: str, body: bytes, read_timeout: float) -> Answer:
        """Send `PATCH path` with a strategic merge patch (Kubernetes API concepts); see `send`."""
        return self.send(_Request("PATCH", path, _HAS_PATCH, body), read_timeout)

    def send(self, request: _Request, read_timeout: float) -> Answer:
        """Send a request and wait for the answer's header.

        Args:
            request: its path is from the API's root, with its query.
            read_timeout: seconds without a byte after which the connection counts as dead.

        Raises:
            ClusterUnreachable: no connection, no answer, or a certificate that is not trusted.
            UsageError: the credentials cannot be used.
        """
        credentials, context = self._access.current()
        if self._used is not credentials:
            self.close()  # also the server's idea of who we are may hang on the connection
        kept = self._line is not None
        try:
            try:
                answer = self._send(credentials, context, request, read_timeout)
            except NETWORK_FAILURES as error:
                self.close()
                if self._cut.is_set() or not (kept and _is_stale(error)):
                    raise
                answer = self._send(credentials, context, request, read_timeout)
        except NETWORK_FAILURES as error:
            self.close()
            self._try_other_name(error)
            remedy = self._addresses.failed(self._address)
            text = f"API server {self._address}: {cause_of(error)}{'; ' + remedy if remedy else ''}"
            raise ClusterUnreachable(text) from error
        self._addresses.answered()
        return answer

    def renew(self) -> None:
        """Read the credentials again after the server or its certificate was refused."""
        if self._used is not None:
            self._access.renew(self._used)

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def cut(self) -> None:
        """End whatever the connection is doing, for good. From any thread."""
        self._cut.set()
        line = self._line
        if line is not None:
            line.cut()

    def _send(
        self, credentials: Credentials, context: ssl.SSLContext, request: _Request, read_timeout: float
    ) -> Answer:
        if self._line is None:
            self._used = credentials
            self._line = self._new_line(credentials, context)
            if self._cut.is_set():
                self._line.cut()
            self._line.connect()
        line = self._line
        line.sock.settimeout(read_timeout)
        headers = {"User-Agent": USER_AGENT, **request.headers}
        if credentials.authorization:
            headers["Authorization"] = credentials.authorization
        path = urlsplit(credentials.server).path.rstrip("/") + request.path
        line.request(request.method, path, body=request.body, headers=headers)
        return Answer(self, line.getresponse())

    def _new_line(self, credentials: Credentials, context: ssl.SSLContext) -> _Line:
        configured = configured_address(credentials)
        address = self._address = self._addresses.next(credentials)
        host, port = parse_host_port(address)
        url = urlsplit(credentials.server)
        names = server_names(host, credentials, address != configured)
        name = names[self._name_shift % len(names)]
        tls = context if url.scheme == "https" else None
        if not credentials.proxy or address != configured:
            return _Line(host, port, tls, name)
        proxy = urlsplit(credentials.proxy)
        if proxy.scheme != "http" or not proxy.hostname:
            raise UsageError(f"proxy {proxy.scheme}://{proxy.hostname}: only http:// proxies are supported")
        line = _Line(proxy.hostname, proxy.port or 80, tls, name)
        line.set_tunnel(host, port, _proxy_headers(proxy))
        return line

    def _try_other_name(self, error: Exception) -> None:
        if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NAME_MISMATCH:
            self._name_shift += 1


_NAME_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_NOT_NOW = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


def is_about_trust(error: ClusterUnreachable) -> bool:
    """Whether one side does not trust the other's certificate: credentials read again may mend it."""
    cause = error.__cause__
    return isinstance(cause, ssl.SSLCertVerificationError) or _is_alert(cause)


def _is_alert(error: BaseException | None) -> bool:
    """With TLS 1.3 the server's opinion of our certificate comes after the handshake (RFC 8446, 4.4.2.4)."""
    reason = str(getattr(error, "reason", "") or "")
    return isinstance(error, ssl.SSLError) and "ALERT" in reason and ("CERT" in reason or "_CA" in reason)


def cause_of(error: Exception) -> str:
    """A network failure in words an operator can act on."""
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in _NOT_NOW:
            return (
                f"its certificate is not valid now: {error.verify_message}; compare this machine's clock "
                "with the API server's, else renew that certificate"
            )
        case ssl.SSLError() if _is_alert(error):
            return (
                f"it refuses our client certificate: {error.reason}; renew the one that the kubeconfig names"
            )
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted: {error.verify_message}; "
                "use the certificate authority of this cluster"
            )
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case TimeoutError():
            return "timed out"
        case socket.gaierror():
            return f"the name cannot be resolved: {error.strerror}"
        case http.client.IncompleteRead():
            return "the stream broke off"
        case http.client.RemoteDisconnected():
            return "closed the connection without an answer"
        case OSError() if error.strerror:
            return error.strerror.lower()
    return f"{type(error).__name__}: {error}"


def _is_stale(error: Exception) -> bool:
    """A kept connection that the server closed meanwhile: the request was never seen."""
    return isinstance(error, (http.client.RemoteDisconnected, ConnectionError, http.client.CannotSendRequest))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode()}
