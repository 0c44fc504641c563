"""Whole lists, read once, as they are: for verbs that an administrator runs, not for the agent."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any
from urllib.parse import urlencode

import msgspec

from pyagent.cluster.access import Access, find_kubeconfig, load_credentials
from pyagent.cluster.addresses import Addresses
from pyagent.cluster.connection import Connection
from pyagent.model.failures import ClusterUnreachable, NoPermission

PAGE = 500
MAX_BYTES = 64 << 20
SECONDS = 60.0


class Reader:
    """Lists of one cluster."""

    def __init__(self, kubeconfig: str | None, api_server: str | None) -> None:
        """
        Args:
            kubeconfig: as of `kubesock run`.
            api_server: HOST:PORT, around the one that the credentials name.

        Raises:
            UsageError: there are no usable credentials.
        """
        access = Access(partial(load_credentials, find_kubeconfig(kubeconfig, os.environ)))
        self._connection = Connection(access, Addresses(api_server, None, time.monotonic))

    def list(self, path: str, **query: str) -> tuple[dict[str, Any], ...]:
        """All objects at a path, page by page; none where the API is absent.

        Raises:
            ClusterUnreachable: no usable answer. NoPermission: not with these rights.
        """
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            asked = {"limit": str(PAGE), **query, **({"continue": token} if token else {})}
            page = self._page(path, asked)
            found += page.get("items") or ()
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return tuple(found)

    def _page(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        answer = self._connection.get(f"{path}?{urlencode(query)}", SECONDS)
        try:
            body = bytes(answer.read_all(MAX_BYTES))
        finally:
            answer.close()
        if answer.status == 404:
            return {}
        if answer.status in (401, 403):
            raise NoPermission(
                f"{path}: the API server answers {answer.status}; use an administrator's --kubeconfig"
            )
        if answer.status != 200:
            raise ClusterUnreachable(f"{path}: the API server answers {answer.status}; try again")
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ClusterUnreachable(f"{path}: no usable answer: {error}") from None

    def close(self) -> None:
        self._connection.close()
