"""Ends the agent when its configuration file changes, as kube-proxy does: a supervisor starts it anew.

What is attached serves meanwhile, and the next start goes on with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from pyagent.model.failures import KubesockError

EVERY_SECONDS = 2.0


class ConfigurationChanged(KubesockError):
    """The file of `--config` is not what it was at the start."""


class ConfigWatch:
    """Compares the file's contents; a link that is pointed elsewhere, as ConfigMaps are updated, counts too.

    Args:
        changed: called once, from the watching thread.
    """

    def __init__(
        self, path: Path, changed: Callable[[ConfigurationChanged], None], every: float = EVERY_SECONDS
    ) -> None:
        self._path = path
        self._changed = changed
        self._every = every
        self._read = _contents(path)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="configuration", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            now = _contents(self._path)
            # An absent file is on its way: editors and ConfigMaps replace it.
            if now is not None and now != self._read:
                text = f"--config {self._path} changed: ending, so that the next start reads it"
                self._changed(ConfigurationChanged(text))
                return


def _contents(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
