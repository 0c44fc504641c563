"""The page for people in trouble: what it quotes is what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pyagent.model.outcome import Outcome

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
PROGRAM = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "pyagent").rglob("*.py"))


def said() -> list[str]:
    """The quotes of the table of what the agent says, without what stands for a value there."""
    (table,) = re.findall(r"^\| it says .*?\n\n", PAGE, flags=re.MULTILINE | re.DOTALL)
    cells = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    return [quote for cell in cells for quote in re.findall(r"`([^`]+)`", cell) if not quote.startswith("/")]


@pytest.mark.parametrize("quote", said())
def test_a_quote_is_what_the_program_says(quote: str) -> None:
    if quote in {"timeout", "watchdog"}:
        return  # systemd's words
    pieces = [re.escape(piece) for piece in re.split(r"\bN\b|Services", quote) if piece.strip()]
    assert pieces
    for piece in pieces:
        assert re.search(piece, PROGRAM) or piece == re.escape("Operation not permitted"), quote


def test_metrics_and_outcomes_exist() -> None:
    metrics = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(kubesock_\w+)`", PAGE))
    assert named
    assert not {name for name in named if f"`{name}`" not in metrics}
    assert {"refused_unstable"} <= {outcome.name.lower() for outcome in Outcome}


@pytest.mark.parametrize("error", sorted(set(re.findall(r"^\| `(E[A-Z]+)`", PAGE, flags=re.MULTILINE))))
def test_an_error_that_an_application_sees_is_one_that_hooks_give(error: str) -> None:
    table = (ROOT / "bpf" / "README.md").read_text(encoding="utf-8") + (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
    assert f"`{error}`" in table
