"""Who we are to the API server and how we know it: credentials, and the TLS context made from them."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pyagent.model.failures import ClusterUnreachable, UsageError, sanitized

CREDENTIALS_SCRIPT = Path(__file__).with_name("credentials.py")
RENEW_SECONDS = (2.0, 60.0)
"""Between two renewals, each of which is a process; longer and longer while they bring nothing new."""
CHILD_SECONDS = 30.0  # exec plugins may ask the network

SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class Credentials(msgspec.Struct, frozen=True):
    """What a connection needs. PEM texts instead of files, so that nothing secret stays on disk."""

    server: str  # https://host:port[/prefix]
    authorization: str = ""
    ca: str = ""
    verify: bool = True
    server_name: str = ""  # tls-server-name of the kubeconfig
    client_certificate: str = ""
    client_key: str = ""
    proxy: str = ""
    token_file: str = ""  # re-read whenever it changes
    in_cluster: bool = False


def find_kubeconfig(flag: str | None, environ: Mapping[str, str], token: Path = SERVICE_ACCOUNT_TOKEN) -> str:
    """The kubeconfig to use; "" means the pod's own service account.

    Args:
        flag: `--kubeconfig`; wins where given.
        environ: for `KUBERNETES_SERVICE_HOST` (in-cluster comes next) and then `KUBECONFIG`.
        token: the service account's token file.

    Raises:
        UsageError: nothing names a cluster.
    """
    if flag:
        return flag
    if environ.get("KUBERNETES_SERVICE_HOST") and token.exists():
        return ""
    if environ.get("KUBECONFIG"):
        return environ["KUBECONFIG"]
    raise UsageError(
        "no cluster to follow: this is no pod and KUBECONFIG is not set; "
        "give --kubeconfig FILE or --manifests DIR"
    )


def load_credentials(kubeconfig: str, timeout: float = CHILD_SECONDS) -> Credentials:
    """Run the official client in a child and take over what it found.

    Args:
        kubeconfig: a path (or several, joined by `:`), or "" for the pod's service account.
        timeout: seconds for exec plugins and token refreshes.

    Raises:
        UsageError: the kubeconfig cannot be read or used.
        ClusterUnreachable: a credential plugin failed or did not answer.
    """
    where = f"kubeconfig {kubeconfig}" if kubeconfig else "in-cluster credentials"
    if kubeconfig:
        _check_readable(kubeconfig)
    command = [sys.executable, "-P", str(CREDENTIALS_SCRIPT), kubeconfig]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except OSError as error:
        raise ClusterUnreachable(f"{where}: no process can be started to read it: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ClusterUnreachable(
            f"{where}: the credential plugin did not answer within {timeout:.0f} s; run it by hand"
        ) from None
    try:
        answer = msgspec.json.decode(done.stdout, type=dict[str, object])
    except msgspec.DecodeError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        if "No module named 'kubernetes'" in last[0]:
            raise UsageError("the Python package 'kubernetes' is missing; install kubesock with it") from None
        raise ClusterUnreachable(f"{where}: cannot be loaded: {sanitized(last[0], 200)}") from None
    if "error" in answer:
        cause = sanitized(" ".join(str(answer["error"]).split()), 240)
        remedy = "correct it, or give another with --kubeconfig"
        raise UsageError(f"{where} cannot be used: {answer.get('type')}: {cause}; {remedy}")
    return msgspec.convert(answer, Credentials)


def _check_readable(kubeconfig: str) -> None:
    paths = [Path(part).expanduser() for part in kubeconfig.split(":") if part]
    existing = [path for path in paths if path.exists()]
    if not existing:
        raise UsageError(f"kubeconfig {kubeconfig}: no such file; name an existing one with --kubeconfig")
    for path in existing:
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"kubeconfig {path}: {error.strerror}; make it readable for the agent") from None


def tls_context(credentials: Credentials) -> ssl.SSLContext:
    """A client context that trusts the credentials' CA alone (the system's where none is named).

    Raises:
        UsageError: a certificate or key is not usable.
    """
    try:
        context = ssl.create_default_context(cadata=credentials.ca or None)
        if not credentials.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if credentials.client_certificate:
            _load_client_certificate(context, credentials)
    except (OSError, ValueError) as error:
        raise UsageError(f"certificates of the cluster credentials are not usable: {error}") from None
    return context


def _load_client_certificate(context: ssl.SSLContext, credentials: Credentials) -> None:
    # OpenSSL's binding takes file names only; an anonymous memory file leaves nothing behind.
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"{credentials.client_certificate}\n{credentials.client_key}".encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


class Access:
    """Credentials shared by all connections; renewed when the server refuses them. Thread-safe."""

    def __init__(self, load: Callable[[], Credentials], now: Callable[[], float] = time.monotonic) -> None:
        """Args: load: reads the credentials anew, raising UsageError or ClusterUnreachable."""
        self._load = load
        self._now = now
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._context: ssl.SSLContext | None = None
        self._token_stamp: tuple[int, int, int] | None = None
        self._renew_at = 0.0
        self._renew_wait = RENEW_SECONDS[0]

    def current(self) -> tuple[Credentials, ssl.SSLContext]:
        """The credentials to use now; a token file that changed has been read again."""
        with self._lock:
            if self._current is None or self._context is None:
                return self._reload()
            if self._current.token_file:
                self._reread_token(self._current.token_file)
            return self._current, self._context

    def renew(self, refused: Credentials) -> None:
        """Read everything again, unless that was done since `refused` was handed out, or was in vain lately.

        Raises:
            UsageError, ClusterUnreachable: there are no usable credentials now.
        """
        with self._lock:
            if self._current is not refused or self._now() < self._renew_at:
                return
            first, longest = RENEW_SECONDS
            self._renew_at = self._now() + self._renew_wait
            self._renew_wait = min(longest, 2 * self._renew_wait)
            loaded, _ = self._reload()
            if loaded != refused:
                self._renew_wait = first

    def _reload(self) -> tuple[Credentials, ssl.SSLContext]:
        loaded = self._load()
        self._context = tls_context(loaded)
        self._current = loaded
        self._token_stamp = _stamp(loaded.token_file)
        return loaded, self._context

    def _reread_token(self, path: str) -> None:
        stamp = _stamp(path)
        if stamp is None or stamp == self._token_stamp:
            return
        try:
            token = Path(path).read_text(errors="replace").strip()
        except OSError:
            return  # it is being exchanged: the one we have is good until the server says otherwise
        if token and self._current is not None:
            self._current = msgspec.structs.replace(self._current, authorization=f"Bearer {token}")
            self._token_stamp = stamp


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What changes when a projected token is rotated (its file is a link that is swapped)."""
    try:
        status = Path(path).stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size) if status else None
