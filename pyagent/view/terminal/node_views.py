"""The node's own views: maps and what they hold, hooks, sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from pyagent.model.failures import UsageError
from pyagent.view.connection_table import age_text
from pyagent.view.map_dump import KIND, dump_rows, dump_table
from pyagent.view.map_table import MAPS, bytes_text, map_rows
from pyagent.view.tables import Column, Row, Table
from pyagent.view.terminal.activity import Activity
from pyagent.view.terminal.answers import Latency, Sync
from pyagent.view.terminal.marks import Marks
from pyagent.view.terminal.sample import Answer, Needs, Sample
from pyagent.view.terminal.view_kinds import Found, Request, Shown, View, fixed, rate_text

FILL_WIDTH = 14
ENTRY_LIMIT = 10_000
SLOW_SECONDS = 1.0
"""A change that takes longer than this until it is in the maps deserves a look."""


def _unanswered(what: str, answer: Answer) -> str:
    return f"{what}, and none answers: {answer.error}"


def _map_rows(sample: Sample, _activity: Activity, _request: Request) -> Found:
    return Found(map_rows(sample.live))


def _draw_fill(row: Row, marks: Marks) -> str:
    if row["fillPercent"] is None:
        return "-"
    return f"{marks.bar(row['fillPercent'], FILL_WIDTH)} {row['fillPercent']:5.1f}%"


def _map_detail(row: Row, marks: Marks) -> list[str]:
    fill = "no notion of fill" if row["entries"] is None else f"{row['entries']} of {row['capacity']} entries"
    full = f" {marks.dot} when full, the kernel makes room by itself" if row["evicts"] else ""
    sizes = f"key {row['keyBytes']}, value {row['valueBytes']} bytes"
    return [
        f"{row['name']} {marks.dot} {row['type']} {marks.dot} {sizes}",
        f"{fill}, {bytes_text(row['memoryBytes'])} of kernel memory{full}",
        "Enter: what it holds",
    ]


MAPS_VIEW = View(
    key="maps",
    title="Maps",
    about="the kernel's maps: how full they are, what they cost, what they hold",
    needs=Needs(frozenset(), facts=True),
    rows=_map_rows,
    columns=fixed(
        Shown(Column("MAP", "name")),
        Shown(Column("TYPE", "type"), 4),
        Shown(Column("ENTRIES", "entries"), 1),
        Shown(Column("CAPACITY", "capacity"), 2),
        Shown(MAPS.columns[4], draw=_draw_fill),
        Shown(MAPS.columns[5], 1),
        Shown(Column("KEY", "keyBytes"), 5),
        Shown(Column("VALUE", "valueBytes"), 5),
    ),
    table=MAPS,
    enter="map",
    subject=lambda row: str(row["name"]),
    detail=_map_detail,
)


def _entry_rows(sample: Sample, _activity: Activity, request: Request) -> Found:
    try:
        rows = dump_rows(sample.live, request.subject, request.raw, ENTRY_LIMIT)
    except UsageError as error:
        return Found([], str(error))
    held = next((facts.entries for facts in sample.live.maps if facts.name == request.subject), None)
    if len(rows) == ENTRY_LIMIT:
        return Found(rows, f"the first {ENTRY_LIMIT} of {held}; `kubesock maps {request.subject}` lists all")
    return Found(rows, "" if rows else f"{request.subject} holds nothing")


def _entry_columns(_request: Request, rows: Sequence[Row]) -> Sequence[Shown]:
    return [
        Shown(column, max(0, index - 1), cut=True)
        for index, column in enumerate(dump_table(list(rows)).columns)
    ]


MAP_VIEW = View(
    key="map",
    title="Map",
    about="what one map holds, decoded or as bytes",
    needs=Needs(frozenset(), facts=True),
    rows=_entry_rows,
    columns=_entry_columns,
    table=Table(KIND, (), (), lambda row: str(next(iter(row.values()), ""))),
    detail=lambda row, marks: [f" {marks.dot} ".join(f"{field} {value}" for field, value in row.items())],
)


def _hook_rows(sample: Sample, activity: Activity, _request: Request) -> Found:
    rows = []
    for hook in sample.hooks:
        status = hook.status
        average = activity.nanoseconds_per_run(hook)
        rows.append(
            {
                "hook": status.hook,
                "attached": status.attached,
                "effective": status.effective,
                "cgroup": status.cgroup,
                "program": status.program_id or None,
                "link": status.link_id or None,
                "runs": hook.runs,
                "runsPerSecond": activity.run_rates.get(status.program_id),
                "nanosecondsPerRun": None if average is None else round(average, 1),
            }
        )
    return Found(rows)


def _hook_detail(row: Row, marks: Marks) -> list[str]:
    attached = "attached" if row["attached"] else "not attached"
    runs = {True: "runs for the cgroup's sockets", False: "does not run for the cgroup's sockets", None: ""}
    return [
        f"{row['hook']} {marks.dot} {attached}, {runs[row['effective']]}",
        f"cgroup {row['cgroup'] or '-'}",
        "While this view is open the kernel measures every run, which makes each some nanoseconds slower.",
    ]


HOOKS_VIEW = View(
    key="hooks",
    title="Hooks",
    about="the programs: where they run, how often, for how long",
    needs=Needs(frozenset(), hooks=True),
    rows=_hook_rows,
    columns=fixed(
        Shown(Column("HOOK", "hook")),
        Shown(Column("ATTACHED", "attached", alarm=lambda row: 0 if row["attached"] else 2), 2),
        Shown(Column("EFFECTIVE", "effective", alarm=lambda row: 2 if row["effective"] is False else 0)),
        Shown(Column("RUNS", "runs"), 3),
        Shown(Column("RUNS/S", "runsPerSecond", lambda row: rate_text(row["runsPerSecond"])), 1),
        Shown(Column("NS/RUN", "nanosecondsPerRun", lambda row: rate_text(row["nanosecondsPerRun"])), 1),
        Shown(Column("CGROUP", "cgroup"), 4, cut=True),
        Shown(Column("PROGRAM", "program"), 5),
        Shown(Column("LINK", "link"), 6),
    ),
    table=Table("HookList", (), ("hook",), lambda row: str(row["hook"])),
    detail=_hook_detail,
)


def _sync_rows(sample: Sample, _activity: Activity, _request: Request) -> Found:
    if sample.answer.error:
        return Found([], _unanswered("the agent knows its sources", sample.answer))
    return Found(list(_sync_lines(msgspec.convert(dict(sample.answer.fields), Sync))))


def _sync_lines(sync: Sync) -> Iterator[Row]:
    state = "ready" if sync.ready else "not ready"
    detail = "; ".join(sync.not_ready_because) or ("" if sync.healthy else "not healthy")
    repairs = f"{sync.repairs} repairs of hooks and pins" if sync.repairs else ""
    yield _line(
        "agent", state, sync.started_seconds_ago, "; ".join(filter(None, (detail, repairs))), not sync.ready
    )
    plan = sync.last_plan
    parts = [
        f"{plan.writes} map writes, {plan.service_changes} Service and"
        f" {plan.endpoint_changes} EndpointSlice changes since the start",
        f"{plan.failures} failures" if plan.failures else "",
        f"changes wait for {plan.waiting_seconds:.1f} s" if plan.waiting_seconds else "",
        plan.error,
    ]
    done = plan.seconds_ago is not None
    state = "failed" if plan.error else "done" if done else "none yet"
    yield _line(
        "last plan", state, plan.seconds_ago, "; ".join(filter(None, parts)), bool(plan.error) or not done
    )
    yield from _latency_line(sync.latency)
    for source in sync.sources:
        parts = [
            f"resourceVersion {source.resource_version}" if source.resource_version else "",
            f"{source.disconnects} disconnects" if source.disconnects else "",
            source.error,
        ]
        yield _line(
            source.kind, source.state, source.age_seconds, "; ".join(filter(None, parts)), bool(source.error)
        )
    for problem in sync.problems:
        yield _line("problem", "skipped", None, problem, trouble=True)
    for name in sync.no_room:
        yield _line("no room", "waits", None, name, trouble=True)


def _latency_line(latency: Latency) -> Iterator[Row]:
    half, most = latency.half_within_seconds, latency.most_within_seconds
    if latency.changes and half is not None and most is not None:
        detail = (
            f"half of {latency.changes} changes were in the maps within {half * 1e3:g} ms,"
            f" 99 of 100 within {most * 1e3:g} ms"
        )
        yield _line("latency", "slow" if most > SLOW_SECONDS else "fine", None, detail, most > SLOW_SECONDS)


def _line(what: str, state: str, age: float | None, detail: str, trouble: bool) -> Row:
    return {"what": what, "state": state, "ageSeconds": age, "detail": detail, "trouble": trouble}


SYNC_VIEW = View(
    key="sync",
    title="Sync",
    about="where objects come from, how old they are, what went wrong",
    needs=Needs(frozenset(), page="/v1/sync"),
    rows=_sync_rows,
    columns=fixed(
        Shown(Column("WHAT", "what"), cut=True),
        Shown(Column("STATE", "state", alarm=lambda row: 2 if row["trouble"] else 0)),
        Shown(Column("AGE", "ageSeconds", lambda row: _age(row["ageSeconds"])), 1),
        Shown(Column("DETAIL", "detail"), cut=True),
    ),
    table=Table("SyncList", (), ("what", "detail"), lambda row: str(row["what"])),
    detail=lambda row, marks: [f"{row['what']} {marks.dot} {row['state']}", row["detail"]],
)


def _age(seconds: float | None) -> str:
    return "-" if seconds is None else age_text(seconds)
