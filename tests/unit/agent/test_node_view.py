"""What the Node object means for load balancers."""

from __future__ import annotations

import pytest

from pyagent.agent.facts import Facts
from pyagent.agent.health_check_ports import HealthCheckPorts
from pyagent.agent.http_server import HttpServer
from pyagent.agent.node_view import NodeView
from tests.unit.desired.objects import NODE, Cluster, node


@pytest.mark.parametrize(
    ("of_cluster", "nodes", "eligible"),
    [
        (True, [], False),  # as kube-proxy, which may be asked before it has seen its Node
        (True, ["another"], False),
        (True, [NODE], True),
        (False, [], True),  # manifests of a machine without Kubernetes
        (False, ["another"], False),
        (False, [NODE], True),
    ],
)
def test_a_node_that_is_unknown_to_its_cluster_gets_nothing_from_load_balancers(
    server: HttpServer, of_cluster: bool, nodes: list[str], eligible: bool
) -> None:
    facts = Facts()
    ports = HealthCheckPorts(server, facts.healthy)
    cluster = Cluster(*(node(name) for name in nodes))
    view = NodeView(facts, ports, lambda: None, of_cluster=of_cluster)
    view(cluster.update(), cluster.state, cluster.snapshot)
    assert facts.view().node_eligible is eligible


def test_a_node_whose_object_went_stays_as_it_was(server: HttpServer) -> None:
    facts = Facts()
    cluster = Cluster(node(NODE))
    view = NodeView(facts, HealthCheckPorts(server, facts.healthy), lambda: None, of_cluster=True)
    change = cluster.delete(node(NODE))
    view(change, cluster.state, cluster.snapshot)
    assert facts.view().node_eligible
