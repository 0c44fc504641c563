"""The base's rbac.yaml against what the agent really asks the API server for: no less, and nothing more."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyagent.cluster.api_source import ApiSource
from pyagent.cluster.event_book import FIRST_AGAIN
from pyagent.cluster.event_recorder import RBAC_RULE, EventRecorder
from pyagent.cluster.resources import (
    ENDPOINT_SLICES,
    NAMESPACES,
    SERVICE_CIDRS,
    SERVICES,
    nodes,
    pods_of,
)
from pyagent.model.notice import Notice
from tests.cluster.conftest import Follow
from tests.cluster.support import PATIENCE, node, service
from tests.fakes.api_server import ApiServer, Request

FILE = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "base" / "rbac.yaml"
Permission = tuple[str, str, str]  # API group, resource, verb

_CORE = re.compile(r"/api/v1/(namespaces/[^/]+/)?(?P<plural>[a-z]+)(/[^/]+)?")
_GROUP = re.compile(r"/apis/(?P<group>[^/]+)/[^/]+/(namespaces/[^/]+/)?(?P<plural>[a-z]+)(/[^/]+)?")


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(FILE.read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents() if document["kind"] == kind]
    return found


def granted(rules: Iterable[dict[str, Any]]) -> list[Permission]:
    return [
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def needed(request: Request) -> Permission:
    """The permission by which RBAC decides about a request."""
    match = _CORE.fullmatch(request.path) or _GROUP.fullmatch(request.path)
    assert match is not None, request.path
    return match.groupdict().get("group", ""), match["plural"], request.verb


@pytest.fixture
def asked(server: ApiServer, follow: Follow) -> Callable[..., set[Permission]]:
    """Everything that an agent with these settings asks for, from its first list to a repeated Event."""

    def run(**settings: Any) -> set[Permission]:
        server.put(service("web"))
        server.put(node("node-a"))
        source, recorder = follow(**settings)
        for kind in ("Service", "EndpointSlice", "Node", "ServiceCIDR"):
            recorder.wait_for_watching(kind)
        if settings.get("workloads"):
            for kind in ("Pod", "Namespace"):
                recorder.wait_for_watching(kind)
        _record_events(source, server)
        # A list of the plain kind too: after a gap, or where the server streams none.
        server.watch_list = "invalid"
        server.compact()
        server.cut_all()
        kinds = {request.kind for request in server.seen("watch")}
        recorder.wait(lambda: kinds <= {r.kind for r in server.seen("list")}, "a plain list of each kind")
        return {needed(request) for request in server.seen()}

    return run


def _record_events(source: ApiSource, server: ApiServer) -> None:
    skipped = [0.0]
    events: EventRecorder = source.event_recorder()
    events._now = lambda: time.monotonic() + skipped[0]
    events.start()
    try:
        for name in ("", "web"):
            kind = "Service" if name else "Node"
            notice = Notice(kind, "Test", "Test", "a notice", "shop" if name else "", name)  # type: ignore[arg-type]
            made = len(server.seen("create"))
            events.put(notice)
            _wait(lambda made=made: len(server.seen("create")) > made)  # type: ignore[misc]
        events.put(notice)

        def seen_later() -> bool:
            # The recorder notes when it told only after the server has answered: time goes on meanwhile.
            skipped[0] += FIRST_AGAIN
            return bool(server.seen("patch"))

        _wait(seen_later)
    finally:
        events.stop()


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "no Event came"
        time.sleep(0.01)


def test_with_every_feature_on_the_role_is_just_what_is_used(asked: Callable[..., set[Permission]]) -> None:
    assert asked(nodes="auto", workloads=True) == set(granted(of_kind("ClusterRole")["rules"]))


@pytest.mark.parametrize("nodes_followed", ["own", "all", "auto"])
def test_without_opt_out_the_rules_for_it_are_not_needed(
    asked: Callable[..., set[Permission]], nodes_followed: str
) -> None:
    whole = set(granted(of_kind("ClusterRole")["rules"]))
    for_opt_out = {(group, resource, verb) for group, resource, verb in whole if resource in OPT_OUT}
    assert asked(nodes=nodes_followed) == whole - for_opt_out


OPT_OUT = ("pods", "namespaces")


def test_rules_that_a_flag_needs_name_the_flag() -> None:
    lines = FILE.read_text().splitlines()
    for resource, flag in (("nodes", "--remote-node-ports"), ("pods", "--opt-out=on")):
        (at,) = [number for number, line in enumerate(lines) if f'resources: ["{resource}"]' in line]
        comments = [line for line in lines[at - 3 : at] if line.strip().startswith("#")]
        assert any(flag in comment for comment in comments), resource


def test_no_rule_grants_twice_everything_or_more_than_reading_and_events() -> None:
    permissions = granted(of_kind("ClusterRole")["rules"])
    assert len(permissions) == len(set(permissions))
    assert not [p for p in permissions if "*" in p]
    assert {p for p in permissions if p[2] not in ("list", "watch")} == {
        ("events.k8s.io", "events", "create"),
        ("events.k8s.io", "events", "patch"),
    }


def test_what_a_refusal_tells_to_add_is_in_the_role() -> None:
    """The remedy printed at a 403 is the rule itself."""
    resources = (SERVICES, ENDPOINT_SLICES, SERVICE_CIDRS, NAMESPACES, nodes(None), pods_of("n"))
    rules = of_kind("ClusterRole")["rules"]
    for text in (*(resource.rbac_rule for resource in resources), RBAC_RULE):
        assert yaml.safe_load("{" + text + "}") in rules


def test_the_binding_leads_from_the_account_to_the_role() -> None:
    account, role, binding = (of_kind(k) for k in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"))
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": account["metadata"]["namespace"],
        }
    ]
