"""What `kubesock migrate` says of a cluster's objects, and how rules are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.model.address import Family, Protocol, parse_address
from pyagent.view.kube_proxy_served import Dialled, by_iptables, by_nft
from pyagent.view.migration import CHANGES, NOTE, STOPS, Cluster, findings
from tests.datapath.ground.kube_proxy import FOREIGN_IPTABLES, Served, iptables_rules

Object = dict[str, Any]


def service(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {"metadata": {"namespace": "shop", "name": name, "labels": labels or {}}, "spec": spec}


def pod(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    return {"metadata": {"namespace": "shop", "name": name, "labels": labels or {}}, "spec": spec}


CASES = {
    "nothing special": (Cluster((service("web", ports=[{"port": 80}]),)), {}),
    "a nodePort": (
        Cluster((service("web", type="NodePort"),)),
        {},
    ),
    "an external IP": (
        Cluster((service("web", externalIPs=["192.0.2.1"]),)),
        {},
    ),
    "another proxy's": (
        Cluster((service("web", {"service.kubernetes.io/service-proxy-name": "x"}, type="NodePort"),)),
        {},
    ),
    "SCTP": (
        Cluster((service("sig", ports=[{"port": 1, "protocol": "SCTP"}]),)),
        {"SCTP": (STOPS, ["shop/sig"])},
    ),
    "affinity": (
        Cluster((service("web", sessionAffinity="ClientIP"),)),
        {"session affinity": (CHANGES, ["shop/web"])},
    ),
    "source ranges": (
        Cluster((service("web", loadBalancerSourceRanges=["10.0.0.0/8"]),)),
        {"source ranges": (CHANGES, ["shop/web"])},
    ),
    "gVisor by its class": (
        Cluster(
            pods=(pod("p", runtimeClassName="safe"), pod("q", runtimeClassName="plain")),
            runtime_classes=(
                {"metadata": {"name": "safe"}, "handler": "runsc"},
                {"metadata": {"name": "plain"}, "handler": "runc"},
            ),
        ),
        {"sandboxed pods": (STOPS, ["shop/p"])},
    ),
    "a virtual machine": (
        Cluster(pods=(pod("vm", {"kubevirt.io": "virt-launcher"}),)),
        {"sandboxed pods": (STOPS, ["shop/vm"])},
    ),
    "a mesh": (
        Cluster(
            pods=(pod("p", containers=[{"name": "app"}, {"name": "istio-proxy"}]),),
            namespaces=({"metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}},),
        ),
        {"service mesh": (CHANGES, ["shop", "shop/p"])},
    ),
    "NodeLocal DNSCache": (
        Cluster(pods=(pod("dns-1", {"k8s-app": "node-local-dns"}),)),
        {"NodeLocal DNSCache": (CHANGES, ["shop/dns-1"])},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_thing_that_matters_is_found_by_name(case: str) -> None:
    cluster, expected = CASES[case]
    rows = findings(cluster._replace(config={"mode": "iptables"}), "iptables")
    found = {row["subject"]: (row["weight"], row["names"]) for row in rows if row["weight"] != NOTE}
    assert found == expected
    assert all(row["finding"] and row["remedy"] for row in rows)


def test_what_stands_against_it_comes_first_and_the_mode_is_told() -> None:
    services = (service("a", sessionAffinity="ClientIP"), service("b", type="LoadBalancer"))
    rows = findings(Cluster(services), "ipvs", ["ignored: iptables.masqueradeBit"])
    weights = [row["weight"] for row in rows]
    assert weights == sorted(weights, key=[STOPS, CHANGES, NOTE].index)
    texts = " ".join(row["finding"] for row in rows)
    for part in ("mode ipvs", "scheduler rr", "iptables.masqueradeBit", "ConfigMap was not found"):
        assert part in texts


SPARSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    listed=st.lists(
        st.dictionaries(st.sampled_from(["rule", "map", "set", "x"]), SPARSE, max_size=2), max_size=4
    )
)
def test_rules_that_look_otherwise_serve_nothing_and_break_nothing(listed: list[Any]) -> None:
    by_nft(listed, Family.IPV4)


@given(text=st.text(max_size=200))
def test_no_text_breaks_the_reading_of_iptables(text: str) -> None:
    by_iptables(text, Family.IPV4)
    by_iptables(f"*nat\n-A KUBE-SERVICES {text}", Family.IPV4)


def endpoint(text: str) -> tuple[bytes, int]:
    address, _, port = text.rpartition(":")
    return parse_address(address), int(port)


def test_iptables_rules_serve_what_they_were_made_from() -> None:
    services = (
        Served("shop/web:http", "10.96.0.1", 80, ("10.1.0.1:8080", "10.1.0.2:8080"), 30080),
        Served("shop/none:http", "10.96.0.2", 81, ()),
    )
    text = iptables_rules(services) + FOREIGN_IPTABLES
    both = frozenset({endpoint("10.1.0.1:8080"), endpoint("10.1.0.2:8080")})
    assert by_iptables(text, Family.IPV4) == {
        Dialled(parse_address("10.96.0.1"), 80, Protocol.TCP, Family.IPV4): both,
        Dialled(b"", 30080, Protocol.TCP, Family.IPV4): both,
        Dialled(parse_address("10.96.0.2"), 81, Protocol.TCP, Family.IPV4): frozenset(),
    }
    assert by_iptables(FOREIGN_IPTABLES, Family.IPV4) == {}
