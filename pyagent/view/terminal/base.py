"""What all parts of the screen share: what was asked for, what is shown, what the user has chosen."""

from __future__ import annotations

from textual.app import App
from textual.message import Message

from pyagent.view.tables import Row
from pyagent.view.terminal.frame import Frame
from pyagent.view.terminal.remembered import remember
from pyagent.view.terminal.row_table import RowTable
from pyagent.view.terminal.sampler import Sampler
from pyagent.view.terminal.settings import Settings
from pyagent.view.terminal.view_kinds import Request


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


class TopBase(App[None]):
    """
    Attributes:
        request: what was asked for last.
        shown: the newest frame; for a moment it may be that of an earlier request.
        interval: seconds between two looks.
        failure: why it ended, if not because somebody wanted it to.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.marks = settings.marks
        self.failure: BaseException | None = None
        self.shown: Frame | None = None
        self.interval = settings.interval
        self.request = self.with_sort(settings.first)
        self.return_to: Row | None = None
        self.sampler = Sampler(settings.reader, self._deliver, self._give_up, self.request, settings.interval)

    def _deliver(self, frame: Frame) -> None:
        self.post_message(FrameReady(frame))

    def _give_up(self, error: BaseException) -> None:
        self.post_message(SamplerFailed(error))

    def tell(self) -> None:
        """Bring the lines around the table up to date."""
        raise NotImplementedError

    def with_sort(self, request: Request) -> Request:
        """In the order that the user chose for the view, if the request wants none."""
        return request._replace(sort=request.sort or self.settings.chosen.sort.get(request.view, ""))

    def ask(self, request: Request) -> None:
        """From now on show this."""
        self.request = request
        self.return_to = None
        self.sampler.show(request)
        self.tell()

    @property
    def current(self) -> Frame | None:
        """What is shown, if it is of the view that was asked for: a moment ago it may have been another."""
        frame = self.shown
        return frame if frame is not None and frame.request[:2] == self.request[:2] else None

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self.screen_stack[0].query_one(RowTable).row if self.current is not None else None

    def show_rows(self, frame: Frame, row: Row | None = None) -> None:
        """Put the rows of a frame on the screen, in the columns that the user wants."""
        hidden = self.settings.chosen.hidden.get(frame.request.view, ())
        self.screen_stack[0].query_one(RowTable).show(frame, row, hidden)

    def remember(self) -> None:
        """Keep the user's choices."""
        if self.settings.state_file is not None:
            failed = remember(self.settings.state_file, self.settings.chosen)
            if failed:
                self.notify(f"not remembered: {failed}", severity="warning", markup=False)
