"""A support bundle: a compressed tar archive of texts, each without secrets."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import IO

import msgspec

from pyagent.model.failures import KubesockError
from pyagent.view.redacted import redacted

MEMBER_BYTES = 16 << 20
"""At most of one text: with 60,000 Services a dump is long, and its end tells least."""

CUT = "\n[cut here]\n"


class Bundle:
    """Collects; what cannot be collected is told in `errors.txt` instead, and the rest goes on."""

    def __init__(self, target: IO[bytes], folder: str, time: float) -> None:
        """
        Args:
            folder: everything in the archive lies below it.
            time: of the members, in seconds since the epoch.
        """
        self.errors: list[str] = []
        self._folder = folder
        self._time = time
        self._archive = tarfile.open(fileobj=target, mode="w:gz")  # noqa: SIM115  closed by close()

    def add(self, name: str, make: Callable[[], str]) -> None:
        """One text."""
        try:
            text = make()
        except (KubesockError, OSError) as error:
            self._failed(name, str(error))
            return
        except Exception as error:  # noqa: BLE001  a bundle is asked for where something is wrong
            self._failed(name, f"unexpected {type(error).__name__}: {error}")
            return
        self._write(name, text)

    def close(self) -> None:
        """Write what went wrong, and the archive's end."""
        self._write("errors.txt", "".join(f"{line}\n" for line in self.errors) or "none\n")
        self._archive.close()

    def _failed(self, name: str, error: str) -> None:
        self.errors.append(f"{name}: {redacted(error)}")

    def _write(self, name: str, text: str) -> None:
        data = redacted(text).encode("utf-8", "backslashreplace")
        if len(data) > MEMBER_BYTES:
            data = data[:MEMBER_BYTES] + CUT.encode()
        member = tarfile.TarInfo(f"{self._folder}/{name}")
        member.size, member.mtime, member.mode = len(data), int(self._time), 0o600
        self._archive.addfile(member, io.BytesIO(data))


def as_json(value: object) -> str:
    """A text that people can read too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n"
