"""The image: what is in it, and that clients outside its containers are translated."""

from __future__ import annotations

import json
import runpy
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.datapath.ground import endpoint_slice, service
from tests.datapath.ground.asking import ask_tcp, ask_udp
from tests.datapath.ground.cluster import InClient, SmallCluster
from tests.datapath.ground.dialling import errno_of
from tests.datapath.ground.manifests import Manifests
from tests.datapath.ground.waiting import wait_for
from tests.image.conftest import Node, Podman

pytestmark = [pytest.mark.kernel, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
CLEANUP = ROOT / "deploy" / "kustomize" / "overlays" / "cleanup"
UNSERVED = {"timeout", "ENETUNREACH", "EHOSTUNREACH"}
FRONTEND = "10.96.0.1"
PORTS = [("t", 80, "TCP"), ("u", 80, "UDP")]

THREE = ["--cap-drop=ALL", "--cap-add=BPF", "--cap-add=NET_ADMIN", "--cap-add=PERFMON"]
UNCONFINED = ["--security-opt=seccomp=unconfined", "--security-opt=no-new-privileges"]
LEAST = [*THREE, *UNCONFINED]
PRIVILEGED = ["--privileged"]


def put_service(manifests: Manifests, cluster: SmallCluster, server: str) -> None:
    ports = [("t", 8080, "TCP"), ("u", 8080, "UDP")]
    made = [
        service("web", [FRONTEND], PORTS),
        endpoint_slice("web", [cluster.server(server).ipv4], ports),
    ]
    manifests.write("web", made)


def answering(in_client: InClient) -> set[str]:
    tcp = in_client(partial(ask_tcp, FRONTEND, 80))
    udp = in_client(partial(ask_udp, FRONTEND, 80))
    assert tcp.peer == udp.peer == (FRONTEND, 80)
    return {tcp.pod, udp.pod}


@pytest.mark.parametrize("options", [LEAST, PRIVILEGED], ids=["three capabilities", "privileged"])
def test_a_client_outside_the_container_is_translated(
    node: Node, manifests: Manifests, cluster: SmallCluster, in_client: InClient, options: list[str]
) -> None:
    put_service(manifests, cluster, "a")
    node.start(options)
    node.wait_ready()
    assert answering(in_client) == {"a"}
    status = node.verb("status")
    assert status.returncode in (0, 4), status.stderr + status.stdout
    assert "web:t" in node.verb("services", "-A", "--no-headers").stdout
    assert node.stop() == 0
    assert answering(in_client) == {"a"}  # what is attached outlives the container
    put_service(manifests, cluster, "b")
    node.start(options)
    node.wait_ready()
    assert answering(in_client) == {"b"}


def test_the_two_forms_follow_each_other_on_the_same_pins(
    node: Node, manifests: Manifests, cluster: SmallCluster, in_client: InClient
) -> None:
    put_service(manifests, cluster, "a")
    node.start(PRIVILEGED)
    node.wait_ready()
    node.stop()
    put_service(manifests, cluster, "c")
    node.start(LEAST)
    node.wait_ready()
    assert answering(in_client) == {"c"}


def test_the_way_back_leaves_nothing_attached_and_nothing_pinned(
    node: Node, manifests: Manifests, cluster: SmallCluster, in_client: InClient
) -> None:
    put_service(manifests, cluster, "a")
    node.start(LEAST)
    node.wait_ready()
    assert answering(in_client) == {"a"}
    node.stop()
    rendered = runpy.run_path(str(ROOT / "build-aux" / "manifests.py"))["render"](CLEANUP)
    (daemonset,) = [one for one in rendered if one["kind"] == "DaemonSet"]
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    node.start(LEAST, instead=container["command"])
    pins = node.bpffs / "kubesock"
    wait_for(pins.exists, lambda there: not there, "every pin to go", patience=120)
    assert not list(node.state.iterdir())
    assert in_client(partial(errno_of, socket.create_connection, (FRONTEND, 80), 0.5)) in UNSERVED
    assert node.process is not None
    assert node.process.running  # and waits for its end
    assert node.stop() == 0


def test_the_runtimes_own_seccomp_profile_is_named_by_the_refusal(
    node: Node, manifests: Manifests, cluster: SmallCluster
) -> None:
    put_service(manifests, cluster, "a")
    node.start(THREE)
    assert node.wait_ended() in (1, 3)
    assert "seccomp" in node.log


def test_the_whole_hierarchy_is_found_where_the_daemonset_mounts_it(podman: Podman) -> None:
    """With the runtime's own mounts at /sys/fs/cgroup, whatever they are."""
    mounted = ["--volume=/sys/fs/cgroup:/run/kubesock/cgroup:ro", "--user=0:0", *LEAST]
    done = podman.once("check", "-o", "json", options=mounted)
    rows = {row["check"]: row for row in json.loads(done.stdout)["items"]}
    assert rows["cgroup v2"]["state"] == "found", rows["cgroup v2"]
    assert rows["cgroup v2"]["detail"].startswith("/run/kubesock/cgroup")
    assert {rows[name]["state"] for name in ("BCC", "capabilities", "UAPI headers")} == {"found"}


def test_verbs_run_as_nobody_in_particular(podman: Podman) -> None:
    done = podman.once("version", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bcc"]
    (facts,) = json.loads(podman("image", "inspect", podman.image).stdout)
    assert facts["Config"]["User"] == "65532:65532"


def test_there_is_neither_a_compiler_nor_an_installer_nor_a_kernel_header(podman: Podman) -> None:
    names = "cc gcc g++ c++ clang clang-14 ld as make pip pip3 ipython3"
    script = f"for name in {names}; do command -v $name; done; ls /lib/modules /usr/src/* 2>/dev/null; true"
    done = podman.once("-c", script, options=["--entrypoint=/bin/sh"])
    assert done.stdout == "", done.stdout


def test_the_labels_name_what_it_is(podman: Podman) -> None:
    from pyagent import __version__

    (facts,) = json.loads(podman("image", "inspect", podman.image).stdout)
    labels = facts["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0 AND GPL-2.0-only"
    assert labels["org.opencontainers.image.revision"]


def test_the_bill_of_materials_lists_every_package(podman: Podman) -> None:
    script = "cat /usr/share/sbom/kubesock.cdx.json; echo; echo ---; dpkg-query -W -f '${binary:Package}\\n'"
    done = podman.once("-c", script, options=["--entrypoint=/bin/sh"])
    text, _, packages = done.stdout.partition("\n---\n")
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    names = {(one["purl"].split("/")[0], one["name"]) for one in document["components"]}
    assert {name for kind, name in names if kind == "pkg:deb"} == {
        package.partition(":")[0] for package in packages.split()
    }
    locked = Path(__file__).resolve().parents[2] / "requirements.lock"
    pinned = {line.split("==")[0] for line in locked.read_text().splitlines() if "==" in line}
    assert pinned | {"kubesock"} == {name for kind, name in names if kind == "pkg:pypi"}
