"""`kubesock run` as a process, in a node's namespace and outside the cgroup that it serves."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pyagent.demo.calls import call
from pyagent.demo.children import Child
from pyagent.demo.sandbox import Sandbox
from pyagent.model.failures import KubesockError

READY_SECONDS = 30.0
VERB_SECONDS = 30.0

# The entry point's own words, so that it is this interpreter and this package, installed or not.
_ENTRY = "import sys; sys.argv[0] = 'kubesock'; from pyagent.cli.main import main; sys.exit(main())"

_numbers = itertools.count(1)


def kubesock(*arguments: str) -> list[str]:
    """The command line of a verb, in this interpreter."""
    return [sys.executable, "-c", _ENTRY, *arguments]


def run_verb(*arguments: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `kubesock ARGUMENTS`."""
    done = subprocess.run(
        kubesock(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=VERB_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def items_of(text: str) -> list[dict[str, Any]]:
    """The items of a list verb's `-o json`.

    Raises:
        KubesockError: the text is no list.
    """
    try:
        items = json.loads(text)["items"]
    except (ValueError, KeyError, TypeError) as error:
        raise KubesockError(f"a list verb printed no list: {text[:200]!r}") from error
    return list(items)


def _free_ports() -> tuple[int, int]:
    """Two TCP ports that nobody uses in this network namespace."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname()[1], second.getsockname()[1]


class Agent:
    """One agent process. `log` holds what it wrote; `bpffs` is what the reading verbs want.

    Args:
        source: `("--manifests", DIR)` or `("--kubeconfig", FILE)`.
        netns: the node's namespace; None: the caller's, from where an API server on 127.0.0.1 is in reach.
        arguments: more of `kubesock run`'s.
        launcher: a command that runs what follows it, before all of them.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        source: tuple[str, str],
        *,
        node_name: str,
        cgroup: Path,
        bpffs: Path,
        state_dir: Path,
        netns: Path | None,
        arguments: tuple[str, ...] = (),
        launcher: tuple[str, ...] = (),
    ) -> None:
        self.cgroup, self.bpffs, self.state_dir, self.netns = cgroup, bpffs, state_dir, netns
        self.health_port, self.metrics_port = call(_free_ports, netns=netns)
        self.log = sandbox.folder / f"agent-{next(_numbers)}.log"
        command = kubesock(
            "run",
            *source,
            f"--node-name={node_name}",
            f"--cgroup={cgroup}",
            f"--bpffs={bpffs}",
            f"--state-dir={state_dir}",
            f"--metrics-bind-address=127.0.0.1:{self.metrics_port}",
            f"--healthz-bind-address=127.0.0.1:{self.health_port}",
            *arguments,
        )
        self.command = [*launcher, *command]
        own = sandbox.new_cgroup("agent")
        self.process: Child = sandbox.spawn(
            self.command, netns=netns, cgroup=own, log=self.log.name, label="kubesock run"
        )

    def wait_ready(self, timeout: float = READY_SECONDS) -> None:
        """Wait until /readyz answers 200.

        Raises:
            KubesockError: it ended, or is not ready in time; the text has the end of its log.
        """
        deadline = time.monotonic() + timeout
        said: object = "nothing"
        while time.monotonic() < deadline:
            if not self.process.running:
                raise KubesockError(f"the agent ended with {self.process.wait(0)}\n{self.log_tail()}")
            try:
                status, body = self.get("/readyz")
            except OSError as error:
                said = error
            else:
                if status == 200:
                    return
                said = f"{status} {body}"
            time.sleep(0.02)
        raise KubesockError(f"the agent is not ready after {timeout:g} s, /readyz: {said}\n{self.log_tail()}")

    def get(self, path: str, metrics: bool = False) -> tuple[int, str]:
        """(status, body) of a path of the health server, or of the metrics server."""
        port = self.metrics_port if metrics else self.health_port

        def ask() -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()

        return call(ask, netns=self.netns)

    def verb(self, name: str, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a verb against this agent's pins."""
        return run_verb(name, f"--bpffs={self.bpffs}", *arguments)

    def rows(self, verb: str, *arguments: str) -> list[dict[str, Any]]:
        """The items of a list verb (`services`, `backends`, ...) of all namespaces."""
        code, out, err = self.verb(verb, "-A", "-o", "json", *arguments)
        if code != 0:
            raise KubesockError(f"kubesock {verb} ended with {code}: {err.strip()}")
        return items_of(out)

    def stop(self, signal_number: signal.Signals = signal.SIGTERM, patience: float = 10.0) -> int:
        """End the process, which leaves its programs serving. Returns the exit code.

        Raises:
            KubesockError: it does not end; it is killed then.
        """
        self.process.send(signal_number)
        code = self.process.wait(patience)
        if code is None:
            self.process.kill()
            raise KubesockError(f"the agent ignores {signal_number.name}\n{self.log_tail()}")
        return code

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
