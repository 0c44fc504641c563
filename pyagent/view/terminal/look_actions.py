"""What the keys do about how one looks: rate, pause, mouse, theme, help."""

from __future__ import annotations

from typing import Any

from pyagent.view.terminal.base import TopBase
from pyagent.view.terminal.frame import TABS
from pyagent.view.terminal.sampler import FASTEST, SLOWEST
from pyagent.view.terminal.screens import TextScreen, help_text
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.themes import CYCLE


class LookActions(TopBase):
    """Actions on the whole screen."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.paused = False
        self.mouse = settings.chosen.mouse

    def action_pause(self) -> None:
        self.paused = not self.paused
        self.sampler.pause(self.paused)
        self.tell()

    def action_refresh(self) -> None:
        self.sampler.refresh()

    def action_faster(self) -> None:
        self._look_every(self.interval / 2)

    def action_slower(self) -> None:
        self._look_every(self.interval * 2)

    def _look_every(self, interval: float) -> None:
        self.interval = min(max(interval, FASTEST), SLOWEST)
        self.sampler.every(self.interval)
        self.tell()

    def action_mouse(self) -> None:
        self.mouse = not self.mouse
        self.settings.chosen.mouse = self.mouse
        _switch_mouse(self._driver, self.mouse)
        self.notify("mouse on" if self.mouse else "mouse off: the terminal selects text")
        self.tell()
        self.remember()

    def action_theme(self) -> None:
        places = [i for i, name in enumerate(CYCLE) if name == self.theme]
        self.theme = CYCLE[(places[0] + 1) % len(CYCLE) if places else 0]
        self.settings.chosen.theme = self.theme
        self.notify(f"theme {self.theme}")
        self.remember()

    def action_leave(self) -> None:
        self.exit()

    def action_help(self) -> None:
        self.push_screen(TextScreen("kubesock top", help_text(TABS, self.marks)))


def _switch_mouse(driver: Any, on: bool) -> None:
    """Ask the terminal for mouse events, or not; a driver without a mouse (a test's) is left alone."""
    if not hasattr(driver, "_enable_mouse_support"):
        return
    if on:
        driver._mouse = True
        driver._enable_mouse_support()
    else:
        driver._disable_mouse_support()
        driver._mouse = False
