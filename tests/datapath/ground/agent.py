"""What the `start_agent` fixture gives."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pyagent.demo.agent_process import Agent, run_verb

__all__ = ["Agent", "StartAgent", "run_verb"]


class StartAgent(Protocol):
    def __call__(
        self,
        manifests: Path | None = None,
        *,
        kubeconfig: Path | None = None,
        cgroup: Path | None = None,
        bpffs: Path | None = None,
        state_dir: Path | None = None,
        in_node_namespace: bool = True,
        ready: bool = True,
        arguments: tuple[str, ...] = (),
        launcher: tuple[str, ...] = (),
    ) -> Agent:
        """Start an agent for node `n`, by default on this test's cgroup, bpffs folder and state folder.

        Args:
            bpffs, state_dir: of the test if None; the same again restarts onto its pins.
            in_node_namespace: False runs it in the test's own namespace, from where an API server on
                127.0.0.1 can be reached.
            ready: wait until /readyz answers 200.
            arguments: more of `kubesock run`'s.
            launcher: see `Agent`.
        """
