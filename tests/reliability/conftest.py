"""The ground of the datapath tests."""

from tests.datapath.conftest import (
    bpffs,
    cgroup,
    cluster,
    compiled,
    hooks,
    in_client,
    manifests,
    sandbox,
    start_agent,
)

__all__ = [
    "bpffs",
    "cgroup",
    "cluster",
    "compiled",
    "hooks",
    "in_client",
    "manifests",
    "sandbox",
    "start_agent",
]
