"""`kubectl kubesock` with a kubectl that knows two nodes and runs verbs on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
PLUGIN = ROOT / "deploy/kubectl/kubectl-kubesock"
ENTRY = "import sys; sys.argv[0] = 'kubesock'; from pyagent.cli.main import main; sys.exit(main())"

KUBECTL = '''#!{python} -SE
"""Stands for kubectl: writes down how it was called, knows pods, and `exec` runs the command here."""
import json, os, sys
arguments = sys.argv[1:]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
while arguments and arguments[0].startswith(("--context=", "--kubeconfig=", "--as=", "--request-timeout=")):
    arguments.pop(0)
if arguments[:2] == ["config", "view"]:
    print(os.environ.get("CONTEXT_NAMESPACE", ""), end="")
elif arguments[:2] == ["get", "pods"]:
    assert "--selector=app.kubernetes.io/name=kubesock" in arguments, arguments
    if os.environ.get("FORBIDDEN"):
        print("Error from server (Forbidden): pods is forbidden", file=sys.stderr)
        sys.exit(1)
    pods = [("kubesock-a", "worker-1", "False"), ("kubesock-b", "worker-2", "True")]
    if "--namespace=kube-system" not in arguments:
        pods = []
    for flag in arguments:
        if flag.startswith("--field-selector=spec.nodeName="):
            pods = [pod for pod in pods if pod[1] == flag.rpartition("=")[2]]
    print("".join("\\t".join(pod) + "\\n" for pod in pods), end="")
elif arguments[0] == "exec":
    command = arguments[arguments.index("--") + 1 :]
    assert command[0] == "/opt/kubesock/bin/kubesock", command
    if "RUN" in os.environ:
        os.execv(sys.executable, [sys.executable, "-c", {entry!r}, *command[1:]])
else:
    sys.exit(f"unexpected: {{arguments}}")
'''


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        kubectl = folder / "kubectl"
        kubectl.write_text(KUBECTL.format(python=sys.executable, entry=ENTRY))
        kubectl.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        return subprocess.run(
            [str(PLUGIN), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "CALLS": str(self.calls_file),
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                **environment,
            },
        )

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    @property
    def executed(self) -> list[list[str]]:
        """What ran in pods: [pod, argument of kubesock...]."""
        found = []
        for call in self.calls:
            if "exec" in call:
                pod = call[call.index("--namespace=kube-system") + 1]
                found.append([pod, *call[call.index("--") + 2 :]])
        return found


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_a_verb_runs_in_the_pod_of_the_node_with_its_exit_code(cluster: Cluster) -> None:
    nowhere = str(cluster.folder / "nowhere")
    done = cluster.run("--node", "worker-1", "status", "--bpffs", nowhere, RUN="1")
    assert cluster.executed == [["kubesock-a", "status", "--bpffs", nowhere]]
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is pinned there" in done.stderr


def test_without_a_node_one_whose_agent_is_ready_is_taken_and_named(cluster: Cluster) -> None:
    done = cluster.run("version", "-o", "json", RUN="1")
    assert done.returncode == 0
    assert json.loads(done.stdout)["kind"] == "Version"
    assert done.stderr == "kubectl kubesock: on node worker-2\n"


def test_all_nodes_are_asked_in_turn_and_the_worst_code_counts(cluster: Cluster) -> None:
    done = cluster.run("status", "--all-nodes", "--bpffs=/nowhere", RUN="1")
    assert [pod for pod, *_ in cluster.executed] == ["kubesock-a", "kubesock-b"]
    assert done.returncode == 3
    assert re.findall(r"on node (\S+)", done.stderr) == ["worker-1", "worker-2"]


def test_flags_of_kubectl_go_to_kubectl_and_the_rest_to_the_verb(cluster: Cluster) -> None:
    cluster.run(
        "backends", "shop/web:http", "--context", "my context", "--kubeconfig=/tmp/it's here", "-o", "wide"
    )
    assert cluster.calls
    for call in cluster.calls:
        assert call[:2] == ["--context=my context", "--kubeconfig=/tmp/it's here"]
    assert cluster.executed == [["kubesock-b", "backends", "shop/web:http", "-o", "wide"]]


@pytest.mark.parametrize(
    ("arguments", "context", "passed"),
    [
        (("services",), "shop", ["--namespace=shop"]),
        (("services",), "", ["--namespace=default"]),
        (("services", "-n", "media"), "shop", ["--namespace=media"]),
        (("-n", "media", "services"), "shop", ["--namespace=media"]),
        (("services", "--namespace=media"), "shop", ["--namespace=media"]),
        (("services", "-A"), "shop", []),
        (("connections", "--all-namespaces"), "shop", []),
        (("maps",), "shop", []),
    ],
)
def test_namespaces_are_chosen_as_with_kubectl(
    cluster: Cluster, arguments: tuple[str, ...], context: str, passed: list[str]
) -> None:
    cluster.run(*arguments, CONTEXT_NAMESPACE=context)
    ((_, _, *rest),) = cluster.executed
    assert rest == passed


def test_arguments_reach_the_verb_as_they_were_typed(cluster: Cluster) -> None:
    awkward = ["a b", "it's", '"quoted"', "$HOME", "`id`", "*", "\\", ""]
    cluster.run("explain", *awkward)
    assert cluster.executed == [["kubesock-b", "explain", *awkward]]


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        ((), 2, "which verb?"),
        (("nonsense",), 2, "no such verb"),
        (("--nonsense", "services"), 2, "no such flag"),
        (("run",), 2, "on the node itself"),
        (("cleanup",), 2, "on the node itself"),
        (("services", "--node"), 2, "want a value"),
        (("services", "--node", "worker-9"), 3, "no agent runs on node worker-9"),
        (("services", "--agents", "elsewhere"), 3, "where is the DaemonSet? --agents"),
    ],
)
def test_an_error_names_the_remedy(
    cluster: Cluster, arguments: tuple[str, ...], code: int, hint: str
) -> None:
    done = cluster.run(*arguments)
    assert done.returncode == code
    assert hint in done.stderr.splitlines()[-1]


def test_what_kubectl_refuses_ends_with_its_words(cluster: Cluster) -> None:
    done = cluster.run("services", FORBIDDEN="1")
    assert done.returncode == 1
    assert "pods is forbidden" in done.stderr


def test_help_is_written_as_kubectl_writes_plugins(cluster: Cluster) -> None:
    done = cluster.run("--help")
    assert done.returncode == 0
    assert "kubectl kubesock [--node NODE]" in done.stdout
    assert "Usage: kubesock services" in cluster.run("services", "--help", RUN="1").stdout


def test_the_verbs_of_the_plugin_exist() -> None:
    from pyagent.cli.main import VERBS

    line = re.search(r"^Verbs: (.*)$", PLUGIN.read_text(), re.MULTILINE)
    assert line is not None
    known = set(VERBS) | {"events"}
    assert set(line[1].split()) <= known


def test_a_bundle_comes_to_this_machine(cluster: Cluster) -> None:
    done = cluster.run("--node=worker-1", "diag", RUN="1")
    assert (done.returncode, done.stdout) == (0, "kubesock-diag-worker-1.tar.gz\n")
    file = cluster.folder / "kubesock-diag-worker-1.tar.gz"
    with tarfile.open(file) as archive:
        assert any(name.endswith("/version.json") for name in archive.getnames())


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kubectl_itself_finds_the_plugin(tmp_path: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kubesock", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": f"{PLUGIN.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "kubectl kubesock" in done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_no_fault() -> None:
    done = subprocess.run(
        ["shellcheck", str(PLUGIN)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""


def test_the_manifest_for_krew_names_the_archive_that_is_made_with_it(tmp_path: Path) -> None:
    def make(folder: str) -> bytes:
        subprocess.run(
            [
                ROOT / "build-aux/krew.sh",
                "https://kubesock.example",
                "https://kubesock.example/@VERSION@/k.tar.gz",
            ],
            check=True,
            capture_output=True,
            timeout=60,
            env={**os.environ, "DIST": str(tmp_path / folder)},
        )
        return (tmp_path / folder / "kubectl-kubesock.tar.gz").read_bytes()

    data = make("one")
    assert data == make("two")
    manifest = yaml.safe_load((tmp_path / "one/kubesock.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == (
        "krew.googlecontainertools.github.com/v1alpha2",
        "Plugin",
    )
    spec = manifest["spec"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", spec["version"])
    assert len(spec["shortDescription"]) <= 50
    assert "@" not in json.dumps(manifest)
    (platform,) = spec["platforms"]
    assert platform["sha256"] == hashlib.sha256(data).hexdigest()
    assert platform["uri"] == f"https://kubesock.example/{spec['version']}/k.tar.gz"
    with tarfile.open(tmp_path / "one/kubectl-kubesock.tar.gz") as archive:
        names = archive.getnames()
        plugin = archive.getmember(platform["bin"])
    assert plugin.mode & 0o111
    assert {file["from"] for file in platform["files"]} == set(names)


def test_the_plugins_for_k9s_are_whole_and_call_what_exists() -> None:
    from pyagent.cli.main import VERBS

    plugins = yaml.safe_load((ROOT / "deploy/k9s/plugins.yaml").read_text())["plugins"]
    assert plugins
    shortcuts = [plugin["shortCut"] for plugin in plugins.values()]
    assert len(set(shortcuts)) == len(shortcuts)
    for plugin in plugins.values():
        assert plugin.keys() == {"shortCut", "description", "scopes", "command", "background", "args"}
        line = " ".join([plugin["command"], *plugin["args"]])
        assert set(re.findall(r"\$([A-Z][A-Z-]*)", line)) <= {"CONTEXT", "NAMESPACE", "NAME", "COL-NODE"}
        words = re.split(r"\s+", line.partition("kubesock ")[2])
        assert any(word in VERBS for word in words), line
