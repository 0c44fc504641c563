"""deploy/kustomize and install.yaml: against the API's schemas, kubectl, the command line and each other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pyagent import __version__
from pyagent.agent.config import AgentConfig, parse_run_options
from pyagent.agent.facts import Facts
from pyagent.agent.health import health_pages, metrics_pages
from pyagent.agent.http_exchange import Request
from pyagent.agent.options import OPTIONS
from pyagent.cluster.node_taint import RBAC_RULE

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kustomize"
MANIFESTS = runpy.run_path(str(ROOT / "build-aux" / "manifests.py"))
DEFAULTS = {option.flag: option.default for option in OPTIONS}
SCHEMAS = "1.36"
FORMS = ("base", "overlays/least-privilege", "overlays/host-only", "overlays/canary")
WAY_BACK = "overlays/cleanup"
COMPONENTS = ("startup-taint", "podmonitor", "networkpolicy")
OTHERS_KINDS = {"PodMonitor"}
"""Of other projects' APIs, which the schemas do not hold."""

Object = dict[str, Any]


@cache
def rendered(form: str, component: str = "") -> tuple[Object, ...]:
    objects = MANIFESTS["render"](FOLDER / form)
    if component:
        objects = MANIFESTS["add_component"](objects, FOLDER / "components" / component)
    return tuple(objects)


CASES = [(form, "") for form in FORMS] + [("overlays/least-privilege", one) for one in COMPONENTS]


def of_kind(objects: tuple[Object, ...], kind: str, name: str = "kubesock") -> Object:
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod(objects: tuple[Object, ...]) -> Object:
    spec: Object = of_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def container(objects: tuple[Object, ...]) -> Object:
    (only,) = pod(objects)["containers"]
    return dict(only)


def settings(objects: tuple[Object, ...], tmp_path: Path, api_server: str = "") -> AgentConfig:
    """What the agent makes of its arguments, with the environment and the files of its pod."""
    config = tmp_path / "config.yaml"
    config.write_text(of_kind(objects, "ConfigMap")["data"]["config.yaml"])
    given = {}
    for argument in container(objects)["args"][1:]:
        flag, _, value = argument.partition("=")
        value = value.replace("/etc/kubesock/config.yaml", str(config))
        value = value.replace("$(NODE_NAME)", "node-a").replace("$(API_SERVER)", api_server)
        given[flag] = value if "=" in argument else "true"
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    return parse_run_options(given, environ=environ, hostname="h")


@pytest.mark.parametrize(("form", "component"), [*CASES, (WAY_BACK, "")])
def test_the_api_accepts_every_object(form: str, component: str) -> None:
    for found in rendered(form, component):
        if found["kind"] not in OTHERS_KINDS:
            kubernetes_validate.validate(found, SCHEMAS, strict=True)


@pytest.mark.parametrize("form", [*FORMS, WAY_BACK])
def test_kubectl_renders_the_same(form: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not here")
    done = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / form)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def ordered(objects: Any) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in objects)

    assert ordered(yaml.safe_load_all(done.stdout)) == ordered(rendered(form))


def test_install_yaml_is_the_preferred_form() -> None:
    held = (ROOT / "deploy" / "install.yaml").read_text(encoding="utf-8")
    assert held == MANIFESTS["document"](), "run `make manifests`"


@pytest.mark.parametrize(("form", "component"), CASES)
def test_the_agent_takes_its_arguments(form: str, component: str, tmp_path: Path) -> None:
    objects = rendered(form, component)
    assert container(objects)["args"][0] == "run"
    config = settings(objects, tmp_path)
    assert config.node_name == "node-a"
    assert config.api_server is None  # until somebody writes it into the ConfigMap
    assert settings(objects, tmp_path, "192.0.2.1:6443").api_server == "192.0.2.1:6443"
    assert config.host_only == (form == "overlays/host-only")
    assert config.startup_taint == ("kubesock.io/agent-not-ready" if component == "startup-taint" else "")
    assert not [note for note in config.notes if "ignored" in note or "unknown" in note]


