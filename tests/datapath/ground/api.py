"""The test API server as a process of its own, as an agent sees a cluster."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


class ApiProcess:
    """`tests.fakes.api_server` on 127.0.0.1; `kubeconfig` leads there. Commands as in its module."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.api_server", f"--dir={folder}", f"--port={port}"],
            cwd=Path(__file__).resolve().parents[3],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.kubeconfig = Path(self._process.stdout.readline().strip())
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._token = config["users"][0]["user"]["token"]
        self._host, _, given = cluster["server"].removeprefix("https://").partition(":")
        self.port = int(given)
        self._context = ssl.create_default_context(cafile=cluster["certificate-authority"])

    def put(self, *objects: dict[str, Any]) -> None:
        self.do("put", {"items": list(objects)})

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.do("delete", {"kind": kind, "namespace": namespace, "name": name})

    def fault(self, action: str, **how: Any) -> None:
        self.do("fault", {"action": action, **how})

    def cut(self) -> None:
        """Reset every connection, the one that asks for it too."""
        with contextlib.suppress(http.client.RemoteDisconnected, ConnectionResetError):
            self.do("cut")

    def do(self, command: str, body: dict[str, Any] | None = None) -> None:
        connection = http.client.HTTPSConnection(self._host, self.port, timeout=10, context=self._context)
        try:
            headers = {"Authorization": f"Bearer {self._token}"}
            connection.request("POST", f"/_test/{command}", json.dumps(body or {}), headers)
            response = connection.getresponse()
            assert response.status == 200, response.read()
        finally:
            connection.close()

    def stop(self) -> None:
        """From now on connections are refused."""
        self._process.terminate()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
