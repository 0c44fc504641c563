"""`kubesock top`: the screen. It draws what the sampler hands it, and never looks at the kernel itself."""

from __future__ import annotations

import asyncio
import signal
import string
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.screen import Screen
from textual.widgets import Static

from pyagent.view.terminal.base import FrameReady, SamplerFailed
from pyagent.view.terminal.frame import TABS, VIEWS
from pyagent.view.terminal.keys import KEYS
from pyagent.view.terminal.lines import HeaderFacts, detail_text, header_text, keys_text, tabs_text
from pyagent.view.terminal.look_actions import LookActions
from pyagent.view.terminal.prompt import COMMAND, FILTER, Prompt, Typed
from pyagent.view.terminal.row_actions import RowActions
from pyagent.view.terminal.row_table import RowTable
from pyagent.view.terminal.screens import SmallScreen
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.themes import CYCLE, OWN

LEAST = (40, 8)
"""Columns and lines of the smallest terminal that can be used."""

SHORT = 20
"""Below this height the lines about the row give way to rows."""


class TopApp(RowActions, LookActions):
    """The whole screen."""

    TITLE = "kubesock top"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    NOTIFICATION_TIMEOUT = 2.5
    # All with priority: these are carried out in the order in which keys come. Others first go to the widget
    # that has the focus and come back, so of `/dns`, pasted or from a slow line, a part would get lost.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, show=False, priority=True)
        for key, action in (
            *((key.key, key.action) for key in KEYS),
            *((str(number), f"tab({number - 1})") for number in range(1, len(TABS) + 1)),
            *((letter, f"quick_sort('{letter}')") for letter in string.ascii_uppercase),
            ("down,j", "move(1)"),
            ("up,k", "move(-1)"),
            ("pagedown,ctrl+f", "page(1)"),
            ("pageup,ctrl+b", "page(-1)"),
            ("home,g", "move(-1000000000)"),
            ("end", "move(1000000000)"),
            ("ctrl+c", "quit"),
        )
    ]

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        for theme in OWN:
            self.register_theme(theme)
        self.theme = settings.chosen.theme if settings.chosen.theme in self.available_themes else CYCLE[0]

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="tabs")
        yield Static(id="note", classes="none")
        yield RowTable(self.marks)
        yield Static(id="detail")
        yield Prompt()
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.screen.set_focus(self.query_one(RowTable))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Without it the process would die with the terminal in the wrong mode.
            loop.add_signal_handler(number, self.exit)
        self.sampler.start()
        self.set_interval(0.5, self.tell)
        self._fit(self.size)

    def on_unmount(self) -> None:
        self.sampler.stop()

    # What comes in

    def on_frame_ready(self, message: FrameReady) -> None:
        frame = message.frame
        if frame.request != self.request or not self.screen_stack:
            return  # made before somebody wished for another, or for none any more
        self.shown = frame
        self.show_rows(frame, self.return_to)
        self.return_to = None
        self.tell()

    def on_sampler_failed(self, message: SamplerFailed) -> None:
        self.failure = message.error
        self.exit()

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size)
        self.call_after_refresh(self.tell)
        self.call_after_refresh(self._tell_row)

    def on_row_table_moved(self, _message: RowTable.Moved) -> None:
        self._tell_row()

    def on_row_table_entered(self, _message: RowTable.Entered) -> None:
        self.action_enter()

    def _handle_exception(self, error: Exception) -> None:
        """Textual would print a traceback; the caller of `run` shows one line instead."""
        if self.failure is None:
            self.failure = error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        self._close_messages_no_wait()

    # What is on the lines around the table

    def _fit(self, size: Size) -> None:
        """The app's own size is the old one while a resize is told."""
        width, height = size
        self.set_class(height < SHORT, "short")
        small = width < LEAST[0] or height < LEAST[1]
        if small and not isinstance(self.screen, SmallScreen):
            self.push_screen(SmallScreen(LEAST))
        elif not small and isinstance(self.screen, SmallScreen):
            self.pop_screen()

    def _base(self) -> Screen[None] | None:
        """The screen below all others; None when the end has come, before or after its parts are gone."""
        if not self.screen_stack or not self.screen_stack[0].query("#head"):
            return None
        return self.screen_stack[0]

    def tell(self) -> None:
        base = self._base()
        if base is None:
            return
        frame = self.shown
        width = self.size.width - 2
        facts = HeaderFacts(
            self.settings.node,
            self.settings.kernel,
            self.settings.clock(),
            self.paused,
            self.interval,
            self.sampler.wait,
        )
        _write(base.query_one("#head", Static), header_text(frame, facts, self.marks, width))
        _write(base.query_one("#tabs", Static), tabs_text(frame, self.request, self.marks, width))
        note = base.query_one("#note", Static)
        notes = [*frame.notes, *([frame.error] if frame.error else [])] if frame is not None else []
        note.set_class(not notes, "none")
        _write(note, Text("\n".join(notes)), layout=True)
        _write(base.query_one("#keys", Static), keys_text(self.request, self.mouse, self.paused, width))

    def _tell_row(self) -> None:
        base = self._base()
        if base is None:
            return
        row = self.row
        lines = VIEWS[self.request.view].detail(row, self.marks) if row is not None else []
        _write(base.query_one("#detail", Static), detail_text(lines, self.size.width - 4, self.marks))

    # What is typed

    def action_command(self) -> None:
        self.query_one(Prompt).open(COMMAND)

    def action_filter(self) -> None:
        self.query_one(Prompt).open(FILTER, self.request.pattern)

    async def on_event(self, event: events.Event) -> None:
        """Keys are the open prompt's, before anybody else sees them."""
        prompts = self.screen.query(Prompt) if self.screen_stack else None
        prompt = prompts.first() if prompts else None
        if prompt is None or not prompt.is_open or not isinstance(event, events.Key | events.Paste):
            await super().on_event(event)
        elif isinstance(event, events.Paste):
            self._typed(prompt, prompt.paste(event.text))
        elif event.key == "ctrl+c":
            self.exit()
        else:
            self._typed(prompt, prompt.key(event))

    def _typed(self, prompt: Prompt, what: Typed) -> None:
        if prompt.mark == FILTER:
            self.ask(self.request._replace(pattern="" if what is Typed.CANCELLED else prompt.text))
        elif what is Typed.DONE:
            self._command(prompt.text.strip().lower())

    def _command(self, wanted: str) -> None:
        places = [i for i, view in enumerate(TABS) if view.key.startswith(wanted)]
        if wanted in ("q", "quit"):
            self.exit()
        elif places and wanted:
            self.action_tab(places[0])
        elif wanted:
            views = ", ".join(view.key for view in TABS)
            self.notify(f"no view {wanted}; there are {views}", severity="warning", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """The keys of the main screen are nobody's while another is open above it."""
        return action == "quit" or bool(self.screen.query(Prompt))  # there is none on a screen above


def _write(line: Static, text: Text, layout: bool = False) -> None:
    """Drawing what has not changed, and arranging widgets whose size is fixed, cost more than the rows."""
    if line.content != text:
        line.update(text, layout=layout)
