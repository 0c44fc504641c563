"""What a demo shows: a live table on a terminal, the same as lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

REMEMBERED = 8  # messages below the live table, if the terminal has room for them
FRAME_LINES = 5  # the title, the table's head, room for the prompt


class BackendCell(NamedTuple):
    """One backend of a row. Counts are since the demo's start."""

    pod: str
    endpoint: str
    answers: int  # that clients got from it
    chosen: int | None  # times the kernel chose it; None: not read yet, or it is gone
    state: str  # serving, terminating, gone


class Row(NamedTuple):
    """One Service port at one of its addresses."""

    service: str
    dialled: str
    protocol: str
    answers: int
    refused: int
    backends: tuple[BackendCell, ...]


class Screen:
    """Prints lines. On a terminal use `LiveScreen`."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def step(self, title: str) -> None:
        """A new part of the story."""
        self.console.print(Text(f"== {title}", style="bold"), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        self.console.print(Text(f"   {text}", style=style), soft_wrap=True)

    def fault(self, text: str) -> None:
        """Something is wrong; also counted by the caller."""
        self.console.print(Text(f"WRONG {text}", style="bold red"), soft_wrap=True)

    def refresh(self, rows: Sequence[Row]) -> None:
        """New counts; called several times a second. Lines show them at the end of a step only."""

    def summary(self, rows: Iterable[Row]) -> None:
        """The state at the end of a step."""
        for row in rows:
            self.console.print(_line(row), soft_wrap=True)


class LiveScreen(Screen):
    """A table that changes in place, the latest messages below it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._title = "kubesock demo"
        self._messages: list[Text] = []
        self._rows: Sequence[Row] = ()
        # No refresh thread: the demo forks, and a fork must not find another thread's locks held.
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def step(self, title: str) -> None:
        self._title = title
        self._draw()

    def say(self, text: str, style: str = "") -> None:
        self._remember(Text(text, style=style))

    def fault(self, text: str) -> None:
        self._remember(Text(f"WRONG {text}", style="bold red"))

    def refresh(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._draw()

    def summary(self, rows: Iterable[Row]) -> None:
        """The table shows it already."""

    def _remember(self, message: Text) -> None:
        self._messages = [*self._messages[1 - REMEMBERED :], message]
        self._draw()

    def _draw(self) -> None:
        room = max(1, self.console.height - len(self._rows) - FRAME_LINES)
        messages = self._messages[-room:]
        self._live.update(Group(Rule(self._title), _table(self._rows), *messages), refresh=True)


def short(pod: str) -> str:
    """A pod's name as the table has room for: its last part."""
    return pod.rpartition("-")[2]


def _line(row: Row) -> Text:
    line = Text(f"   {row.service:<28} {row.protocol} {row.dialled:<22} {row.answers:>5} answers")
    if row.refused:
        line.append(f", {row.refused} refused", style="yellow")
    line.append("  ")
    line.append_text(_cells(row.backends))
    return line


def _table(rows: Sequence[Row]) -> Table:
    table = Table(expand=True, show_edge=False, pad_edge=False)
    for column in ("SERVICE", "ADDRESS"):
        table.add_column(column, no_wrap=True)
    for column in ("ANSWERS", "REFUSED"):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("BACKENDS: pod, times the kernel chose it", ratio=1)
    for row in rows:
        table.add_row(  # Text, since in plain strings rich takes [fd44::1] for markup
            Text(row.service),
            Text(f"{row.protocol} {row.dialled}"),
            Text(str(row.answers)),
            Text(str(row.refused), style="yellow" if row.refused else "dim"),
            _cells(row.backends),
        )
    return table


def _cells(backends: Sequence[BackendCell]) -> Text:
    if not backends:
        return Text("no endpoints: refused", style="yellow")
    styles = {"serving": "green", "terminating": "yellow", "gone": "dim strike"}
    text = Text()
    for cell in backends:
        text.append(short(cell.pod), style=styles[cell.state])
        text.append(f" {cell.answers if cell.chosen is None else cell.chosen}  ")
    return text
