"""The line where a filter or a command is typed."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

FILTER, COMMAND = "/", ":"


class Prompt(Horizontal):
    """Hidden until it is opened; Enter and Esc close it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", show=False)]

    class Typed(Message):
        """Something was typed; `done` with Enter."""

        def __init__(self, mark: str, text: str, done: bool) -> None:
            super().__init__()
            self.mark = mark
            self.text = text
            self.done = done

    class Cancelled(Message):
        """Esc."""

        def __init__(self, mark: str) -> None:
            super().__init__()
            self.mark = mark

    def __init__(self) -> None:
        super().__init__()
        self.mark = FILTER
        self.display = False

    @property
    def is_open(self) -> bool:
        return self.display

    def compose(self) -> ComposeResult:
        yield Label(self.mark)
        yield Input(compact=True)

    def open(self, mark: str, text: str = "") -> None:
        """Show it with a text to go on from."""
        self.mark = mark
        self.query_one(Label).update(mark)
        entry = self.query_one(Input)
        with self.prevent(Input.Changed):
            entry.value = text
        entry.cursor_position = len(text)
        self.display = True
        self.screen.set_focus(entry)  # now: keys that were pressed at once must not go elsewhere

    def action_cancel(self) -> None:
        self.display = False
        self.post_message(self.Cancelled(self.mark))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.is_open:
            self.post_message(self.Typed(self.mark, event.value, done=False))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.display = False
        self.post_message(self.Typed(self.mark, event.value, done=True))
