"""The table on the screen. Only lines that are seen are made, so 5,000 rows cost what 50 do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pyagent.view.render import printable
from pyagent.view.tables import Row
from pyagent.view.terminal.frame import Frame
from pyagent.view.terminal.layout import GAP, Placed, is_numeric, placed
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.view_kinds import Shown

GUTTER = 2
_QUIET = frozenset({"", "-", "0", "no"})
_ALARMS = (" ", "!", "X")
"""Trouble is told by a character as well as by colour."""


class RowTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of one frame, with a cursor that stays on its row as rows come, go and move."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "rows--header",
        "rows--sorted",
        "rows--cursor",
        "rows--first",
        "rows--quiet",
        "rows--warning",
        "rows--trouble",
        "rows--picture",
        "rows--even",
    }
    cursor: reactive[int] = reactive(0, repaint=False)

    class Moved(Message):
        """The cursor is on another row, or its row has changed."""

    class Entered(Message):
        """Somebody double-clicked a row."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks
        self._frame: Frame | None = None
        self._columns: Sequence[Shown] = ()
        self._rows: list[Row] = []
        self._right: list[bool] = []
        self._widths: list[int] = []
        self._placed: list[Placed] = []
        self._measured: tuple[object, ...] = ()
        self._held = False  # somebody chose the row: else the cursor stays on top as rows move
        self._styles: dict[tuple[str, ...], Style] = {}

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self._rows[self.cursor] if self.cursor < len(self._rows) else None

    @property
    def shown_headers(self) -> list[str]:
        """Of the columns that are wanted, whether there is room for them or not."""
        return [one.column.header for one in self._columns]

    def show(self, frame: Frame, row: Row | None = None, hidden: Collection[str] = ()) -> None:
        """Replace all rows; the cursor follows its row.

        Args:
            row: where the cursor is to be instead.
            hidden: fields of columns that are not wanted; the first column stays.
        """
        before = self._frame
        held = row or self.row
        same = before is not None and before.request[:2] == frame.request[:2]
        columns = [one for i, one in enumerate(frame.columns) if not i or one.column.field not in hidden]
        self._frame, self._columns, self._rows = frame, columns, frame.rows
        headers = tuple(one.column.header for one in columns)
        if not same or self._measured != (frame.request[:2], headers):
            self._measured = frame.request[:2], headers
            self._widths = [len(header) for header in headers]
            self._right = [False] * len(headers)
        self._right = [
            right or (one.draw is None and is_numeric(frame.rows, one.column.field))
            for one, right in zip(columns, self._right, strict=True)
        ]
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self._held = row is not None or (self._held and same)
        self._move_to(self._found(held) if self._held else 0, keep_in_view=not same)
        self.refresh()
        self.post_message(self.Moved())

    def _found(self, held: Row | None) -> int:
        """Where the row of the cursor is now; where it was if it is gone."""
        frame = self._frame
        fields = frame.view.table.identity if frame is not None else ()
        if held is not None and fields:
            wanted = [held.get(field) for field in fields]
            place = self.cursor
            if place < len(self._rows) and [self._rows[place].get(f) for f in fields] == wanted:
                return place
            for index, row in enumerate(self._rows):
                if row.get(fields[-1]) == wanted[-1] and [row.get(f) for f in fields] == wanted:
                    return index
        return self.cursor

    def move(self, rows: int) -> None:
        """Move the cursor down, or up if negative."""
        self._held = True
        self._move_to(self.cursor + rows)
        self.post_message(self.Moved())

    @property
    def page(self) -> int:
        return max(1, self.size.height - 2)

    def _move_to(self, place: int, keep_in_view: bool = True) -> None:
        self.cursor = max(0, min(place, len(self._rows) - 1))
        if keep_in_view or self._is_near():
            top = int(self.scroll_offset.y)
            height = max(1, self.size.height - 1)
            if self.cursor < top:
                self.scroll_to(y=self.cursor, animate=False, immediate=True)
            elif self.cursor >= top + height:
                self.scroll_to(y=self.cursor - height + 1, animate=False, immediate=True)
        self.refresh()

    def _is_near(self) -> bool:
        """Whether the cursor is within a page of what is seen: else somebody has scrolled away from it."""
        top, height = int(self.scroll_offset.y), self.size.height
        return top - height <= self.cursor <= top + 2 * height

    def on_resize(self, _event: events.Resize) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows) + 1)
        self._move_to(self.cursor)

    def on_click(self, event: events.Click) -> None:
        if event.y >= 1 and event.y - 1 + int(self.scroll_offset.y) < len(self._rows):
            self._held = True
            self._move_to(event.y - 1 + int(self.scroll_offset.y))
            self.post_message(self.Moved())
            if event.chain == 2:
                self.post_message(self.Entered())

    def notify_style_update(self) -> None:
        self._styles.clear()
        super().notify_style_update()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Widths are those of what was seen so far: measuring 5,000 rows would cost more than drawing."""
        top = int(self.scroll_offset.y)
        seen = self._rows[top : top + self.size.height]
        self._cells = [self._texts(one, seen) for one in self._columns]
        for index, texts in enumerate(self._cells):
            self._widths[index] = max([self._widths[index], *map(cell_len, texts)])
            if self._is_sorted(self._columns[index]):
                self._widths[index] = max(self._widths[index], len(self._columns[index].column.header) + 1)
        self._placed = placed(
            self._widths,
            [one.importance for one in self._columns],
            self.scrollable_content_region.width - GUTTER,
            [one.cut for one in self._columns],
            [one.least for one in self._columns],
        )
        return super().render_lines(crop)

    def _texts(self, one: Shown, rows: list[Row]) -> list[str]:
        draw = one.draw
        texts = [draw(row, self._marks) for row in rows] if draw is not None else one.column.texts(rows)
        return [printable(text) for text in texts]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self._style()
        if y == 0:
            return Strip(self._header()).adjust_cell_length(width, self._style("rows--header"))
        index = int(self.scroll_offset.y) + y - 1
        if index >= len(self._rows) or not self._placed:
            return Strip.blank(width, base)
        return Strip(self._line(index, y - 1)).adjust_cell_length(width, self._row_style(index))

    @property
    def _order(self) -> str:
        return self._frame.request.sort or self._frame.view.sort if self._frame is not None else ""

    def _is_sorted(self, one: Shown) -> bool:
        return self._order.removeprefix("-") == one.column.field

    def _header(self) -> list[Segment]:
        segments = [Segment(" " * GUTTER, self._style("rows--header"))]
        for column, width in self._placed:
            text, style = self._columns[column].column.header, "rows--header"
            if self._is_sorted(self._columns[column]):
                text += self._marks.down if self._order.startswith("-") else self._marks.up
                style = "rows--sorted"
            segments.append(Segment(self._fitted(text, width, self._right[column]), self._style(style)))
            segments.append(Segment(" " * GAP, self._style("rows--header")))
        return segments

    def _row_style(self, index: int) -> Style:
        if index == self.cursor:
            return self._style("rows--cursor")
        return self._style("rows--even") if index % 2 else self._style()

    def _line(self, index: int, seen: int) -> list[Segment]:
        row = self._rows[index]
        base = self._row_style(index)
        alarms = [one.column.alarm(row) if one.column.alarm else 0 for one in self._columns]
        worst = max(alarms, default=0)
        pointer = self._marks.then if index == self.cursor else " "
        segments = [Segment(pointer, base), Segment(_ALARMS[worst], base + self._alarm_style(worst))]
        for place, (column, width) in enumerate(self._placed):
            text = self._cells[column][seen] if seen < len(self._cells[column]) else ""
            style = base + self._cell_style(self._columns[column], text, alarms[column], place)
            segments.append(Segment(self._fitted(text, width, self._right[column]), style))
            segments.append(Segment(" " * GAP, base))
        return segments

    def _cell_style(self, one: Shown, text: str, alarm: int, place: int) -> Style:
        if alarm:
            return self._alarm_style(alarm)
        if place == 0:
            return self._plain("rows--first")
        if text in _QUIET:
            return self._plain("rows--quiet")
        is_picture = one.draw is not None and not one.plain
        return self._plain("rows--picture") if is_picture else Style.null()

    def _alarm_style(self, alarm: int) -> Style:
        return Style.null() if not alarm else self._plain(("", "rows--warning", "rows--trouble")[alarm])

    def _fitted(self, text: str, width: int, right: bool) -> str:
        if cell_len(text) > width:
            mark = self._marks.ellipsis
            return set_cell_size(text, max(0, width - len(mark))) + mark[:width]
        padding = " " * (width - cell_len(text))
        return padding + text if right else text + padding

    def _style(self, *names: str) -> Style:
        if names not in self._styles:
            self._styles[names] = self.get_component_rich_style(*names) if names else self.rich_style
        return self._styles[names]

    def _plain(self, name: str) -> Style:
        """Colour and weight without a background, for a row's own shows through."""
        key = ("plain", name)
        if key not in self._styles:
            found = self.get_component_rich_style(name, partial=True)
            self._styles[key] = Style(color=found.color, bold=found.bold, dim=found.dim)
        return self._styles[key]


def quick_sort(columns: Sequence[Shown], rows: Sequence[Row], letter: str, current: str) -> str:
    """What Shift and this letter sort by next: the columns that begin with it, each in both directions.

    Args:
        current: the field sorted by now, `-` before it for descending.

    Returns:
        As `current`; unchanged if no column begins with the letter.
    """
    turns: list[str] = []
    for one in columns:
        if one.column.header.upper().startswith(letter.upper()) and not one.only_drawn:
            field = one.column.field
            both = [field, f"-{field}"]
            turns += reversed(both) if is_numeric(rows, field) else both
    if not turns:
        return current
    return turns[(turns.index(current) + 1) % len(turns)] if current in turns else turns[0]
