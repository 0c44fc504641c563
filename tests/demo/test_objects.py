"""The demo's objects describe a cluster that holds together, before and after every change."""

from __future__ import annotations

import copy
import ipaddress
import json
from pathlib import Path

import msgspec
import pytest
import yaml

from pyagent.demo.objects import NODE_NAME, Objects, Target
from pyagent.model.kube_objects import STRUCT_OF

CHECKOUT = ("shop", "checkout")
IMAGES = ("media", "images")


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects.packaged(tmp_path)


def target_of(objects: Objects, service: tuple[str, str], version: int = 4) -> Target:
    return next(
        target
        for target in objects.targets()
        if (target.namespace, target.service) == service
        and ipaddress.ip_address(target.address).version == version
    )


def test_a_shop_of_five_services_cluster_dns_and_a_dual_stack_service_are_there(objects: Objects) -> None:
    targets = objects.targets()
    assert len({target.service for target in targets if target.namespace == "shop"}) == 5
    dns = {(t.protocol, t.port) for t in targets if t.service == "kube-dns"}
    assert {("UDP", 53), ("TCP", 53)} <= dns
    assert len({target.address for target in targets if target.service == "images"}) == 2


def test_every_object_decodes_as_the_kind_it_says(objects: Objects) -> None:
    kinds = set()
    for document in objects.files.values():
        for item in document["items"]:
            kinds.add(item["kind"])
            decoded = msgspec.json.decode(json.dumps(item).encode(), type=STRUCT_OF[item["kind"]])
            assert decoded.metadata.name == item["metadata"]["name"]
            assert decoded.metadata.creationTimestamp == item["metadata"]["creationTimestamp"]
            assert "managedFields" not in item["metadata"]
    assert kinds == {"Service", "EndpointSlice", "Node", "ServiceCIDR"}


def test_service_addresses_lie_in_the_service_cidr_and_pod_addresses_in_their_nodes(objects: Objects) -> None:
    (cidr,) = objects.of_kind("ServiceCIDR")
    ranges = [ipaddress.ip_network(text) for text in cidr["spec"]["cidrs"]]
    assert all(
        any(ipaddress.ip_address(target.address) in one for one in ranges) for target in objects.targets()
    )
    nodes = {node["metadata"]["name"]: node for node in objects.of_kind("Node")}
    assert NODE_NAME in nodes
    for pod in objects.pods().values():
        own = [
            *map(ipaddress.ip_network, nodes[pod.node]["spec"]["podCIDRs"]),
            *(
                ipaddress.ip_network(address["address"])
                for address in nodes[pod.node]["status"]["addresses"]
                if address["type"] == "InternalIP"
            ),
        ]
        assert all(any(ipaddress.ip_address(text) in one for one in own) for text in pod.addresses), pod


def test_no_address_and_no_identity_is_used_twice(objects: Objects) -> None:
    addresses = [address for pod in objects.pods().values() for address in pod.addresses]
    uids = [item["metadata"]["uid"] for document in objects.files.values() for item in document["items"]]
    assert len(set(addresses)) == len(addresses)
    assert len(set(uids)) == len(uids)


def test_every_service_port_has_backends_of_its_family(objects: Objects) -> None:
    for target in objects.targets():
        backends = objects.backends(target)
        assert backends, target
        assert all(("[" in endpoint) == (":" in target.address) for endpoint in backends.values())


def test_what_is_written_is_what_was_read_and_no_hidden_file_stays(objects: Objects) -> None:
    objects.write()
    assert {path.name for path in objects.folder.iterdir()} == set(objects.files)
    for name, document in objects.files.items():
        assert yaml.safe_load(json.dumps(document)) == document
        again = yaml.safe_load((objects.folder / name).read_text())
        assert again == document, name


@pytest.mark.parametrize("service", [CHECKOUT, IMAGES])
def test_scaling_up_promises_pods_with_new_addresses_in_every_family(
    objects: Objects, service: tuple[str, str]
) -> None:
    before = objects.pods()
    target = target_of(objects, service)
    names = objects.add_pods(target, 2)
    after = objects.pods()
    assert set(after) - set(before) == set(names)
    assert set(objects.backends(target)) >= set(names)
    addresses = [address for pod in after.values() for address in pod.addresses]
    assert len(set(addresses)) == len(addresses)
    families = {len(pod.addresses) for name, pod in after.items() if name in names}
    assert families == {2 if service == IMAGES else 1}


def test_a_terminating_pod_serves_only_when_no_other_does(objects: Objects) -> None:
    target = target_of(objects, CHECKOUT)
    first, second = objects.backends(target)
    objects.mark_terminating(target, {first})
    assert set(objects.backends(target)) == {second}
    objects.mark_terminating(target, {second})
    assert set(objects.backends(target)) == {first, second}


def test_without_pods_a_slice_is_the_controllers_placeholder(objects: Objects) -> None:
    target = target_of(objects, CHECKOUT)
    saved = copy.deepcopy(objects.slices(*CHECKOUT))
    before = objects.backends(target)
    objects.remove_pods(target, set(before))
    (piece,) = objects.slices(*CHECKOUT)
    assert (piece["endpoints"], piece["ports"], objects.backends(target)) == (None, None, {})
    objects.put_back(target, saved)
    assert objects.backends(target) == before


def test_every_change_is_a_new_version_of_the_slice(objects: Objects) -> None:
    target = target_of(objects, CHECKOUT)
    versions = []
    for change in (
        lambda: None,
        lambda: objects.add_pods(target, 1),
        lambda: objects.mark_terminating(target, {next(iter(objects.backends(target)))}),
        lambda: objects.remove_pods(target, set(objects.pods())),
    ):
        change()
        versions.append(int(objects.slices(*CHECKOUT)[0]["metadata"]["resourceVersion"]))
    assert versions == sorted(set(versions))
