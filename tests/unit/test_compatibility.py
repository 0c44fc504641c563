"""docs/compatibility.md says what the results of `make kernels` say, and every lack has a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernels.document import (
    LACKS,
    RESULTS,
    UNFINISHED,
    Result,
    beyond,
    features,
    keep,
    page,
    results_in,
    series,
)
from tests.kernels.sources import CROSSING, Count, digest, programs

ROOT = Path(__file__).resolve().parents[2]
KEPT = results_in(RESULTS)
VERIFIER_LIMIT = 1_000_000


def test_the_page_is_what_the_results_make_of_it() -> None:
    assert (ROOT / "docs/compatibility.md").read_text() == page(KEPT), "run: python -m tests.kernels.document"


def test_the_oldest_supported_kernel_is_among_them() -> None:
    assert series(KEPT[0]) == "5.10"


@pytest.mark.parametrize("result", KEPT, ids=series)
def test_no_test_failed(result: Result) -> None:
    assert UNFINISHED not in result["reasons"]
    assert result["tests"].keys() <= {"passed", "skipped"}, result["reasons"]
    assert result["tests"]["passed"] > 0


@pytest.mark.parametrize("result", KEPT, ids=series)
def test_every_lack_has_a_name(result: Result) -> None:
    lacking = {name for name, present in features(result).items() if not present}
    assert lacking <= {lack.name for lack in LACKS}


@pytest.mark.parametrize("result", KEPT, ids=series)
def test_the_results_are_of_these_sources(result: Result) -> None:
    assert result.get("sources") == digest(), (
        f"results/{series(result)}.json is of other C in bpf/, or of other tests: run make kernels"
    )


@pytest.mark.parametrize("result", KEPT, ids=series)
def test_every_program_of_every_source_is_counted(result: Result) -> None:
    assert {name: count.get("source") for name, count in result["programs"].items()} == programs()


@pytest.mark.parametrize("result", KEPT, ids=series)
def test_every_program_is_far_from_the_verifiers_limit(result: Result) -> None:
    assert all(count["verified"] < VERIFIER_LIMIT // 2 for count in result["programs"].values())


def test_the_programs_are_those_of_the_sources() -> None:
    found = programs()
    assert set(found.values()) == {path.name for path in (ROOT / "bpf").glob("*.c")}
    assert found["connect4"] == found[f"connect4{CROSSING}"] == "translate.c"
    assert found["arrive_plain"] == "outside.c"


def test_a_comment_changes_no_digest_and_code_or_a_test_does(tmp_path: Path) -> None:
    source = tmp_path / "lib" / "a.h"
    source.parent.mkdir()
    source.write_text("int a; /* one\n * two */\n")
    before = digest(tmp_path, ["t"])
    source.write_text("int  a; // three\n")
    assert digest(tmp_path, ["t"]) == before
    assert digest(tmp_path, ["t", "u"]) != before
    source.write_text("int b;\n")
    assert digest(tmp_path, ["t"]) != before


def test_a_program_that_costs_a_tenth_more_or_less_is_named() -> None:
    kept = {"connect4": {"instructions": 100, "verified": 1000}, "old": {"instructions": 1, "verified": 0}}
    assert beyond({"connect4": Count(110, 900), "old": Count(1, 50)}, kept) == []
    assert beyond({"connect4": Count(100, 1101)}, kept) == ["connect4: 1101 verified, 1000 are kept"]
    assert beyond({"new": Count(1, 1)}, kept) == ["new: nothing is kept"]
    assert beyond({"connect4": Count(89, 1000)}, kept) == ["connect4: 89 instructions, 100 are kept"]


def raw_result(**changes: object) -> bytes:
    made: Result = {
        "release": "6.1.0-1-amd64",
        "version": "#1 SMP Debian 6.1.2-1 (2026-01-01)",
        "tests": {"passed": 3},
        "programs": {},
        "reasons": {},
        "seconds": 60,
    }
    return json.dumps(made | changes).encode() + bytes(64)


def test_what_a_machine_wrote_is_kept(tmp_path: Path) -> None:
    raw, kept = tmp_path / "raw", tmp_path / "kept"
    kept.mkdir()
    raw.write_bytes(raw_result())
    assert keep(raw, kept) == "6.1.0-1-amd64: {'passed': 3} in 60 s"
    assert [path.name for path in kept.iterdir()] == ["6.1.json"]


def test_a_machine_that_did_not_come_to_its_end_is_told(tmp_path: Path) -> None:
    raw, kept = tmp_path / "raw", tmp_path / "kept"
    kept.mkdir()
    for text in (bytes(64), raw_result(tests={})):
        raw.write_bytes(text)
        with pytest.raises(ValueError, match="no test"):
            keep(raw, kept)
    assert not list(kept.iterdir())
    raw.write_bytes(raw_result(reasons={UNFINISHED: "it hung"}))
    with pytest.raises(ValueError, match=r"ended before its tests.*hung"):
        keep(raw, kept)
    assert json.loads((kept / "6.1.json").read_text())["tests"] == {"passed": 3}, "not lost"
