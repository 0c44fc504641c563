"""What the screen remembers from one time to the next: in $XDG_STATE_HOME/kubesock/top.json."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec


class Remembered(msgspec.Struct):
    """Choices of the user. `sort` and `hidden`, fields of columns, are by view."""

    theme: str = "kubesock"
    sort: dict[str, str] = {}
    hidden: dict[str, list[str]] = {}
    mouse: bool = True


def state_path(environ: Mapping[str, str]) -> Path:
    """Where it is kept (XDG Base Directory Specification; relative paths do not count)."""
    home = Path(environ.get("XDG_STATE_HOME", ""))
    base = home if home.is_absolute() else Path(environ.get("HOME") or "/root") / ".local" / "state"
    return base / "kubesock" / "top.json"


def remembered(path: Path) -> Remembered:
    """What was kept; the defaults where there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except (OSError, msgspec.MsgspecError):
        return Remembered()


def remember(path: Path, what: Remembered) -> str:
    """Keep it; why not, or empty."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, delete=False) as file:
            file.write(msgspec.json.encode(what))
        os.replace(file.name, path)  # noqa: PTH105  one step, from a name that is a string
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
