"""The keys: one table for what they do, the line at the bottom, and the help."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """A key of the main screen.

    Attributes:
        key: as Textual names it; several by commas.
        shown: as the user sees it.
        action: of the app.
        label: in the bottom line; empty: not there.
        help: in the help.
    """

    key: str
    shown: str
    action: str
    label: str
    help: str


KEYS = (
    Key(
        "enter", "Enter", "enter", "open", "look into the row: its backends, connections, contents or fields"
    ),
    Key("escape", "Esc", "go_back", "back", "go back; with a filter set: take it away"),
    Key("slash", "/", "filter", "filter", "show matching rows: REGEX, !REGEX, -f LETTERS, -l FIELD=VALUE"),
    Key("s", "s", "sort", "sort", "pick the column to sort by, and the direction"),
    Key("c", "c", "columns", "", "choose the columns of the view"),
    Key("e", "e", "explain", "explain", "where a dial of the row's Service goes from here, and why"),
    Key("y", "y", "copy", "copy", "copy the row's name; at once again: the whole row as JSON"),
    Key("x", "x", "raw", "", "in the view of a map: bytes, or what they mean"),
    Key("space", "Space", "pause", "pause", "stop looking, and go on again"),
    Key("plus,equals_sign", "+", "faster", "", "look more often"),
    Key("minus", "-", "slower", "", "look less often"),
    Key("r", "r", "refresh", "", "look now"),
    Key("m", "m", "mouse", "", "mouse on or off; off lets the terminal select text"),
    Key("t", "t", "theme", "theme", "the next theme"),
    Key("colon", ":", "command", "", "go to a view by its name, as :services"),
    Key("question_mark", "?", "help", "help", "this help"),
    Key("q", "q", "leave", "quit", "leave"),
)

MOVEMENT = (
    ("↑ ↓, k j", "Up Down, k j", "one row"),
    ("PgUp PgDn", "PgUp PgDn", "one page"),
    ("Home End, g", "Home End, g", "the first and the last row"),
    ("1 … 7", "1 ... 7", "the views"),
    (
        "Shift+letter",
        "Shift+letter",
        "sort by the column that begins with it; again: turn round, or the next one",
    ),
)
"""(keys, the same in ASCII, what they do)"""
