"""The ground that datapath tests stand on: a small cluster of network namespaces, named servers, an agent.

A test takes the fixtures of `tests/datapath/conftest.py`:

    cluster   one node, clients and servers in namespaces of their own; whole session
    cgroup    a fresh cgroup for this test; attach hooks here and nowhere else
    in_client run a callable inside (client namespace, cgroup), have its result or exception here
    manifests an empty directory of manifests, written atomically
    start_agent  `kubesock run` as a process; ended and its pins removed after the test
"""

from tests.datapath.ground.agent import Agent, StartAgent
from tests.datapath.ground.asking import Reply, ask_tcp, ask_udp, udp_reply_on
from tests.datapath.ground.cluster import Pod, SmallCluster
from tests.datapath.ground.manifests import Manifests, endpoint_slice, node, service, service_cidr

__all__ = [
    "Agent",
    "Manifests",
    "Pod",
    "Reply",
    "SmallCluster",
    "StartAgent",
    "ask_tcp",
    "ask_udp",
    "endpoint_slice",
    "node",
    "service",
    "service_cidr",
    "udp_reply_on",
]
