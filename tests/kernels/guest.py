"""Runs inside a virtual machine: what its kernel has, what its verifier looks at, which datapath tests pass.

`python -m tests.kernels.guest FILE [TESTS...]` writes one JSON object to FILE (a block device without a file
system), padded with zeros. Without a virtual machine it tells of the kernel that runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pyagent.datapath.layout import Capacities, MapSpec, MapType, map_specs
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel import preflight_bpf
from pyagent.kernel.map_create import create_map
from pyagent.kernel.preflight import Finding, State

TESTS = (
    "test_kernel_side.py",
    "test_namespace_cookie.py",
    "test_outcomes.py",
    "test_calls.py",
    "test_datagrams.py",
    "test_affinity.py",
    "test_node_ports.py",
    "test_bound_to_loopback.py",
    "test_crossing.py",
    "../outside/test_packets.py",
    "../outside/test_raw.py",
    "../outside/test_devices.py",
    "../outside/test_topologies.py",
)
"""Below tests/datapath; none needs an agent: a process that starts takes half a minute under emulation."""

COMPARED = "tests/datapath/test_kernel_side.py::test_no_program_costs_the_verifier_half_as_much_again"
"""Compares with what is to be written here."""

PROPERTY = "program "
BATCHED = {"frontends": "hash", "affinity": "LRU hash", "service_addresses": "LPM trie", "sets": "array"}


class Results:
    """pytest tells what became of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.programs: dict[str, dict[str, int]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/datapath/")
        for key, value in report.user_properties:
            if key.startswith(PROPERTY) and isinstance(value, list):
                counts = dict(zip(("instructions", "verified"), value, strict=True))
                self.programs[key.removeprefix(PROPERTY)] = counts
        if report.when == "call" or not report.passed:
            self.outcomes[name] = report.outcome
        if report.failed:
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.reasons[name] = " | ".join(line[1:].strip() for line in lines[:3])
        elif report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[name] = report.longrepr[2].removeprefix("Skipped: ")


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
        "checks": {name: found.state is State.FOUND for name, found in findings().items()},
        "batch operations": batch_operations(),
    }


def main() -> int:
    """0 if every test passed."""
    result = kernel()
    _write({**result, "tests": None})
    print(json.dumps(result, indent=1), flush=True)
    told = Results()
    files = sys.argv[2:] or [os.path.normpath(f"tests/datapath/{name}") for name in TESTS]
    code = pytest.main(
        ["-q", "--color=no", "--timeout=900", "-p", "no:cacheprovider", f"--deselect={COMPARED}", *files],
        [told],
    )
    result["programs"] = told.programs
    result["tests"] = dict(sorted(Counter(told.outcomes.values()).items()))
    result["reasons"] = told.reasons
    _write(result)
    return int(code)


def _write(result: dict[str, Any]) -> None:
    data = json.dumps(result, indent=1, sort_keys=True).encode()
    with Path(sys.argv[1]).open("r+b" if Path(sys.argv[1]).exists() else "wb") as target:
        target.write(data.ljust(-(-len(data) // 4096) * 4096, b"\0"))


if __name__ == "__main__":
    sys.exit(main())
