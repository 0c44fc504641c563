"""`kubesock cleanup --kube-proxy` where it cannot look."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pyagent.cli.main import kubesock


def test_without_the_tools_nothing_is_said_to_be_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for more in ((), ("--dry-run",), ("--force",)):
        done = CliRunner().invoke(kubesock, ["cleanup", "--kube-proxy", f"--bpffs={tmp_path}", *more])
        assert done.exit_code == 1
        assert "nothing was looked at" in f"{done.output} {done.exception}"
        assert "nothing of kube-proxy's" not in done.output
        assert "nft is not installed" in done.output
