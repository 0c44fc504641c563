"""What documents say of tests: every test that a table names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
NAMED = re.compile(r"([\w/]+\.py)::(\w+)")

TABLES = ("compared-with-kube-proxy.md", "conformance.md")
CLAIMS = {"same", "better", "other", "pass", "part"}
"""First words of a row's second cell that need a test."""


@cache
def names_of(path: str) -> frozenset[str]:
    file = TESTS / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def rows(document: str) -> list[list[str]]:
    """The cells of every table row, without the rows that head a table."""
    lines = (ROOT / "docs" / document).read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")
    ]
    return [row for row in cells if row[0] not in ("behaviour", "e2e test", "traffic")]


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_every_test_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    unknown = [f"{path}::{name}" for path, name in NAMED.findall(text) if name not in names_of(path)]
    assert not unknown, "\n".join(unknown)


@pytest.mark.parametrize("document", TABLES)
def test_every_claim_of_a_comparison_names_its_test(document: str) -> None:
    claims = [row for row in rows(document) if re.split(r"\W", row[1], maxsplit=1)[0] in CLAIMS]
    assert len(claims) > 50
    assert not [row[0] for row in claims if not NAMED.search(row[-1])]


@pytest.mark.parametrize("document", TABLES)
def test_every_row_of_a_comparison_has_three_cells(document: str) -> None:
    assert not [row for row in rows(document) if len(row) != 3]
