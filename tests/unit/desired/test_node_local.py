"""A Service that its annotation gives to an address of the node: NodeLocal DNSCache's case."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pyagent.model.address import Protocol, parse_address
from pyagent.model.kube_objects import ANNOTATION_NODE_LOCAL, EndpointSlice, Service
from tests.unit.desired.objects import NODE_IP, Cluster, endpoint_slice, node, ready, service

DNS, DNS6, CACHE, CACHE6 = "10.96.0.10", "fd10::10", "169.254.20.10", "fd00:20::10"
PORTS = [
    {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
    {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
]
TARGETS = [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5353}]


def cluster_dns(annotation: str | None = CACHE, **spec: Any) -> Service:
    made = service("dns", DNS, ports=PORTS, type="NodePort", **spec)
    annotations = None if annotation is None else {ANNOTATION_NODE_LOCAL: annotation, "other": "x"}
    return msgspec.structs.replace(
        made, metadata=msgspec.structs.replace(made.metadata, annotations=annotations)
    )


def pods(kind: str = "IPv4", address: str = "10.1.0.1") -> EndpointSlice:
    return endpoint_slice(ready(address), name=f"dns-{kind}", service="dns", ports=TARGETS, kind=kind)


def interfaces(*more: str) -> frozenset[bytes]:
    return frozenset(map(parse_address, (NODE_IP, "127.0.0.1", "::1", *more)))


def asked(cluster: Cluster, address: str = DNS) -> list[Any]:
    return [cluster.dial(address, 53, protocol) for protocol in (Protocol.UDP, Protocol.TCP)]


def test_the_node_serves_it_while_an_interface_has_the_address() -> None:
    cluster = Cluster(cluster_dns(), pods())
    pod = [["10.1.0.1:5353"]] * 2
    assert asked(cluster) == pod
    cluster.configure(link_local_addresses=frozenset({parse_address(CACHE)}))
    assert asked(cluster) == [[f"{CACHE}:53"]] * 2
    cluster.configure(link_local_addresses=frozenset())
    assert asked(cluster) == pod
    cluster.configure(interface_addresses=interfaces(CACHE))
    assert asked(cluster) == [[f"{CACHE}:53"]] * 2
    cluster.configure(interface_addresses=interfaces())
    assert asked(cluster) == pod
    assert cluster.told() == set()


def test_other_frontends_keep_the_endpoints() -> None:
    cluster = Cluster(cluster_dns(), pods(), node("node-a", NODE_IP), interface_addresses=interfaces(CACHE))
    assert asked(cluster) == [[f"{CACHE}:53"]] * 2
    assert cluster.dial(NODE_IP, 30053, Protocol.UDP) == ["10.1.0.1:5353"]


def test_the_annotation_comes_and_goes() -> None:
    cluster = Cluster(cluster_dns(None), pods(), interface_addresses=interfaces(CACHE))
    assert asked(cluster) == [["10.1.0.1:5353"]] * 2
    cluster.put(cluster_dns())
    assert asked(cluster) == [[f"{CACHE}:53"]] * 2
    cluster.put(cluster_dns(None))
    assert asked(cluster) == [["10.1.0.1:5353"]] * 2


def test_each_family_has_its_own_address() -> None:
    dual = {"clusterIPs": [DNS, DNS6], "ipFamilies": ["IPv4", "IPv6"]}
    both = (pods(), pods("IPv6", "fd01::1"))
    cluster = Cluster(cluster_dns(f"{CACHE6}, {CACHE}", **dual), *both)
    cluster.configure(interface_addresses=interfaces(CACHE, CACHE6))
    assert asked(cluster) == [[f"{CACHE}:53"]] * 2
    assert asked(cluster, DNS6) == [[f"[{CACHE6}]:53"]] * 2
    cluster.put(cluster_dns(CACHE, **dual))
    assert asked(cluster, DNS6) == [["[fd01::1]:5353"]] * 2


def test_it_wins_over_a_local_policy_and_serves_without_endpoints() -> None:
    cluster = Cluster(cluster_dns(internalTrafficPolicy="Local"), interface_addresses=interfaces(CACHE))
    assert asked(cluster) == [[f"{CACHE}:53"]] * 2


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ("169.254.20.300", "not an IP address"),
        ("127.0.0.1", "cannot be dialled from a pod"),
        ("0.0.0.0", "cannot be dialled from a pod"),
        (f"{CACHE},169.254.20.11", "the first counts"),
    ],
)
def test_what_cannot_be_one_is_told_and_the_service_is_served(annotation: str, reason: str) -> None:
    cluster = Cluster(cluster_dns(annotation), pods(), interface_addresses=interfaces(CACHE, "169.254.20.11"))
    served = [[f"{CACHE}:53"]] if annotation.startswith(CACHE) else [["10.1.0.1:5353"]]
    assert asked(cluster) == served * 2
    assert reason in cluster.told_of(f"metadata.annotations[{ANNOTATION_NODE_LOCAL}]")
