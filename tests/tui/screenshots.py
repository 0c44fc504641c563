"""Pictures of `kubesock top` for the README, from the made-up node of the tests: `make screenshots`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from pyagent.view.terminal.remembered import Remembered
from pyagent.view.terminal.row_table import RowTable
from tests.tui.driving import driven
from tests.tui.made import MadeReader, explained_by_the_maps

SIZE = (120, 24)
LOOKS = 24
PICTURES: dict[str, tuple[str, ...]] = {
    "services": ("N",),
    "backends": ("slash", *"web", "enter", "enter"),
    "explain": ("slash", *"checkout", "enter", "e"),
    "connections": ("3", "down", "down"),
    "events": ("4",),
    "maps": ("5",),
    "map-contents": ("5", "enter"),
    "hooks": ("6",),
    "sync": ("7",),
}
"""Name of the file -> the keys that lead there."""


async def take(name: str, keys: tuple[str, ...], folder: Path) -> None:
    """One picture."""
    reader = MadeReader()
    async with driven(reader, SIZE, chosen=Remembered(), explain=explained_by_the_maps) as screen:
        await screen.look(LOOKS)
        await screen.press(*keys)
        await screen.look(2)
        screen.app.screen_stack[0].query_one(RowTable).refresh()
        await screen.pilot.pause()
        (folder / f"{name}.svg").write_text(screen.app.export_screenshot(title=f"kubesock top: {name}"))


def main(folder: Path) -> None:
    """All pictures into a folder."""
    os.environ["TZ"] = "UTC"  # the same pictures everywhere
    time.tzset()
    folder.mkdir(parents=True, exist_ok=True)
    for name, keys in PICTURES.items():
        asyncio.run(take(name, keys, folder))
        print(folder / f"{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
