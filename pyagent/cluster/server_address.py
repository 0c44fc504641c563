"""Which address of the API server to dial.

The agent must not depend on the Service that it programs: after a reboot the maps are empty and the ClusterIP
of `default/kubernetes` leads nowhere. So the endpoints behind it are kept on disk while they are known.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from pyagent.cluster.access import Credentials
from pyagent.model.address import format_endpoint, parse_address
from pyagent.model.failures import InvalidField, UsageError
from pyagent.model.kube_objects import LABEL_SERVICE_NAME, EndpointSlice
from pyagent.own_folder import NotOurs, opened

log = logging.getLogger(__name__)
FILE_NAME = "api-server-endpoints.json"
IN_CLUSTER_PATIENCE = 10.0  # seconds before the error names --api-server
MAX_REMEMBERED = 16
MAX_BYTES = 64 << 10


class _Remembered(msgspec.Struct):
    endpoints: list[str]


def parse_host_port(text: str) -> tuple[str, int]:
    """`10.0.0.1:6443`, `[fd00::1]:6443` or `api.example:6443` as host and port.

    Raises:
        UsageError: the text is something else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    # Of all that is like a space, only the space is printable.
    usable = host and host.isprintable() and not {" ", "/"} & set(host) and (bracketed or ":" not in host)
    if not (colon and usable and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise UsageError(
            f"--api-server {text}: want HOST:PORT, for example 192.0.2.10:6443 or [2001:db8::1]:6443"
        )
    return host, int(port)


def configured_address(credentials: Credentials) -> str:
    """HOST:PORT of the server that the credentials name.

    Raises:
        UsageError: it is no http(s) URL.
    """
    url = urlsplit(credentials.server)
    try:
        port = url.port or {"https": 443, "http": 80}[url.scheme]
    except (KeyError, ValueError):
        raise UsageError(f"server {credentials.server}: want https://HOST:PORT") from None
    host = url.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dial_order(
    flag: str | None, remembered: Sequence[str], configured: str, in_cluster: bool
) -> tuple[str, ...]:
    """The addresses to try, first to last.

    Args:
        flag: `--api-server HOST:PORT`; alone where given.
        remembered: endpoints of `default/kubernetes` known last.
        configured: HOST:PORT of the credentials; the ClusterIP when in a cluster.
        in_cluster: whether `configured` is the Service that this agent itself programs.
    """
    if flag:
        return (flag,)
    if not in_cluster:
        return (configured,)
    return (*dict.fromkeys(remembered), configured)


def remedy(flag: str | None, in_cluster: bool, unreachable_seconds: float) -> str:
    """What to advise after so long without any answer; "" while waiting is the best advice."""
    if flag:
        return "check --api-server"
    if not in_cluster:
        return "check the server in the kubeconfig"
    if unreachable_seconds < IN_CLUSTER_PATIENCE:
        return ""
    return "name an API server that needs no Service with --api-server HOST:PORT"


def endpoints_of(slices: Sequence[EndpointSlice]) -> list[str]:
    """HOST:PORT of the ready endpoints in the slices of `default/kubernetes`."""
    found: list[str] = []
    for one in slices:
        for port in one.ports or ():
            if port.port is None or not 0 < port.port < 65536 or (port.name or "https") != "https":
                continue
            for endpoint in one.endpoints or ():
                if endpoint.conditions is not None and endpoint.conditions.ready is False:
                    continue
                for address in (endpoint.addresses or ())[:1]:
                    try:
                        found.append(format_endpoint(parse_address(address), port.port))
                    except InvalidField:
                        continue
    return sorted(set(found))[:MAX_REMEMBERED]


def is_api_server_slice(one: EndpointSlice) -> bool:
    """Whether the slice belongs to `default/kubernetes`."""
    meta = one.metadata
    return meta.namespace == "default" and (meta.labels or {}).get(LABEL_SERVICE_NAME) == "kubernetes"


def recall(state_dir: Path) -> list[str]:
    """The endpoints kept last; none if there are none, or the file is damaged, or others could write it."""
    try:
        with opened(state_dir, through_link=True) as folder:
            kept = msgspec.json.decode(folder.read(FILE_NAME, MAX_BYTES), type=_Remembered).endpoints
    except NotOurs as error:
        log.warning("%s", error)
        return []
    except (OSError, msgspec.MsgspecError, ValueError):
        return []
    usable = []
    for text in kept[:MAX_REMEMBERED]:
        try:
            parse_host_port(text)
        except UsageError:
            continue
        usable.append(text)
    return usable


def remember(state_dir: Path, endpoints: Sequence[str]) -> None:
    """Keep the endpoints; a reader sees the old file or the new one, never half of it.

    Raises:
        OSError: the state directory cannot be written.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=state_dir)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(_Remembered(list(endpoints))))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(state_dir / FILE_NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
