"""An explanation as text: the answer first, then what led to it, then every endpoint."""

from __future__ import annotations

from pyagent.view import render
from pyagent.view.tables import Column, Row

MAP_LEVEL = (
    "map level only: no agent answers, so why an endpoint is out is not known (is --state-dir the agent's?)"
)

BACKENDS = (
    Column("BACKEND", "backend"),
    Column("CHANCE", "probability", lambda row: f"{100 * row['probability']:.1f}%"),
    Column("STATE", "state", alarm=lambda row: 0 if row["state"] == "ready" else 1),
    Column("NODE", "node"),
    Column("ZONE", "zone"),
    Column("POD", "pod"),
)
LEFT_OUT = (
    Column("NOT CHOSEN", "endpoint"),
    Column("WHY", "why"),
    Column("NODE", "node"),
    Column("ZONE", "zone"),
    Column("POD", "pod"),
    Column("SLICE", "slice"),
)
_LABEL = 11


def explanation_text(row: Row, color: bool = False) -> str:
    """The lines of one explanation, as `explain()` made it."""
    lines = [f"{row['dialled']}{_client(row)}: {outcome_text(row)}", f"{_line('because', row['because'])}"]
    service, frontend, held = row["service"], row["frontend"], row["set"]
    if service is not None:
        affinity = service["affinitySeconds"]
        kept = f", session affinity {affinity} s" if affinity else ""
        kind = f"{service['type']}, {service['family']}, policy {service['policy']}{kept}"
        lines.append(_line("service", f"{service['service']} ({kind})"))
    if frontend is not None:
        lines.append(_line("frontend", f"{frontend['kind']} {frontend['frontend']}"))
    if row["rule"] is not None:
        lines.append(_line("rule", row["rule"]))
    if held is not None:
        lines.append(_line("set", f"{held['view']}, {_count(held['backends'], 'backend')}, id {held['id']}"))
    if row["sourceRanges"] is not None:
        lines.append(_line("ranges", ", ".join(row["sourceRanges"]["ranges"]) or "none"))
    if row["affinity"] is not None:
        lines.append(_line("affinity", _affinity(row["affinity"])))
    lines += [_line("problem", problem) for problem in row["problems"]]
    lines += [_line("note", note) for note in row["notes"]]
    if row["level"] == "maps":
        lines.append(_line("note", MAP_LEVEL))
    text = "".join(f"{render.printable(line)}\n" for line in lines)
    tables = [(BACKENDS, row["backends"]), (LEFT_OUT, [one for one in row["endpoints"] if not one["in"]])]
    for columns, rows in tables:
        if rows:
            text += "\n" + render.table_text(columns, rows, color=color)[0]
    return text


def outcome_text(row: Row) -> str:
    """What the application sees, in a few words."""
    if row["errno"] is not None:
        return f"refused at once with {row['errno']}"
    if row["outcome"].startswith("translated"):
        reachable = [backend for backend in row["backends"] if backend["probability"]]
        one = len(reachable) == 1
        return f"goes to {reachable[0]['backend'] if one else f'one of {len(reachable)} backends'}"
    return "not translated"


def _client(row: Row) -> str:
    client = row["from"]
    if not client["name"]:
        return ""
    cookie = client["netnsCookie"]
    where = "the node's network namespace" if client["inNodeNamespace"] else f"network namespace {cookie}"
    return f" from {client['name']} ({where})" if cookie is not None else f" from {client['name']}"


def _affinity(affinity: Row) -> str:
    backend = affinity["backend"] or "a backend that is gone"
    return f"{backend}, {affinity['state']}, {affinity['remainingSeconds']} s left"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}"
