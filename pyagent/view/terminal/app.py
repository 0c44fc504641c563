"""`kubesock top`: the screen. It draws what the sampler hands it, and never looks at the kernel itself."""

from __future__ import annotations

import asyncio
import signal
import string
import time
from typing import Any, ClassVar

from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.widgets import Static

from pyagent.model.failures import KubesockError
from pyagent.view.render import json_text
from pyagent.view.tables import Row
from pyagent.view.terminal.frame import TABS, VIEWS, Frame
from pyagent.view.terminal.keys import KEYS
from pyagent.view.terminal.layout import is_numeric
from pyagent.view.terminal.lines import HeaderFacts, detail_text, header_text, keys_text, tabs_text
from pyagent.view.terminal.prompt import COMMAND, FILTER, Prompt, Typed
from pyagent.view.terminal.remembered import remember
from pyagent.view.terminal.row_table import RowTable, quick_sort
from pyagent.view.terminal.sampler import FASTEST, SLOWEST, Sampler
from pyagent.view.terminal.screens import SmallScreen, SortScreen, TextScreen, fields_text, help_text
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.themes import CYCLE, OWN
from pyagent.view.terminal.view_kinds import Request

LEAST = (40, 8)
"""Columns and lines of the smallest terminal that can be used."""

SHORT = 20
"""Below this height the lines about the row give way to rows."""

COPY_TWICE_SECONDS = 2.0


