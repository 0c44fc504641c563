"""What opens above the table: texts, the help, the list of columns to sort by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from pyagent.view.terminal.keys import KEYS, MOVEMENT
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.view_kinds import Shown, View

_CLOSE: list[BindingType] = [Binding("escape,q", "dismiss", "close", show=False)]


def text_width(columns: int) -> int:
    """Columns that a text has in a `TextScreen` on a terminal of this width (see `app.tcss`)."""
    return max(20, min(130, columns * 9 // 10) - 6)


class TextScreen(ModalScreen[None]):
    """A text that can be scrolled, with a title. Esc closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *_CLOSE,
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
        Binding("y", "copy", show=False),
    ]

    def __init__(self, title: str, text: Text, hint: str = "Esc closes, y copies") -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._hint = hint

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Text(self._title), classes="title")
            with VerticalScroll(can_focus=True):
                yield Static(self._text, id="text")
            yield Static(Text(self._hint), classes="hint")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    @property
    def text(self) -> str:
        """What it shows."""
        return self._text.plain

    def update(self, text: Text) -> None:
        """Show another text."""
        self._text = text
        self.query_one("#text", Static).update(text)

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._text.plain)
        self.app.notify("copied")


class SortScreen(ModalScreen[str | None]):
    """Asks for a column; Enter takes it, and turns the direction round if it was taken before."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,s", "dismiss(None)", show=False),
        Binding("j", "move(1)", show=False),
        Binding("k", "move(-1)", show=False),
        Binding("left,minus", "take(True)", show=False),
        Binding("right,plus", "take(False)", show=False),
    ]

    def __init__(
        self, columns: Sequence[Shown], current: str, descending: Sequence[bool], marks: Marks
    ) -> None:
        """
        Args:
            descending: for each column, whether greatest first is what one wants at first.
        """
        super().__init__()
        self._columns = [one for one in columns if not one.only_drawn]
        first = dict(zip((one.column.field for one in columns), descending, strict=True))
        self._first = [first[one.column.field] for one in self._columns]
        self._current = current
        self._marks = marks

    def compose(self) -> ComposeResult:
        with Vertical(classes="box narrow"):
            yield Static(Text("Sort by"), classes="title")
            yield OptionList(
                *[Option(self._line(one)) for one in self._columns], Option(Text("  usual order"))
            )
            yield Static(Text("Enter takes, again turns round, Esc closes"), classes="hint")

    def on_mount(self) -> None:
        options = self.query_one(OptionList)
        options.focus()
        fields = [one.column.field for one in self._columns]
        field = self._current.removeprefix("-")
        options.highlighted = fields.index(field) if field in fields else len(fields)

    def _line(self, one: Shown) -> Text:
        mark = " "
        if self._current.removeprefix("-") == one.column.field:
            mark = self._marks.down if self._current.startswith("-") else self._marks.up
        return Text(f"{mark} {one.column.header}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        place = event.option_index
        if place >= len(self._columns):
            self.dismiss("")
            return
        field = self._columns[place].column.field
        descending = self._first[place]
        if self._current.removeprefix("-") == field:
            descending = not self._current.startswith("-")
        self.dismiss(f"-{field}" if descending else field)

    def action_take(self, descending: bool) -> None:
        place = self.query_one(OptionList).highlighted
        if place is not None and place < len(self._columns):
            field = self._columns[place].column.field
            self.dismiss(f"-{field}" if descending else field)

    def action_move(self, rows: int) -> None:
        options = self.query_one(OptionList)
        (options.action_cursor_down if rows > 0 else options.action_cursor_up)()


class SmallScreen(ModalScreen[None]):
    """Instead of everything, while the terminal is too small."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,escape,ctrl+c", "app.quit", show=False)]

    def __init__(self, least: tuple[int, int]) -> None:
        super().__init__()
        self._least = least

    def compose(self) -> ComposeResult:
        yield Static(id="small")

    def on_mount(self) -> None:
        self.tell(self.app.size)

    def on_resize(self, event: events.Resize) -> None:
        self.tell(event.size)

    def tell(self, size: Size) -> None:
        width, height = size
        least = f"{self._least[0]}x{self._least[1]}"
        self.query_one("#small", Static).update(
            Text(f"terminal {width}x{height} is too small, {least} is the least; q quits")
        )


def help_text(views: Sequence[View], marks: Marks) -> Text:
    """Every key, and what the views are."""
    text = Text()
    for key in KEYS:
        text.append(f"  {key.shown:<14}", "bold")
        text.append(f"{key.help}\n")
    for shown, plain, about in MOVEMENT:
        text.append(f"  {shown if marks.utf8 else plain:<14}", "bold")
        text.append(f"{about}\n")
    text.append("\nViews\n", "bold")
    for number, view in enumerate(views, 1):
        text.append(f"  {number} {view.title:<12}", "bold")
        text.append(f"{view.about}\n")
    text.append("\nMarks\n", "bold")
    text.append("  !", "bold")
    text.append("  a row deserves attention   ")
    text.append("X", "bold")
    text.append("  trouble\n")
    return text


def fields_text(fields: dict[str, object]) -> Text:
    """All fields of a row, a line each."""
    width = max(map(len, fields), default=0)
    text = Text()
    for name, value in fields.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        text.append(f"  {name:<{width}}  ", "bold")
        text.append(f"{'-' if value is None or shown == '' else shown}\n")
    return text
