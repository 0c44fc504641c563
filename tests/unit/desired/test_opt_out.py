"""Which Pods are left alone, by what they and their Namespaces say."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyagent.desired.opt_out import OptedOut, PodFacts, Workloads, opted_out_pods, read_pod
from pyagent.model.address import parse_address
from pyagent.model.kube_objects import Namespace, Pod
from pyagent.model.source_events import Problem

TRANSLATE = "kubesock.io/translate"


def pod(
    name: str = "p",
    *,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    ips: tuple[str, ...] = ("10.0.0.1",),
    namespace: str = "shop",
    phase: str = "Running",
    **spec: Any,
) -> Pod:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{name}",
                "annotations": annotations,
                "labels": labels,
            },
            "spec": {"nodeName": "n", **spec},
            "status": {"phase": phase, "podIPs": [{"ip": ip} for ip in ips]},
        },
        Pod,
    )


def namespace(says: str | None, name: str = "shop", place: str = "annotations") -> Namespace:
    metadata = {"name": name, place: {} if says is None else {TRANSLATE: says}}
    return msgspec.convert({"metadata": metadata}, Namespace)


def workloads(*objects: Pod | Namespace) -> Workloads:
    made = Workloads("n")
    for one in objects:
        made.put(one)
    return made


def names(made: Workloads) -> set[str]:
    return {one.name for one in made.opted_out}


@pytest.mark.parametrize(
    ("of_namespace", "of_pod", "left_alone"),
    [
        (None, None, False),
        (None, "false", True),
        (None, "true", False),
        ("false", None, True),
        ("false", "true", False),
        ("false", "false", True),
        ("true", None, False),
        ("true", "false", True),
    ],
)
@pytest.mark.parametrize("place", ["annotations", "labels"])
def test_the_pod_wins_over_its_namespace(
    of_namespace: str | None, of_pod: str | None, left_alone: bool, place: str
) -> None:
    said = {place: {TRANSLATE: of_pod}} if of_pod else {}
    made = workloads(namespace(of_namespace, place=place), pod(**said))  # type: ignore[arg-type]
    assert names(made) == ({"p"} if left_alone else set())


def test_an_annotation_wins_over_a_label_of_the_same_object() -> None:
    made = workloads(pod(annotations={TRANSLATE: "true"}, labels={TRANSLATE: "false"}))
    assert names(made) == set()


def test_a_pod_whose_namespace_is_not_known_is_translated() -> None:
    assert names(workloads(pod())) == set()


def test_what_a_namespace_says_reaches_pods_that_came_before_it() -> None:
    made = workloads(pod(), pod("q", namespace="other"))
    made.put(namespace("false"))
    assert names(made) == {"p"}
    made.put(namespace("true"))
    assert names(made) == set()
    made.put(namespace("false"))
    made.delete("Namespace", "", "shop")
    assert names(made) == set()


@pytest.mark.parametrize("says", ["False", "no", "", "0", "false "])
def test_another_value_is_reported_and_counts_as_not_set(says: str) -> None:
    made = workloads(namespace("false"), pod(annotations={TRANSLATE: says}))
    assert names(made) == {"p"}
    (problem,) = made.problems
    assert (problem.kind, problem.name, problem.field) == ("Pod", "p", f"metadata.annotations[{TRANSLATE}]")
    assert problem.reason.startswith('want "true" or "false", got')
    made.delete("Pod", "shop", "p")
    assert made.problems == frozenset()


def test_a_pod_of_the_nodes_network_is_known_by_its_uid_alone() -> None:
    made = workloads(pod(annotations={TRANSLATE: "false"}, ips=("192.0.2.1",), hostNetwork=True))
    assert made.opted_out == {OptedOut("shop", "p", "uid-p")}


def test_a_static_pod_has_the_uid_that_kubelet_gave_it() -> None:
    mirror = {TRANSLATE: "false", "kubernetes.io/config.mirror": "0123abcd"}
    assert read_pod(pod(annotations=mirror)).uid == "0123abcd"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_forgotten_with_its_addresses(phase: str) -> None:
    made = workloads(pod(annotations={TRANSLATE: "false"}))
    assert names(made) == {"p"}
    made.put(pod(annotations={TRANSLATE: "false"}, phase=phase))
    assert names(made) == set()


def test_pods_of_other_nodes_are_none_of_ours_and_one_without_a_node_is() -> None:
    said = {TRANSLATE: "false"}
    made = workloads(pod("here", annotations=said), pod("there", annotations=said, nodeName="m"))
    made.put(pod("anywhere", annotations=said, nodeName=None))
    assert names(made) == {"here", "anywhere"}


def test_an_address_that_a_translated_pod_has_too_identifies_nobody() -> None:
    made = workloads(
        pod("left", annotations={TRANSLATE: "false"}, ips=("10.0.0.1", "fd00::1")), pod("translated")
    )
    (found,) = made.opted_out
    assert found.addresses == {parse_address("fd00::1")}


def test_an_address_that_is_none_is_reported_and_the_others_count() -> None:
    made = workloads(pod(annotations={TRANSLATE: "false"}, ips=("10.0.0.x", "10.0.0.2")))
    (found,) = made.opted_out
    assert found.addresses == {parse_address("10.0.0.2")}
    assert [problem.field for problem in made.problems] == ["status.podIPs[0].ip"]


def test_the_single_address_of_an_old_status_counts() -> None:
    old = msgspec.convert({"metadata": {"name": "p"}, "status": {"podIP": "10.0.0.7"}}, Pod)
    assert read_pod(old).addresses == (parse_address("10.0.0.7"),)


def test_what_is_not_in_a_new_list_is_gone_and_the_other_kind_stays() -> None:
    made = workloads(namespace("false"), pod("a"), pod("b"))
    made.replace("Pod", [pod("b"), pod("c")])
    assert names(made) == {"b", "c"}
    made.replace("Namespace", [])
    assert names(made) == set()


def test_an_object_that_cannot_be_decoded_counts_as_deleted() -> None:
    made = workloads(pod(annotations={TRANSLATE: "false"}))
    bad = Problem("Pod", "shop", "p", "spec.hostNetwork", "expected bool")
    made.reject(bad)
    assert names(made) == set()
    assert made.problems == {bad}
    made.put(pod(annotations={TRANSLATE: "false"}))
    assert made.problems == frozenset()
    made.reject(bad)
    made.forgive(bad)
    assert made.problems == frozenset()


ANYTHING = st.builds(
    PodFacts,
    namespace=st.sampled_from("ab"),
    name=st.text("xyz", min_size=1, max_size=3),
    uid=st.text("0123", max_size=2),
    translate=st.sampled_from([None, True, False]),
    addresses=st.lists(st.sampled_from([bytes([n]) * 16 for n in range(4)]), max_size=3).map(tuple),
)


@given(st.lists(ANYTHING), st.dictionaries(st.sampled_from("ab"), st.sampled_from([None, True, False])))
def test_no_translated_pod_is_reached_by_an_address_and_no_silent_one_is_left_alone(
    pods: list[PodFacts], says: dict[str, bool | None]
) -> None:
    found = opted_out_pods(pods, says)
    left = {(one.namespace, one.name) for one in found}
    reached = frozenset().union(*(one.addresses for one in found))
    for one in pods:
        alone = one.translate is False or (one.translate is None and says.get(one.namespace) is False)
        if alone:
            assert (one.namespace, one.name) in left
        else:
            assert reached.isdisjoint(one.addresses)
            assert one.translate is True or says.get(one.namespace) is not False
