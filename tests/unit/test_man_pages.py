"""The manual pages: those of the command line, and without a fault that a man reader would see."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/man"
PAGES = sorted(FOLDER.glob("*.1"))


def test_the_pages_are_those_of_the_command_line() -> None:
    made = runpy.run_path(str(ROOT / "build-aux/man_pages.py"))["pages"]()
    assert {page.name: page.read_text() for page in PAGES} == made, "run `make man`"


def test_every_flag_is_on_its_page() -> None:
    text = (FOLDER / "kubesock-services.1").read_text()
    for flag in ("\\-\\-selector", "\\-\\-watch", "\\-\\-sort\\-by", "\\-\\-bpffs"):
        assert flag in text


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed: `make shells-check`")
def test_mandoc_finds_no_fault() -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *map(str, PAGES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # The pages bear a version instead of a date: they are made anew with each change.
    faults = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert not faults, "\n".join(faults)


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_shows_a_page_without_a_warning() -> None:
    page = FOLDER / "kubesock-services.1"
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)], capture_output=True, text=True, timeout=60, check=False
    )
    if "minimized" in done.stdout:
        pytest.skip("this machine has a man that shows no pages")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--selector" in done.stdout
