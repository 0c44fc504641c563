"""Tables that read well in a terminal and are Markdown too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.ratios import Summary, judge

RATIO_COLUMNS = ("what", "median", "p10–p90", "95 % of the median", "reference", "budget", "met")


class Table(NamedTuple):
    """Columns of text; the first is left-aligned, the others right-aligned."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def rendered(table: Table) -> str:
    """The table with its title and notes, ending in a newline."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = [f"### {table.title}", "", _line(table.columns, widths)]
    lines.append("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|")
    lines += [_line(row, widths) for row in table.rows]
    if table.notes:
        lines += ["", *table.notes]
    return "\n".join(lines) + "\n"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "| " + " | ".join([row[0].ljust(widths[0]), *others]) + " |"


def ratio_row(what: str, found: Summary, reference: Summary, budget: float | None = None) -> tuple[str, ...]:
    """One row of RATIO_COLUMNS.

    Args:
        found: of ratios.
        reference: what they were divided by, in nanoseconds.
        budget: largest median that is fine; None: there is none.
    """
    return (
        what,
        f"{found.median:.3f}",
        f"{found.p10:.3f}–{found.p90:.3f}",
        f"{found.low:.3f}–{found.high:.3f}",
        duration(reference.median / 1e9),
        "" if budget is None else f"≤ {budget:.2f}",
        "" if budget is None else str(judge(found, budget)),
    )


def duration(seconds: float) -> str:
    """With three digits and the unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def size(count: float) -> str:
    """Bytes as kB (10³), MB, and from ten of them on as GB or TB."""
    for unit, least in (("TB", 1e13), ("GB", 1e10), ("MB", 1e6)):
        if count >= least:
            return f"{_digits(count / (least / 10 if least > 1e6 else least))} {unit}"
    return f"{_digits(count / 1e3)} kB"


def _digits(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
