"""docs/compatibility.md says what the results of `make kernels` say, and every lack has a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels.document import LACKS, Result, features, keep, page, results_in, series

ROOT = Path(__file__).resolve().parents[2]
RESULTS = results_in(ROOT / "tests/kernels/results")
VERIFIER_LIMIT = 1_000_000


def test_the_page_is_what_the_results_make_of_it() -> None:
    assert (ROOT / "docs/compatibility.md").read_text() == page(RESULTS), (
        "run: python -m tests.kernels.document"
    )


def test_the_oldest_supported_kernel_is_among_them() -> None:
    assert series(RESULTS[0]) == "5.10"


@pytest.mark.parametrize("result", RESULTS, ids=series)
def test_no_test_failed(result: Result) -> None:
    assert result["tests"].keys() <= {"passed", "skipped"}, result["reasons"]
    assert result["tests"]["passed"] > 0


@pytest.mark.parametrize("result", RESULTS, ids=series)
def test_every_lack_has_a_name(result: Result) -> None:
    lacking = {name for name, present in features(result).items() if not present}
    assert lacking <= {lack.name for lack in LACKS}


@pytest.mark.parametrize("result", RESULTS, ids=series)
def test_every_program_is_far_from_the_verifiers_limit(result: Result) -> None:
    assert len(result["programs"]) == 8
    assert all(count["verified"] < VERIFIER_LIMIT // 10 for count in result["programs"].values())


def test_a_machine_that_did_not_come_to_its_end_is_told(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for text in (b"\0" * 64, b'{"release": "6.1", "tests": null}\0\0'):
        raw.write_bytes(text)
        with pytest.raises(ValueError, match="end"):
            keep(raw, tmp_path)
    assert list(tmp_path.iterdir()) == [raw]
