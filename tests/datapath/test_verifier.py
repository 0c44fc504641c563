"""Every program of every source in `bpf/` loads here, and costs the verifier what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyagent.demo.sandbox import Sandbox
from pyagent.kernel import features
from pyagent.kernel.preflight import bcc_version
from pyagent.kernel.program_cache import ProgramCache
from tests.kernels.counts import counts
from tests.kernels.document import RESULTS, beyond, results_in, series
from tests.kernels.sources import Count
from tests.kernels.sources import programs as programs_of_sources

pytestmark = pytest.mark.kernel

KERNEL = features.kernel_version()


@pytest.fixture(scope="module")
def found(sandbox: Sandbox, programs: Path) -> dict[str, Count]:
    return counts(sandbox.bpffs / "counts", ProgramCache(programs))


def test_every_program_loads(found: dict[str, Count], record_property: Callable[[str, object], None]) -> None:
    """What the verifier looked at is told to whoever records results of several kernels."""
    sources = programs_of_sources()
    for name, count in sorted(found.items()):
        record_property(f"program {name}", [sources[name], *count])
    assert found.keys() == sources.keys()
    refused = {name: count.refused for name, count in found.items() if count.refused}
    if KERNEL < (5, 11):  # no records are made in iterators
        assert refused.keys() == {name for name, source in sources.items() if source == "carry.c"}
    else:
        assert refused == {}
    for name in found.keys() - refused.keys():
        assert found[name].instructions > 0
        assert found[name].verified > 0 or KERNEL < (5, 16), name


def test_no_program_costs_the_verifier_more_or_less_than_is_kept(found: dict[str, Count]) -> None:
    kernel = ".".join(map(str, KERNEL))
    kept = {series(result): result for result in results_in(RESULTS)}.get(kernel)
    if kept is None:
        pytest.skip(f"no counts of Linux {kernel} are kept: `make kernels SERIES={kernel}` keeps them")
    if kept["compiler"] != bcc_version():
        pytest.skip(f"counts are of programs compiled by BCC {kept['compiler']}, not by {bcc_version()}")
    assert beyond(found, kept["programs"]) == [], f"if so wanted: `make kernels SERIES={kernel}`"
