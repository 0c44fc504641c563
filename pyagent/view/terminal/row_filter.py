"""What `/` and `--filter` take: the grammar of k9s, on the text of a row.

web         rows that match this regular expression, upper and lower case alike
!web        rows that do not
-f wbht     rows with these letters in this order
-l a=b,c!=d rows with these fields, as `-l` of the list verbs
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyagent.model.failures import UsageError
from pyagent.view.tables import Column, Row, parse_selectors, selected

Accepts = Callable[[str], object]


class Filtered(NamedTuple):
    """The rows that match. `note`: what is wrong with the pattern, empty if nothing."""

    rows: list[Row]
    note: str = ""


def filtered(rows: Sequence[Row], columns: Sequence[Column], pattern: str) -> Filtered:
    """Rows that a pattern accepts; all rows if it cannot be understood yet, as while it is typed."""
    text = pattern.strip()
    if not text or text == "!":
        return Filtered(list(rows))
    if text.startswith("-l"):
        try:
            return Filtered(selected(rows, parse_selectors(text[2:].strip())))
        except UsageError as error:
            return Filtered(list(rows), str(error))
    if text.startswith("-f"):
        return Filtered(_matching(rows, columns, _fuzzy(text[2:].strip())))
    inverse = text.startswith("!")
    text = text.removeprefix("!")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what a later Python might make of the pattern
            accepts: Accepts = re.compile(text, re.IGNORECASE).search
        note = ""
    except re.error as error:
        accepts = re.compile(re.escape(text), re.IGNORECASE).search
        note = f"{text!r} is no regular expression ({error}): looked for as it stands"
    return Filtered(_matching(rows, columns, accepts, inverse), note)


def _matching(
    rows: Sequence[Row], columns: Sequence[Column], accepts: Accepts, inverse: bool = False
) -> list[Row]:
    texts = zip(*(column.texts(rows) for column in columns), strict=True)
    return [row for row, cells in zip(rows, texts, strict=True) if bool(accepts(" ".join(cells))) != inverse]


def _fuzzy(letters: str) -> Accepts:
    return re.compile(".*?".join(map(re.escape, letters.replace(" ", ""))), re.IGNORECASE).search
