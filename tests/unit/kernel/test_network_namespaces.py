"""Work inside of a network namespace."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyagent.kernel.network_namespaces import inside
from pyagent.model.failures import KernelRefused


def test_a_file_that_is_no_namespace_is_not_taken_for_a_want_of_permission(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(KernelRefused, match="is no network namespace; give a path like /run/netns/NAME"):
        inside(path, lambda: None)
