"""The kernel's own counts, read from the pins by `kubesock backends -o json` beside the running traffic."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyagent.demo.agent_process import items_of, kubesock
from pyagent.model.failures import KubesockError

PAUSE_SECONDS = 0.5  # between two readings: each is a process of its own
READ_SECONDS = 15.0

Key = tuple[str, str]  # namespace/name:port-name/protocol, ADDRESS:PORT of the backend


class Readings:
    """Keeps reading in a child process, so that the table never waits for it."""

    def __init__(self, bpffs: Path, folder: Path) -> None:
        self.command = kubesock("backends", f"--bpffs={bpffs}", "-A", "-o", "json")
        self.chosen: dict[Key, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        # Files, since a pipe that nobody empties would stop the child.
        self._out, self._err = folder / "reading.json", folder / "reading.err"
        self._due = 0.0

    def poll(self) -> None:
        """Take a finished reading, start the next one when it is time."""
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start()
        elif self._process.poll() is not None:
            self._finish()

    def read_now(self) -> dict[Key, int]:
        """A reading begun after this call, complete."""
        self.close()
        self._start()
        self._finish()
        return self.chosen

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> None:
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def _finish(self) -> None:
        assert self._process
        code = self._process.wait(READ_SECONDS)
        self._process = None
        self._due = time.monotonic() + PAUSE_SECONDS
        if code != 0:
            reason = self._err.read_text(errors="replace").strip()
            raise KubesockError(f"kubesock backends ended with {code}: {reason}")
        self.chosen = chosen_counts(items_of(self._out.read_text()))


def chosen_counts(items: list[Mapping[str, Any]] | list[dict[str, Any]]) -> dict[Key, int]:
    """Rows of `backends -o json` → how often each backend was chosen."""
    return {(str(item["service"]), str(item["backend"])): int(item["chosen"]) for item in items}
