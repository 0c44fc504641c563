"""Shell scripts, and the virtual machines that some of them make, as far as no machine is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
VAGRANT = ROOT / "vagrant"
FOLDERS = ("build-aux", "deploy", "vagrant", ".ci")


def shell_scripts() -> list[str]:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(
        str(path.relative_to(ROOT)) for path in files if re.match(rb"#!.*\b(ba)?sh\b", path.read_bytes()[:40])
    )


def versions() -> dict[str, str]:
    text = (VAGRANT / "versions.env").read_text(encoding="utf-8")
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("script", shell_scripts())
def test_a_script_is_free_of_what_shellcheck_warns_about(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here")
    done = subprocess.run(
        ["shellcheck", "-x", "--severity=warning", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", shell_scripts())
def test_a_script_can_be_read_by_its_shell(script: str) -> None:
    done = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_version_that_the_machines_use_stands_in_the_one_file() -> None:
    named = set()
    for path in VAGRANT.glob("*.sh"):
        named |= set(re.findall(r"\$\{?([A-Z][A-Z_]*_(?:VERSION|IMAGE|PACKAGES))\b", path.read_text()))
    named |= set(re.findall(r'VERSIONS\.fetch\("(\w+)"\)', (VAGRANT / "Vagrantfile").read_text()))
    assert named == versions().keys()
    used = (*VAGRANT.glob("*.sh"), VAGRANT / "Vagrantfile", VAGRANT / "demo.yaml")
    elsewhere = [path.name for path in used if re.search(r"https://|registry\.|docker\.io", path.read_text())]
    assert not elsewhere


def test_packages_are_of_the_version_that_is_installed() -> None:
    minor = versions()["KUBERNETES_VERSION"].rpartition(".")[0]
    assert f"/v{minor}/" in versions()["KUBERNETES_PACKAGES"]


def test_the_api_accepts_the_demo() -> None:
    text = (VAGRANT / "demo.yaml").read_text(encoding="utf-8")
    objects = list(yaml.safe_load_all(text.replace("AGNHOST_IMAGE", versions()["AGNHOST_IMAGE"])))
    for found in objects:
        kubernetes_validate.validate(found, "1.36", strict=True)
    deployment, service, _ = objects
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (listening,) = deployment["spec"]["template"]["spec"]["containers"]
    assert port["targetPort"] == listening["ports"][0]["containerPort"]
    assert str(port["nodePort"]) in (VAGRANT / "verify.sh").read_text(encoding="utf-8")
