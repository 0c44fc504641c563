"""A real terminal, by tmux."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 15.0


def until(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Terminal:
    """A real terminal in tmux that runs one command, then tells how it ended."""

    def __init__(self, folder: Path, command: Sequence[str], size: tuple[int, int] = (120, 30)) -> None:
        self._socket = folder / "tmux"
        self._ended = folder / "ended"
        self._modes = folder / "modes"
        script = folder / "run.sh"
        # tmux gives a new terminal its size a moment after the command may have started.
        sized = f'[ "$(stty size)" = "{size[1]} {size[0]}" ]'
        script.write_text(
            f"for i in $(seq 100); do {sized} && break; sleep 0.05; done\n"
            f"stty -a >{self._modes}.before\n{shlex.join(command)}\necho $? >{self._ended}.part\n"
            f"stty -a >{self._modes}.after\nmv {self._ended}.part {self._ended}\nexec sleep 600\n"
        )
        width, height = map(str, size)
        # A test runner may have said how wide it is itself; programs believe that before the terminal.
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        environment = {**inherited, "XDG_STATE_HOME": str(folder), "LC_ALL": "C.UTF-8"}
        self._tmux(
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            width,
            "-y",
            height,
            "sh",
            str(script),
            env=environment,
        )

    def _tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=env).stdout

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    def shows(self, text: str) -> None:
        """Wait until the text is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def exit_code(self) -> int:
        until(self._ended.exists)
        return int(self._ended.read_text())

    @property
    def is_restored(self) -> bool:
        """The modes of the line are what they were, and the screen is the one from before."""
        modes = [Path(f"{self._modes}.{when}").read_text() for when in ("before", "after")]
        alternate = self._tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}")
        return modes[0] == modes[1] and alternate.split() == ["0", "0", "1"]

    def process(self) -> int:
        """The process that the script runs now."""
        shell = int(self._tmux("display-message", "-p", "#{pane_pid}"))
        return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def close(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self._tmux("kill-server")
