"""The cluster is made once; each scenario finds it without Services and leaves it so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo.sandbox import Sandbox, remove_leftovers
from tests.conformance.ground.nodes import Cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("kube_binaries") is None:
        return
    for item in items:
        if only := item.get_closest_marker("files_only"):
            item.add_marker(pytest.mark.skip(reason=f"with a real API server: {only.args[0]}"))


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    remove_leftovers("test")
    folder: Path = tmp_path_factory.mktemp("conformance")
    with Sandbox.create("test") as sandbox:
        cluster = Cluster(sandbox, folder, pytestconfig.getoption("kube_binaries"))
        yield cluster
        cluster.close()


@pytest.fixture
def cluster(two_nodes: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    yield two_nodes
    for name, agent in two_nodes.agents.items():
        request.node.add_report_section("teardown", f"log of the agent of {name}", agent.log_tail(15))
    two_nodes.start_agents()
    two_nodes.describe_nodes()
    two_nodes.put()
