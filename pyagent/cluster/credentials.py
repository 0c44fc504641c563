"""Kubeconfig or in-cluster credentials, read by the official Kubernetes client in a short-lived child.

The client costs 30 MB of imports (pydantic, requests, OAuth), and none of it is needed once the credentials
are known; exec plugins may hang, and a child can be killed. It prints one JSON object and is gone, together
with the temporary files into which the client writes keys. Run as a script: it imports nothing of ours.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any


def read_credentials(kubeconfig: str) -> dict[str, Any]:
    """What a connection needs, from a kubeconfig file, or from the pod's service account.

    Args:
        kubeconfig: path of the file; "" for the service account.

    Returns:
        The fields of `connection.Credentials`.

    Raises:
        Exception: whatever the client raises; it documents nothing narrower.
    """
    from kubernetes import config
    from kubernetes.client import Configuration
    from kubernetes.client.rest import should_bypass_proxies
    from kubernetes.config import incluster_config

    configuration = Configuration()
    token_file = ""
    if kubeconfig:
        # Exec plugins and OIDC refreshes report their failures to the log only.
        failures = _LogLines()
        logging.getLogger().addHandler(failures)
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
        if failures.lines and not configuration.api_key:
            raise RuntimeError("; ".join(failures.lines))
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        token_file = incluster_config.SERVICE_TOKEN_FILENAME
    bearer = configuration.auth_settings().get("BearerToken")
    proxy = configuration.proxy or ""
    if proxy and should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
        proxy = ""
    return {
        "server": configuration.host,
        "authorization": str(bearer["value"] or "").strip() if bearer else "",
        "ca": _text(configuration.ssl_ca_cert),
        "verify": configuration.verify_ssl,
        "server_name": configuration.tls_server_name or "",
        "client_certificate": _text(configuration.cert_file),
        "client_key": _text(configuration.key_file),
        "proxy": proxy,
        "token_file": token_file,
        "in_cluster": not kubeconfig,
    }


class _LogLines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _text(path: str | None) -> str:
    return Path(path).read_text() if path else ""


def main() -> None:
    """Print the credentials of `argv[1]`, or `{"error": …}`: the parent makes one line of it."""
    try:
        answer = read_credentials(sys.argv[1])
    except Exception as error:  # noqa: BLE001  the client raises KeyError, TypeError, YAML errors as they come
        answer = {"error": f"{error}" or type(error).__name__, "type": type(error).__name__}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
