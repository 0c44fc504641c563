"""Runs inside a virtual machine: what its kernel has, what its verifier looks at, which datapath tests pass.

`python -m tests.kernels.guest FILE [TESTS...]` writes one JSON object to FILE (a block device without a file
system), padded with zeros; again and again while tests run, so that a machine that ends early has told what
it knew. Without a virtual machine it tells of the kernel that runs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import Capacities, MapSpec, MapType, map_specs
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import preflight_bpf
from pyagent.kernel.map_create import create_map
from pyagent.kernel.preflight import Finding, State, bcc_version
from tests.kernels.document import CLSACT, UNFINISHED
from tests.kernels.sources import TESTS, Count, digest

COMPARED = "tests/datapath/test_verifier.py::test_no_program_costs_the_verifier_more_or_less_than_is_kept"
"""Compares with what is to be written here."""

PROGRAM, FEATURE = "program ", "feature "
BATCHED = {"frontends": "hash", "affinity": "LRU hash", "service_addresses": "LPM trie", "sets": "array"}
WRITE_SECONDS = 5.0
TEST_SECONDS = 900


class Results:
    """pytest tells what became of each test; `save` is called every few seconds while it does."""

    def __init__(self, save: Callable[[], None]) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.programs: dict[str, dict[str, str | int]] = {}
        self.features = {CLSACT: False}
        self.failed: dict[str, str] = {}
        self.seconds: Counter[str] = Counter()
        self._save = save
        self._saved = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/datapath/").removeprefix("tests/")
        for key, value in report.user_properties:
            if key.startswith(PROGRAM) and isinstance(value, list):
                counts = dict(zip(("source", *Count._fields), value, strict=True))
                self.programs[key.removeprefix(PROGRAM)] = counts
            elif key.startswith(FEATURE):
                self.features[key.removeprefix(FEATURE)] = bool(value)
        self.seconds[name.split("::")[0]] += round(report.duration)
        if report.failed:
            self.failed[name] = report.nodeid
        if report.when == "call" or not report.passed:
            self.outcomes[name] = report.outcome
        if report.failed:
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            whole = [line[1:].strip() for line in lines[:3]] or report.longreprtext.splitlines()[-1:]
            self.reasons[name] = " | ".join(whole)
        elif report.skipped:
            told = report.longrepr
            self.reasons[name] = told[2].removeprefix("Skipped: ") if isinstance(told, tuple) else str(told)
        if time.monotonic() - self._saved > WRITE_SECONDS:
            self._save()
            self._saved = time.monotonic()


def batch_operations() -> dict[str, bool]:
    """Whether each kind of map can be read in one call."""
    small = {spec.name: spec for spec in map_specs(Capacities(event_bytes=4096))}
    return {kind: _can_be_read_in_one_call(small[name]) for name, kind in BATCHED.items()}


def _can_be_read_in_one_call(spec: MapSpec) -> bool:
    entries = 8 if spec.type is not MapType.LRU_HASH else 1024
    fd = create_map(spec._replace(max_entries=entries))
    try:
        bpf.map_lookup_batch(fd, None, spec.key_size, spec.value_size, 1024)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def findings() -> dict[str, Finding]:
    """What `kubesock check` says of the kernel."""
    return {found.check: found for probe in preflight_bpf.PROBES.values() for found in probe()}


def kernel() -> dict[str, Any]:
    """Everything but the tests."""
    return {
        "release": os.uname().release,
        "version": os.uname().version,
        "sources": digest(),
        "compiler": bcc_version(),
        "checks": {name: found.state is State.FOUND for name, found in findings().items()},
        "batch operations": batch_operations(),
    }


def main() -> int:
    """0 if every test passed."""
    begun = time.monotonic()
    known = kernel()
    print(json.dumps(known, indent=1), flush=True)
    again: list[str] = []

    def save(unfinished: str = "`build/kernels/SERIES.log` has its last words") -> None:
        _write(
            {
                **known,
                "checks": known["checks"] | told.features,
                "programs": told.programs,
                "tests": dict(sorted(Counter(told.outcomes.values()).items())),
                "reasons": told.reasons | ({UNFINISHED: unfinished} if unfinished else {}),
                "again": again,
                "seconds": round(time.monotonic() - begun),
            }
        )

    told = Results(save)
    save()
    code = _run(told, os.cpu_count() or 1, sys.argv[2:] or TESTS)
    if told.failed and code == pytest.ExitCode.TESTS_FAILED:
        # Two at a time, emulated, may be too slow for a peer's patience: once more, one at a time.
        failed, told.failed = told.failed, {}
        reasons = {name: told.reasons.pop(name, "") for name in failed}
        for name in failed:
            del told.outcomes[name]
        code = _run(told, 1, failed.values())
        print(json.dumps({"failed at first": reasons}, indent=1), flush=True)
        again += sorted(failed.keys() - told.failed.keys())
    ended = code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    save("" if ended else f"pytest ended with {code}")
    print(json.dumps({"seconds": told.seconds}), flush=True)
    return int(code)


def _run(told: Results, workers: int, tests: Iterable[str]) -> int:
    """A worker that crashes or has to be killed takes one test with it: another goes on with the next."""
    quiet = [
        "-p",
        "tests.kernels.patience",
        "-q",
        "--color=no",
        "-p",
        "no:cacheprovider",
        f"--deselect={COMPARED}",
        "--durations=15",
    ]
    patient = ["-n", str(workers), "--dist=loadfile", "--no-loadscope-reorder", f"--timeout={TEST_SECONDS}"]
    return pytest.main([*quiet, *patient, "-o", "faulthandler_timeout=0", *tests], [told])


def _write(result: dict[str, Any]) -> None:
    data = json.dumps(result, indent=1, sort_keys=True).encode()
    with Path(sys.argv[1]).open("r+b" if Path(sys.argv[1]).exists() else "wb") as target:
        target.write(data.ljust(1 << 17, b"\0"))
        target.flush()
        os.fsync(target.fileno())


if __name__ == "__main__":
    sys.exit(main())
