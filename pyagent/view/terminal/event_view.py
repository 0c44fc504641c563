"""The view of what happens."""

from __future__ import annotations

from pyagent.model.outcome import Outcome
from pyagent.view.event_table import (
    CHANGE,
    EVENTS,
    NOTICE,
    SOCKET_ENDED,
    client_text,
    clock_text,
    event_alarm,
    process_text,
    what_text,
)
from pyagent.view.tables import Column, Row
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.sample import Needs, Sample
from pyagent.view.terminal.view_kinds import Found, Request, Shown, View, fixed


def _rows(sample: Sample, _activity: Activity, request: Request) -> Found:
    events = sample.events
    rows = list(events.rows)
    if request.subject:
        rows = [row for row in rows if request.subject in (row["service"], row["chosen"])]
    if events.error:
        return Found(rows, f"events are not heard: {events.error}")
    notes = []
    if not events.agent:
        notes.append("no agent is running: these are events of the hooks alone")
    if events.sample > 1:
        notes.append(f"there are very many: one in {events.sample} is shown")
    if events.total > len(events.rows):
        notes.append(f"the newest {len(events.rows)} of {events.total}; `kubesock events -f` shows each")
    if not rows:
        notes.append("nothing has happened since this view was opened")
    return Found(rows, "; ".join(notes))


def _event_text(row: Row) -> str:
    event: str = row["event"]
    return _SHORT.get(event, event.replace("_", " "))


_SHORT = {
    Outcome.TRANSLATED_BY_AFFINITY.label: "translated",
    Outcome.TRANSLATED_SAME_SOCKET.label: "translated",
    **{outcome.label: "refused" for outcome in Outcome if outcome.label.startswith("refused")},
    **{outcome.label: "passed" for outcome in Outcome if outcome.label.startswith("passed")},
}
"""One word each: why is told beside it."""


def _way(row: Row, arrow: str) -> str:
    """What was dialled and chosen, and why."""
    way = " ".join(filter(None, (row["dialled"], arrow if row["chosen"] else "", row["chosen"])))
    why = what_text(row)
    return f"{way}: {why}" if way and why != "-" else way or why


def _what(row: Row) -> str:
    return _way(row, "->")


def _draw_what(row: Row, marks: Marks) -> str:
    return _way(row, marks.arrow)


def _detail(row: Row, marks: Marks) -> list[str]:
    event: str = row["event"]
    if event in (CHANGE, NOTICE):
        about = f" {marks.dot} {row['service']} {row['family']}" if row["service"] else ""
        return [f"{row['time']} {marks.dot} {event}{about}", what_text(row)]
    way = f"{client_text(row)} {marks.arrow} {row['dialled']}"
    if row["chosen"]:
        way += f" {marks.arrow} {row['chosen']}"
    by = "" if event == SOCKET_ENDED else f" by {process_text(row)} in {row['hook']}"
    return [
        f"{row['time']} {marks.dot} {event}{by}",
        f"{way} {marks.dot} {row['service'] or 'no Service'}, {row['family']} {row['protocol']}",
        why if (why := what_text(row)) != "-" else "",
    ]


def _explains(row: Row) -> tuple[str, str]:
    if not row["dialled"]:
        return row["service"], ""
    netns: str = row["netns"]
    client = row["pod"] or ("host" if netns == "node" else "" if netns.isdigit() else netns)
    return f"{row['dialled']}/{row['protocol']}", client


EVENTS_VIEW = View(
    key="events",
    title="Events",
    about="what happens, newest first: translations, refusals and why, changes",
    needs=Needs(frozenset(), events=True),
    rows=_rows,
    columns=fixed(
        Shown(Column("TIME", "time", clock_text)),
        Shown(Column("EVENT", "event", _event_text, alarm=event_alarm)),
        Shown(Column("CLIENT", "pod", client_text), 1, cut=True),
        Shown(Column("PROCESS", "pid", process_text), 6, cut=True),
        Shown(Column("SERVICE", "service"), cut=True),
        Shown(Column("WHAT", "what", _what), cut=True, draw=_draw_what, plain=True, least=30),
    ),
    table=EVENTS,
    explains=_explains,
    detail=_detail,
)
