"""What the keys do with rows: move, open, go back, sort, copy, explain."""

from __future__ import annotations

import time

from rich.text import Text
from textual import work
from textual.message import Message

from pyagent.model.failures import KubesockError
from pyagent.view.render import json_text
from pyagent.view.tables import Row
from pyagent.view.terminal.base import TopBase
from pyagent.view.terminal.column_screen import ColumnsScreen
from pyagent.view.terminal.frame import TABS, VIEWS
from pyagent.view.terminal.layout import is_numeric
from pyagent.view.terminal.row_table import RowTable, quick_sort
from pyagent.view.terminal.screens import SortScreen, TextScreen, fields_text, text_width
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.view_kinds import Request

COPY_TWICE_SECONDS = 2.0


class Explained(Message):
    """An explanation has been found."""

    def __init__(self, screen: TextScreen, text: Text) -> None:
        super().__init__()
        self.screen = screen
        self.text = text


class RowActions(TopBase):
    """Actions on the table and the row under the cursor."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._trail: list[tuple[Request, Row]] = []
        self._copied: tuple[float, object] = (0.0, None)

    def action_tab(self, place: int) -> None:
        self._trail.clear()
        self.ask(self.with_sort(Request(TABS[place].key)))

    def action_enter(self) -> None:
        view, row = VIEWS[self.request.view], self.row
        if row is None:
            return
        if not view.enter:
            self.push_screen(TextScreen(view.table.name(row), fields_text(row)))
            return
        self._trail.append((self.request, row))
        self.ask(self.with_sort(Request(view.enter, view.subject(row))))

    def action_go_back(self) -> None:
        if self.request.pattern:
            self.ask(self.request._replace(pattern=""))
        elif self._trail:
            request, row = self._trail.pop()
            self.ask(request)
            self.return_to = row

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
            self.push_screen(SortScreen(frame.columns, current, descending, self.marks), self._sort)

    def _sort(self, order: str | None) -> None:
        if order is None or order == self.request.sort:
            return
        if self.request.view != "map":  # each map has fields of its own
            self.settings.chosen.sort[self.request.view] = order
        self.ask(self.request._replace(sort=order))
        self.remember()

    def action_columns(self) -> None:
        frame = self.current
        if frame is None or len(frame.columns) < 2:
            return
        view = frame.request.view
        hidden = self.settings.chosen.hidden.get(view, ())
        self.push_screen(ColumnsScreen(frame.columns, hidden), lambda chosen: self._hide(view, chosen))

    def _hide(self, view: str, hidden: list[str] | None) -> None:
        if hidden is None:
            return
        self.settings.chosen.hidden[view] = hidden
        if self.current is not None:
            self.show_rows(self.current)
        self.remember()

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
        self._explain(screen, target, client, text_width(self.size.width))

    @work(thread=True, exclusive=True, group="explain")
    def _explain(self, screen: TextScreen, target: str, client: str, width: int) -> None:
        try:
            text = Text.from_ansi(self.settings.explain(target, client, width))
        except (KubesockError, OSError) as error:
            text = Text(str(error))
        self.post_message(Explained(screen, text))

    def on_explained(self, message: Explained) -> None:
        if message.screen in self.screen_stack:  # else it was closed meanwhile
            message.screen.update(message.text)

    def action_raw(self) -> None:
        if self.request.view == "map":
            self.ask(self.request._replace(raw=not self.request.raw, sort=""))
