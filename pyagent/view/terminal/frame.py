"""From looks to what is shown: the rows of a view, filtered and sorted. No terminal in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pyagent.model.failures import UsageError
from pyagent.view.tables import Row, sorted_by
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.event_view import EVENTS_VIEW
from pyagent.view.terminal.node_views import HOOKS_VIEW, MAP_VIEW, MAPS_VIEW, SYNC_VIEW
from pyagent.view.terminal.row_filter import filtered
from pyagent.view.terminal.sample import Sample
from pyagent.view.terminal.service_views import BACKENDS_VIEW, CONNECTIONS_VIEW, SERVICES_VIEW
from pyagent.view.terminal.view_kinds import Request, Shown, View

TABS = (
    SERVICES_VIEW, BACKENDS_VIEW, CONNECTIONS_VIEW, EVENTS_VIEW, MAPS_VIEW, HOOKS_VIEW, SYNC_VIEW,
)  # fmt: skip
"""In the order of the keys 1, 2, ..."""

VIEWS: dict[str, View] = {view.key: view for view in (*TABS, MAP_VIEW)}


class Frame(NamedTuple):
    """What a screen shows.

    Attributes:
        columns: of the view, for these rows.
        rows: filtered and sorted.
        total: how many there are without the filter.
        notes: what the user should know of them.
        error: why there is no newer look; empty if there is none to be missed.
        pulse: new connections and refusals per second of the whole node; None before two looks.
    """

    request: Request
    sample: Sample
    columns: Sequence[Shown]
    rows: list[Row]
    total: int
    notes: tuple[str, ...] = ()
    error: str = ""
    pulse: tuple[float, float] | None = None

    @property
    def view(self) -> View:
        return VIEWS[self.request.view]


def frame(request: Request, sample: Sample, activity: Activity) -> Frame:
    """The frame of a request, from a look that brought what its view needs."""
    view = VIEWS[request.view]
    notes: list[str] = []
    try:
        rows, note = view.rows(sample, activity, request)
    except msgspec.ValidationError as error:
        rows, note = [], f"the agent's answer cannot be read ({error}); is it of this version?"
    columns = view.columns(request, rows)
    total = len(rows)
    matching = filtered(rows, [one.column for one in columns if not one.only_drawn], request.pattern)
    rows = matching.rows
    order = request.sort or view.sort
    if order:
        try:
            rows = sorted_by(rows, order, [shown.column for shown in columns])
        except UsageError:
            notes.append(f"no field {order.removeprefix('-')} to sort by here")
    notes += [text for text in (note, matching.note) if text]
    pulse = (sum(activity.ports.values()), sum(activity.refused.values())) if activity.known else None
    return Frame(request, sample, columns, rows, total, tuple(notes), pulse=pulse)
