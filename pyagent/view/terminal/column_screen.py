"""The list of columns to show or to leave out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from pyagent.view.terminal.view_kinds import Shown


class ColumnsScreen(ModalScreen[list[str]]):
    """Enter turns a column on or off; closing hands back the fields of those that are off."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,c", "done", show=False),
        Binding("space", "turn", show=False),
        Binding("j", "move(1)", show=False),
        Binding("k", "move(-1)", show=False),
    ]

    def __init__(self, columns: Sequence[Shown], hidden: Collection[str]) -> None:
        """
        Args:
            columns: of the view; the first is always shown and not listed.
        """
        super().__init__()
        self._columns = [one.column for one in columns[1:]]
        # also fields that are not among these columns now: they are not this list's to forget
        self._hidden = list(hidden)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box narrow"):
            yield Static(Text("Columns"), classes="title")
            yield OptionList(*[Option(self._line(place)) for place in range(len(self._columns))])
            yield Static(Text("Enter turns one on or off, Esc closes"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def _line(self, place: int) -> Text:
        column = self._columns[place]
        return Text(f"[{' ' if column.field in self._hidden else 'x'}] {column.header}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        field = self._columns[event.option_index].field
        if field in self._hidden:
            self._hidden.remove(field)
        else:
            self._hidden.append(field)
        event.option_list.replace_option_prompt_at_index(event.option_index, self._line(event.option_index))

    def action_turn(self) -> None:
        self.query_one(OptionList).action_select()

    def action_move(self, rows: int) -> None:
        options = self.query_one(OptionList)
        (options.action_cursor_down if rows > 0 else options.action_cursor_up)()

    def action_done(self) -> None:
        self.dismiss(self._hidden)
