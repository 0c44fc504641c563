"""Before Linux 5.11 maps count as locked memory: what `check` says where the limit cannot be lifted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.datapath.ground.capabilities import with_only

LIMIT = 1 << 16
# In a process of its own: a hard limit that was lowered stays so.
LOOK = f"""
import resource
from pyagent.kernel import preflight
resource.setrlimit(resource.RLIMIT_MEMLOCK, ({LIMIT}, {LIMIT}))
preflight.kernel_version = lambda: (5, 10)
for found in preflight._locked_memory():
    print(found.state.value, found.needed, found.detail, found.remedy, sep="|")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up capabilities")
def test_without_sys_resource_too_little_locked_memory_is_told() -> None:
    command = [*with_only(), sys.executable, "-c", LOOK]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    state, needed, detail, remedy = done.stdout.strip().split("|")
    assert (state, needed, detail) == ("missing", "True", f"limited to {LIMIT} bytes")
    assert remedy.startswith("grant CAP_SYS_RESOURCE, or raise it: ")
