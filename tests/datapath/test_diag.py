"""`kubesock diag` of a real agent of a cluster: all is in it, and no secret."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from pyagent.demo.agent_process import kubesock, run_verb
from pyagent.kernel.connections import PIN
from tests.datapath.ground import StartAgent, endpoint_slice, service
from tests.datapath.ground.api import ApiProcess
from tests.datapath.ground.waiting import wait_for

pytestmark = pytest.mark.kernel


def contents(data: bytes) -> dict[str, str]:
    """Name below the archive's folder -> text."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            assert member.isfile()
            assert member.mode == 0o600
            file = archive.extractfile(member)
            assert file is not None
            folder, _, name = member.name.partition("/")
            assert folder.startswith("kubesock-diag-")
            found[name] = file.read().decode()
    return found


def test_a_bundle_has_everything_but_secrets(tmp_path: Path, start_agent: StartAgent) -> None:
    (tmp_path / "api").mkdir()
    api = ApiProcess(tmp_path / "api")
    agent = None
    try:
        port = (("http", 80, "TCP"),)
        api.put(service("web", ["10.96.0.61"], port), endpoint_slice("web", ["10.244.1.20"], port))
        agent = start_agent(kubeconfig=api.kubeconfig, in_node_namespace=False)
        wait_for(lambda: [row["name"] for row in agent.rows("services")], lambda n: "web" in n, "the Service")
        wait_for((agent.bpffs / "current" / PIN).exists, bool, "the connection table")
        file = tmp_path / "bundle.tar.gz"
        where = (f"--bpffs={agent.bpffs}", f"--state-dir={agent.state_dir}", f"--cgroup={agent.cgroup}")
        done = subprocess.run(
            kubesock("diag", f"--output={file}", *where),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "API_TOKEN": "hidden-in-the-environment"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(file)
        assert file.stat().st_mode & 0o777 == 0o600
        code, _, error = run_verb("diag", f"--output={file}", *where)
        assert (code, "exists already" in error) == (1, True)
    finally:
        api.stop()
    found = contents(file.read_bytes())
    everything = "\n".join(found.values())
    config = yaml.safe_load(api.kubeconfig.read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    secrets = [user["token"], "hidden-in-the-environment"]
    for path in (
        cluster.get("certificate-authority"),
        user.get("client-key"),
        user.get("client-certificate"),
    ):
        if path:
            secrets += [line for line in Path(path).read_text().splitlines() if len(line) > 40]
    assert len(secrets) > 5
    for secret in secrets:
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode()[:-3] not in everything
    for name, text in found.items():
        if name.endswith(".json"):
            json.loads(text)
    assert "default/web" in found["maps/names.json"]
    assert any(row["name"] == "web" for row in json.loads(found["services.json"])["items"])
    assert json.loads(found["agent/sync.json"])["ready"] is True
    assert "kubesock_ready 1.0" in found["agent/metrics.txt"]
    assert "kubesock run" in found["agent/process-cmdline.txt"] or "run" in found["agent/process-cmdline.txt"]
    assert found["errors.txt"] == "none\n"


def test_a_bundle_of_a_machine_without_anything_says_what_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        kubesock("diag", "-o", "-", f"--bpffs={tmp_path}", f"--state-dir={tmp_path}"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    found = contents(done.stdout)
    assert "services.json" not in found
    assert "services.json: " in found["errors.txt"]
    assert "nothing is pinned there" in found["errors.txt"]
    assert json.loads(found["check.json"])["items"]