@pytest.mark.parametrize(("form", "component"), CASES)
def test_ports_and_pages_are_the_agents_own(form: str, component: str, tmp_path: Path) -> None:
    objects = rendered(form, component)
    config, only = settings(objects, tmp_path), container(objects)
    ports = {port["name"]: port["containerPort"] for port in only["ports"]}
    assert config.healthz_bind_address is not None
    assert ports.pop("healthz") == config.healthz_bind_address.port
    if ports:
        assert config.metrics_bind_address is not None
        assert ports == {"metrics": config.metrics_bind_address.port}
    health = health_pages(Facts())
    for probe, page in (("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        asked = only[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == (page, "healthz")
        assert health(Request("GET", page)).status != 404
    assert all(port["hostPort"] == port["containerPort"] for port in only["ports"])


def test_the_canary_disturbs_no_kube_proxy_on_its_node(tmp_path: Path) -> None:
    objects = rendered("overlays/canary")
    config = settings(objects, tmp_path)
    taken = {int(DEFAULTS[f"--{name}-bind-address"].rpartition(":")[2]) for name in ("healthz", "metrics")}
    own = {address.port for address in (config.healthz_bind_address, config.metrics_bind_address) if address}
    assert len(own) == 2
    assert not own & taken
    assert config.outside == "off"
    assert pod(objects)["nodeSelector"]["kubesock.io/canary"] == "true"


def test_the_monitor_finds_what_it_scrapes() -> None:
    objects = rendered("overlays/least-privilege", "podmonitor")
    monitor = of_kind(objects, "PodMonitor")["spec"]
    labels = of_kind(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container(objects)["ports"]}
    pages = metrics_pages(lambda: (b"", "text/plain"), dict)
    assert pages(Request("GET", endpoint["path"])).status == 200


def test_the_policy_opens_the_ports_that_the_agent_has() -> None:
    policy = of_kind(rendered("overlays/least-privilege", "networkpolicy"), "NetworkPolicy")["spec"]
    opened = {str(port["port"]) for rule in policy["ingress"] for port in rule["ports"]}
    assert opened == {
        DEFAULTS[f"--{name}-bind-address"].rpartition(":")[2] for name in ("healthz", "metrics")
    }


@pytest.mark.parametrize("form", FORMS)
def test_mounts_are_where_the_agent_looks(form: str) -> None:
    objects = rendered(form)
    mounts = {mount["name"]: mount for mount in container(objects)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    assert mounts.keys() == volumes.keys()
    paths = {
        name: (mounts[name]["mountPath"], volumes[name]["hostPath"]["path"])
        for name in mounts
        if name != "config"
    }
    assert DEFAULTS["--bpffs"].startswith(paths["bpffs"][0] + "/")
    assert paths["state"] == (DEFAULTS["--state-dir"],) * 2
    assert paths["netns"] == ("/run/netns",) * 2
    # Not at the same path: there the runtime mounts the container's own part of the hierarchy.
    assert paths["cgroup"] == ("/run/kubesock/cgroup", "/sys/fs/cgroup")
    assert mounts["netns"]["mountPropagation"] == "HostToContainer"


def test_the_preferred_form_has_what_the_documents_promise() -> None:
    objects = rendered("overlays/least-privilege")
    context = container(objects)["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]}
    assert context["readOnlyRootFilesystem"]
    assert not context["privileged"]
    assert not context["allowPrivilegeEscalation"]
    propagation = {mount.get("mountPropagation") for mount in container(objects)["volumeMounts"]}
    assert "Bidirectional" not in propagation  # for privileged containers alone
    assert "hostPID" not in pod(objects)


@pytest.mark.parametrize("form", FORMS)
def test_the_daemonset_comes_first_and_goes_last(form: str) -> None:
    found = of_kind(rendered(form), "DaemonSet")["spec"]
    assert found["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1
    spec = found["template"]["spec"]
    assert spec["hostNetwork"]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["serviceAccountName"] == of_kind(rendered(form), "ServiceAccount")["metadata"]["name"]
    assert container(rendered(form))["image"] == f"kubesock:{__version__}"


def test_the_role_of_the_startup_taint_is_what_its_refusal_asks_for() -> None:
    objects = rendered("overlays/least-privilege", "startup-taint")
    role = of_kind(objects, "ClusterRole", "kubesock-startup-taint")
    assert role["rules"] == [yaml.safe_load("{" + RBAC_RULE + "}")]
    binding = of_kind(objects, "ClusterRoleBinding", "kubesock-startup-taint")
    assert binding["subjects"] == of_kind(objects, "ClusterRoleBinding")["subjects"]


@pytest.mark.parametrize("code", [0, 1])
def test_the_way_back_cleans_up_in_the_agents_place_and_then_waits(code: int, tmp_path: Path) -> None:
    agents, cleaners = rendered("overlays/least-privilege"), rendered(WAY_BACK)
    # The same object: applied, it takes the agents' place one by one.
    assert [(one["kind"], one["metadata"]) for one in cleaners] == [
        (one["kind"], one["metadata"]) for one in agents
    ]
    assert (
        of_kind(cleaners, "DaemonSet")["spec"]["selector"] == of_kind(agents, "DaemonSet")["spec"]["selector"]
    )
    assert (
        of_kind(cleaners, "DaemonSet")["spec"]["minReadySeconds"] > 0
    )  # one that fails at once stops the rollout
    for same in ("securityContext", "volumeMounts", "image"):
        assert container(cleaners)[same] == container(agents)[same]
    program = tmp_path / "kubesock"
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\nexit {code}\n')
    program.chmod(0o755)
    search = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    with subprocess.Popen(container(cleaners)["command"], env=search, start_new_session=True) as pod_process:
        try:
            if code == 0:
                with pytest.raises(subprocess.TimeoutExpired):
                    pod_process.wait(1)
                pod_process.terminate()
            assert pod_process.wait(30) == code
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pod_process.pid, signal.SIGKILL)  # and the sleep that it began
    assert (tmp_path / "called").read_text() == "cleanup\n"


def test_the_documents_kustomization_leads_to_the_form(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"(?:^    .*\n)*^    resources:.*\n(?:^    .*\n)*", text, flags=re.MULTILINE)
    told = yaml.safe_load(textwrap.dedent(block))
    (tmp_path / "kubesock").symlink_to(ROOT)
    (resource,) = told["resources"]
    assert not Path(resource).is_absolute()  # kustomize refuses it
    (tmp_path / "mine").mkdir()
    assert (tmp_path / "mine" / resource).resolve() == FOLDER / "overlays" / "least-privilege"
    (image,) = told["images"]
    assert f"{image['name']}:{image['newTag']}" == container(rendered("base"))["image"]


def test_every_folder_is_rendered_here() -> None:
    folders = {str(path.parent.relative_to(FOLDER)) for path in FOLDER.glob("**/kustomization.yaml")}
    assert folders == {*FORMS, WAY_BACK, *(f"components/{name}" for name in COMPONENTS)}


def test_what_kustomize_knows_and_we_do_not_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: x-\nresources: []\n")
    with pytest.raises(ValueError, match=re.escape("namePrefix")):
        MANIFESTS["render"](tmp_path)
