"""Compiled instructions, kept from one start to the next: a warm start needs no compiler.

A file is used only if it was made from just this source text, with these definitions, by this BCC, for this
kernel release, and if its own digest is right; else it is as if it were not there. What it holds then still
passes the kernel's verifier like anything else.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)
MAX_BYTES = 4 << 20
MAX_FILES = 12
SUFFIX = ".programs.json"
UNFINISHED = "unfinished-"
ABANDONED_SECONDS = 600.0


class ProgramCache:
    """Files in one folder that only root can write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, identity: bytes, names: Sequence[str]) -> dict[str, bytes] | None:
        """Instructions by program name; None if they are not there or not to be trusted."""
        path = self._path(identity)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                log.warning("%s is not used: somebody else can write it", path)
                return None
            data = file.read(MAX_BYTES)
        return _decoded(data, names)

    def put(self, identity: bytes, compiled: dict[str, bytes]) -> None:
        """Keep instructions; older files beyond a few are removed. A failure costs a compilation later."""
        programs = {name: base64.b64encode(code).decode() for name, code in compiled.items()}
        body = json.dumps(programs, sort_keys=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=UNFINISHED, delete=False) as file:
                json.dump({"sha256": digest, "programs": body}, file)
            Path(file.name).replace(self._path(identity))
            self._forget_oldest()
        except OSError as error:
            log.info("compiled programs are not kept: %s", error)

    def _path(self, identity: bytes) -> Path:
        made_by = f"{_bcc_version()} {os.uname().release} {os.uname().machine}"
        key = hashlib.sha256(identity + made_by.encode()).hexdigest()[:32]
        return self._folder / f"{key}{SUFFIX}"

    def _forget_oldest(self) -> None:
        files = sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
        for path in (*files[:-MAX_FILES], *self._abandoned()):
            path.unlink(missing_ok=True)

    def _abandoned(self) -> list[Path]:
        """Half-written files of agents that were killed, or had no room."""
        before = time.time() - ABANDONED_SECONDS
        return [path for path in self._folder.glob(f"{UNFINISHED}*") if path.stat().st_mtime < before]


def _decoded(data: bytes, names: Sequence[str]) -> dict[str, bytes] | None:
    try:
        found = json.loads(data)
        body = found["programs"]
        if hashlib.sha256(body.encode()).hexdigest() != found["sha256"]:
            return None
        programs = json.loads(body)
        return {name: base64.b64decode(programs[name], validate=True) for name in names}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _bcc_version() -> str:
    """Without importing BCC: the state of its file on disk changes with every version."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return "none"
    status = Path(spec.origin).stat()
    return f"{spec.origin} {status.st_size} {status.st_mtime_ns}"
