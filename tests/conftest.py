"""For every test: the `kernel` marker and the hypothesis profiles."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pyagent.demo.requirements import missing_requirements

ON_CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

# No deadlines: how long an example takes on a shared machine says nothing about the code.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=300,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if ON_CI else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the kernel cannot be tested: skip and say why; on CI fail, because there it must be possible."""
    on_kernel = [item for item in items if item.get_closest_marker("kernel")]
    missing = missing_requirements() if on_kernel else []
    if not missing:
        return
    reason = "missing here: " + "; ".join(map(str, missing))
    for item in on_kernel:
        item.add_marker(pytest.mark.unmet(reason) if ON_CI else pytest.mark.skip(reason=reason))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if unmet := item.get_closest_marker("unmet"):
        pytest.fail(f"CI is set, but this machine cannot run kernel tests; {unmet.args[0]}", pytrace=False)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, for a `ProgramCache`: of all workers of this run, so that one compiles for all."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "programs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kube-binaries",
        type=Path,
        help="folder of kube-apiserver: the conformance tests' agents follow it instead of files",
    )


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; verbs are sent it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "unmet(reason): set here on kernel tests that CI cannot run")