class FrameReady(Message):
    """The sampler has made a frame."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame


class SamplerFailed(Message):
    """The sampler has ended with what should never have happened."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class TopApp(App[None]):
    """The whole screen. `failure` is why it ended, if not because somebody wanted it to."""

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
        super().__init__()
        self.settings = settings
        self.failure: BaseException | None = None
        self.paused = False
        self.shown: Frame | None = None
        self._marks = settings.marks
        self.interval = settings.interval
        self._mouse = settings.chosen.mouse
        self._trail: list[tuple[Request, Row]] = []
        self._return_to: Row | None = None
        self.request = self._with_sort(settings.first)
        self._copied: tuple[float, object] = (0.0, None)
        self._sampler = Sampler(
            settings.reader,
            self._deliver,
            self._give_up,
            self.request,
            settings.interval,
        )
        for theme in OWN:
            self.register_theme(theme)
        self.theme = settings.chosen.theme if settings.chosen.theme in self.available_themes else CYCLE[0]

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="tabs")
        yield Static(id="note", classes="none")
        yield RowTable(self._marks)
        yield Static(id="detail")
        yield Prompt()
        yield Static(id="keys")

    def on_mount(self) -> None:
        self.screen.set_focus(self.query_one(RowTable))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Without it the process would die with the terminal in the wrong mode.
            loop.add_signal_handler(number, self.exit)
        self._sampler.start()
        self.set_interval(0.5, self._tell)
        self._fit(self.size)

    def on_unmount(self) -> None:
        self._sampler.stop()

    # What comes in; the first two from the sampler's thread

    def _deliver(self, frame: Frame) -> None:
        self.post_message(FrameReady(frame))

    def _give_up(self, error: BaseException) -> None:
        self.post_message(SamplerFailed(error))

    def on_frame_ready(self, message: FrameReady) -> None:
        frame = message.frame
        if frame.request != self.request or not self.screen_stack:
            return  # made before somebody wished for another, or for none any more
        self.shown = frame
        self.screen_stack[0].query_one(RowTable).show(frame, self._return_to)
        self._return_to = None
        self._tell()

    def on_sampler_failed(self, message: SamplerFailed) -> None:
        self.failure = message.error
        self.exit()

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size)
        self.call_after_refresh(self._tell)
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

    def _tell(self) -> None:
        if not self.screen_stack:
            return  # the end has come
        base = self.screen_stack[0]
        frame = self.shown
        width = self.size.width - 2
        facts = HeaderFacts(
            self.settings.node,
            self.settings.kernel,
            self.settings.clock(),
            self.paused,
            self.interval,
            self._sampler.wait,
        )
        base.query_one("#head", Static).update(header_text(frame, facts, self._marks, width))
        base.query_one("#tabs", Static).update(tabs_text(frame, self.request, self._marks, width))
        note = base.query_one("#note", Static)
        notes = [*frame.notes, *([frame.error] if frame.error else [])] if frame is not None else []
        note.set_class(not notes, "none")
        note.update(Text("\n".join(notes)))
        base.query_one("#keys", Static).update(keys_text(self.request, self._mouse, self.paused, width))

    def _tell_row(self) -> None:
        if not self.screen_stack:
            return
        base = self.screen_stack[0]
        row = self.row
        lines = VIEWS[self.request.view].detail(row, self._marks) if row is not None else []
        base.query_one("#detail", Static).update(detail_text(lines, self.size.width - 4, self._marks))

    # Where one goes

    def _with_sort(self, request: Request) -> Request:
        return request._replace(sort=request.sort or self.settings.chosen.sort.get(request.view, ""))

    def _ask(self, request: Request) -> None:
        self.request = request
        self._return_to = None
        self._sampler.show(request)
        self._tell()

    def action_tab(self, place: int) -> None:
        self._trail.clear()
        self._ask(self._with_sort(Request(TABS[place].key)))

    def action_enter(self) -> None:
        view, row = VIEWS[self.request.view], self.row
        if row is None:
            return
        if not view.enter:
            self.push_screen(TextScreen(view.table.name(row), fields_text(row)))
            return
        self._trail.append((self.request, row))
        self._ask(self._with_sort(Request(view.enter, view.subject(row))))

    def action_go_back(self) -> None:
        if self.request.pattern:
            self._ask(self.request._replace(pattern=""))
        elif self._trail:
            request, row = self._trail.pop()
            self._ask(request)
            self._return_to = row

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
            self._ask(self.request._replace(pattern="" if what is Typed.CANCELLED else prompt.text))
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

    # What is done with rows

    @property
    def current(self) -> Frame | None:
        """What is shown, if it is of the view that was asked for: a moment ago it may have been another."""
        frame = self.shown
        return frame if frame is not None and frame.request[:2] == self.request[:2] else None

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.screen_stack[0].query_one(RowTable).row if self.current is not None else None

    def action_move(self, rows: int) -> None:
        self.query_one(RowTable).move(rows)

    def action_page(self, pages: int) -> None:
        table = self.query_one(RowTable)
        table.move(pages * table.page)

    def action_quick_sort(self, letter: str) -> None:
        frame = self.current
        if frame is not None:
            order = self.request.sort or frame.view.sort
            self._sort(quick_sort(frame.columns, frame.rows, letter, order))

    def action_sort(self) -> None:
        frame = self.current
        if frame is not None and frame.columns:
            descending = [is_numeric(frame.rows, one.column.field) for one in frame.columns]
            current = self.request.sort or frame.view.sort
            self.push_screen(SortScreen(frame.columns, current, descending, self._marks), self._sort)

    def _sort(self, order: str | None) -> None:
        if order is None or order == self.request.sort:
            return
        if self.request.view != "map":  # each map has fields of its own
            self.settings.chosen.sort[self.request.view] = order
        self._ask(self.request._replace(sort=order))
        self._remember()

    def action_copy(self) -> None:
        row = self.row
        if row is None:
            return
        view = VIEWS[self.request.view]
        name = view.table.name(row)
        when, what = self._copied
        now = time.monotonic()
        again = what == name and now - when < COPY_TWICE_SECONDS
        self._copied = (0.0, None) if again else (now, name)
        self.copy_to_clipboard(json_text(row) if again else name)
        self.notify("copied the row as JSON" if again else f"copied {name}", markup=False)

    def action_explain(self) -> None:
        row, explains = self.row, VIEWS[self.request.view].explains
        target, client = explains(row) if row is not None and explains is not None else ("", "")
        if not target:
            self.notify(
                "nothing to explain here: choose a service, backend or connection", severity="warning"
            )
            return
        screen = TextScreen(f"explain {target}", Text("asking..."))
        self.push_screen(screen)
        self._explain(screen, target, client)

    @work(thread=True, exclusive=True, group="explain")
    def _explain(self, screen: TextScreen, target: str, client: str) -> None:
        try:
            text = Text.from_ansi(self.settings.explain(target, client))
        except (KubesockError, OSError) as error:
            text = Text(str(error))
        self.call_from_thread(self._show_explanation, screen, text)

    def _show_explanation(self, screen: TextScreen, text: Text) -> None:
        if screen in self.screen_stack:  # else it was closed meanwhile
            screen.update(text)

    def action_raw(self) -> None:
        if self.request.view == "map":
            self._ask(self.request._replace(raw=not self.request.raw, sort=""))

    # How one looks

    def action_pause(self) -> None:
        self.paused = not self.paused
        self._sampler.pause(self.paused)
        self._tell()

    def action_refresh(self) -> None:
        self._sampler.refresh()

    def action_faster(self) -> None:
        self._look_every(self.interval / 2)

    def action_slower(self) -> None:
        self._look_every(self.interval * 2)

    def _look_every(self, interval: float) -> None:
        self.interval = min(max(interval, FASTEST), SLOWEST)
        self._sampler.every(self.interval)
        self._tell()

    def action_mouse(self) -> None:
        self._mouse = not self._mouse
        self.settings.chosen.mouse = self._mouse
        _switch_mouse(self._driver, self._mouse)
        self.notify("mouse on" if self._mouse else "mouse off: the terminal selects text")
        self._tell()
        self._remember()

    def action_theme(self) -> None:
        places = [i for i, name in enumerate(CYCLE) if name == self.theme]
        self.theme = CYCLE[(places[0] + 1) % len(CYCLE) if places else 0]
        self.settings.chosen.theme = self.theme
        self.notify(f"theme {self.theme}")
        self._remember()

    def _remember(self) -> None:
        if self.settings.state_file is not None:
            failed = remember(self.settings.state_file, self.settings.chosen)
            if failed:
                self.notify(f"not remembered: {failed}", severity="warning", markup=False)

    def action_leave(self) -> None:
        self.exit()

    def action_help(self) -> None:
        self.push_screen(TextScreen("kubesock top", help_text(TABS, self._marks)))


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
