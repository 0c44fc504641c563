"""Compiled instructions, kept from one start to the next: a warm start needs no compiler.

A file is used only if it was made from just this source text, with these definitions, by this BCC, for this
kernel release, and if its own digest is right; else it is as if it were not there. What it holds then still
passes the kernel's verifier like anything else.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pyagent.own_folder import NotOurs, OwnFolder, opened

log = logging.getLogger(__name__)
MAX_BYTES = 4 << 20
MAX_FILES = 12
SUFFIX = ".programs.json"
UNFINISHED = "unfinished-"
ABANDONED_SECONDS = 600.0


class ProgramCache:
    """Files in one folder that only root can write; no link is followed, neither to it nor in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, identity: bytes, names: Sequence[str]) -> dict[str, bytes] | None:
        """Instructions by program name; None if they are not there or not to be trusted."""
        try:
            with opened(self._folder) as folder:
                data = folder.read(_file_name(identity), MAX_BYTES)
        except NotOurs as error:
            log.warning("%s", error)
            return None
        except OSError:
            return None
        return _decoded(data, names)

    def put(self, identity: bytes, compiled: dict[str, bytes]) -> None:
        """Keep instructions; older files beyond a few are removed. A failure costs a compilation later."""
        programs = {name: base64.b64encode(code).decode() for name, code in compiled.items()}
        body = json.dumps(programs, sort_keys=True)
        document = {"sha256": hashlib.sha256(body.encode()).hexdigest(), "programs": body}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with opened(self._folder) as folder:
                folder.write(_file_name(identity), json.dumps(document).encode(), UNFINISHED)
                with contextlib.suppress(FileNotFoundError):  # another agent tidies up too
                    _forget_oldest(folder)
        except (NotOurs, OSError) as error:
            log.info("compiled programs are not kept: %s", error)


def is_kept_program(name: str) -> bool:
    """Whether a file of this name in the folder is ours."""
    return name.endswith(SUFFIX) or name.startswith(UNFINISHED)


def _file_name(identity: bytes) -> str:
    made_by = f"{_bcc_version()} {os.uname().release} {os.uname().machine}"
    return f"{hashlib.sha256(identity + made_by.encode()).hexdigest()[:32]}{SUFFIX}"


def _forget_oldest(folder: OwnFolder) -> None:
    """Also half-written files of agents that were killed, or had no room."""
    written = {name: folder.status(name).st_mtime for name in folder.names() if is_kept_program(name)}
    whole = sorted((name for name in written if name.endswith(SUFFIX)), key=written.__getitem__)
    before = time.time() - ABANDONED_SECONDS
    abandoned = [name for name in written if name.startswith(UNFINISHED) and written[name] < before]
    for name in (*whole[:-MAX_FILES], *abandoned):
        folder.remove(name)


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
