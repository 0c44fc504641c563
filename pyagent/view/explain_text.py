"""An explanation as text: the answer first, then why, then the way that a dial takes."""

from __future__ import annotations

from pyagent.view import render
from pyagent.view.tables import Row

MAP_LEVEL = (
    "map level only: no agent answers, so why an endpoint is out is not known (is --state-dir the agent's?)"
)

_LABEL = 11


def explanation_text(row: Row, color: bool = False, width: int | None = None, utf8: bool = True) -> str:
    """One explanation, as `explain()` made it: the answer, why, the tree, and what else is worth knowing.

    Args:
        width: columns of the terminal; None: it is none.
        utf8: whether more than ASCII can be shown.
    """
    from pyagent.view.explain_tree import UNBOUNDED, explanation_tree

    lines = [f"{row['dialled']}{_client(row)}: {outcome_text(row)}", _line("because", row["because"])]
    after = [_line("problem", problem) for problem in row["problems"]]
    after += [_line("note", note) for note in row["notes"]]
    if row["level"] == "maps":
        after.append(_line("note", MAP_LEVEL))
    tree = explanation_tree(row, width or UNBOUNDED, color, utf8)
    before, behind = ("".join(f"{render.printable(line)}\n" for line in some) for some in (lines, after))
    return "\n".join(filter(None, (before, tree, behind)))


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


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}"
