"""The cluster is made once; each scenario finds it without Services and leaves it so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo.sandbox import Sandbox, remove_leftovers
from tests.conformance.ground.nodes import Cluster


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    remove_leftovers("test")
    folder: Path = tmp_path_factory.mktemp("conformance")
    with Sandbox.create("test") as sandbox:
        cluster = Cluster(sandbox, folder)
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
