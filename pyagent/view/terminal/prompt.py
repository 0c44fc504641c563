"""The line where a filter or a command is typed.

Not Textual's Input: keys reach a widget through a queue of its own, so when /dns, Enter and e come at once,
the last one would still be typed. The app hands keys to this line in the order in which they come.
"""

from __future__ import annotations

from enum import Enum

from rich.text import Text
from textual import events
from textual.widgets import Static

from pyagent.view.render import printable

FILTER, COMMAND = "/", ":"
LONGEST = 200


class Typed(Enum):
    """What a key did."""

    TEXT = "the text is another"
    DONE = "Enter"
    CANCELLED = "Esc"
    NOTHING = "nothing"


class Prompt(Static):
    """Hidden until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = FILTER
        self.text = ""
        self.display = False

    @property
    def is_open(self) -> bool:
        return self.display

    def open(self, mark: str, text: str = "") -> None:
        """Show it with a text to go on from."""
        self.mark = mark
        self.display = True
        self._set(text)

    def key(self, event: events.Key) -> Typed:
        """Take a key in; Enter and Esc close the line."""
        if event.key in ("enter", "escape"):
            self.display = False
            return Typed.DONE if event.key == "enter" else Typed.CANCELLED
        text = self.text
        if event.key == "backspace":
            text = text[:-1]
        elif event.key == "ctrl+u":
            text = ""
        elif event.key == "ctrl+w":
            text = text.rstrip().rpartition(" ")[0]
        elif event.is_printable and event.character is not None:
            text += event.character
        return self._set(text)

    def paste(self, text: str) -> Typed:
        """Take a pasted text in, its first line."""
        return self._set(self.text + next(iter(text.splitlines()), ""))

    def _set(self, text: str) -> Typed:
        text = text[:LONGEST]
        changed, self.text = text != self.text, text
        shown = Text(self.mark, "bold")
        shown.append(printable(text), "not bold")
        self.update(shown.append(" ", "reverse"))
        return Typed.TEXT if changed else Typed.NOTHING
