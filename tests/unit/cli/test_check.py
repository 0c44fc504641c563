"""The preflight: what follows from its findings, and that it says what it can without rights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyagent.cli.check import exit_code, verdict
from pyagent.kernel import preflight
from pyagent.kernel.lock_owner import LockOwner, owner_in
from pyagent.kernel.preflight import Finding, State
from tests.unit.cli.test_command_line import ENTRY, kubesock

FINE = Finding("a", State.FOUND, True, "")


@pytest.mark.parametrize(
    ("state", "needed", "code", "words"),
    [
        (State.FOUND, True, 0, "kubesock can run here"),
        (State.MISSING, True, 1, "kubesock cannot run here: b"),
        (State.MISSING, False, 4, "kubesock can run here, with less: b"),
        (State.WARNING, True, 4, "kubesock can run here, with less: b"),
        (State.UNKNOWN, True, 4, "kubesock can run here, with less: b"),
    ],
)
def test_the_worst_finding_decides(state: State, needed: bool, code: int, words: str) -> None:
    found = [FINE, Finding("b", state, needed, "")]
    assert (exit_code(found), verdict(found)) == (code, words)


def test_every_check_has_an_answer_and_every_lack_a_remedy() -> None:
    done = kubesock("check", "-o", "json")
    document = json.loads(done.stdout)
    assert document["kind"] == "CheckList"
    rows = document["items"]
    assert len({row["check"] for row in rows}) >= 20
    assert {row["state"] for row in rows} <= {state.value for state in State}
    assert not [row for row in rows if row["state"] == "missing" and not row["remedy"]]
    missing = [row for row in rows if row["state"] == "missing" and row["needed"]]
    assert done.returncode == (1 if missing else 4 if any(r["state"] != "found" for r in rows) else 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_without_rights_check_still_says_what_it_can() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENTRY, "check", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
    )
    if done.returncode == 1 and not done.stdout:
        pytest.skip(f"nobody cannot read this tree: {done.stderr[-200:]}")
    rows = {row["check"]: row for row in json.loads(done.stdout)["items"]}
    assert done.returncode == 1
    assert rows["capabilities"]["state"] == "missing"
    assert rows["kernel version"]["state"] == "found"
    assert rows["socket address programs"]["state"] == "unknown"
    assert "root" in rows["socket address programs"]["remedy"]


def test_the_lattice_library_of_the_same_name_is_not_taken_for_bcc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    assert preflight.bcc_version() == ""
    (finding,) = preflight._bcc()
    assert finding.state is State.MISSING
    assert "lattice" in finding.remedy
    assert "python3-bpfcc" in finding.remedy


def test_a_check_that_fails_in_itself_becomes_a_row() -> None:
    def refused() -> list[Finding]:
        raise PermissionError(1, "no")

    (finding,) = preflight._guarded("x", refused)  # type: ignore[arg-type]
    assert (finding.check, finding.state) == ("x", State.UNKNOWN)


LOCKS = """\
1: POSIX  ADVISORY  WRITE 111 00:1b:42 0 EOF
2: FLOCK  ADVISORY  READ 222 00:1b:42 0 EOF
3: FLOCK  ADVISORY  WRITE 333 00:1b:43 0 EOF
3: -> FLOCK  ADVISORY  WRITE 444 00:1b:44 0 EOF
4: FLOCK  ADVISORY  WRITE 555 00:1b:45 0 EOF
"""


@pytest.mark.parametrize(
    ("wanted", "owner"),
    [
        ("00:1b:45", LockOwner(True, 555)),
        ("00:1b:42", LockOwner(False)),  # a POSIX lock and a reader are no agent
        ("00:1b:44", LockOwner(False)),  # who waits does not hold
        ("00:1c:45", LockOwner(False)),
    ],
)
def test_the_holder_of_an_exclusive_flock_is_found(wanted: str, owner: LockOwner) -> None:
    assert owner_in(LOCKS, wanted) == owner
