"""Containers of the image under test, with the mounts that a node gives them, all of them the test's own."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pyagent.demo.calls import call
from pyagent.demo.children import Child
from pyagent.demo.sandbox import Sandbox, remove_leftovers
from tests.datapath.ground.cluster import InClient, SmallCluster
from tests.datapath.ground.manifests import Manifests

READY_SECONDS = 120.0
_numbers = itertools.count(1)


class Podman:
    """The container engine with the store that holds the image.

    Attributes:
        command: its command line as far as the verb.
        run_options: what `run` needs on this machine.
    """

    def __init__(self, command: Sequence[str], run_options: Sequence[str], image: str) -> None:
        self.command, self.run_options, self.image = list(command), list(run_options), image

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def once(self, *arguments: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run the image's program and wait for its end."""
        where = ["--rm", "--network=none", "--read-only", *options]
        return self("run", *self.run_options, *where, self.image, *arguments, check=False)


@pytest.fixture(scope="session")
def podman() -> Podman:
    image = os.environ.get("KUBESOCK_IMAGE", "")
    if not image:
        pytest.skip("no image to test: `make image-test` builds one")
    command = shlex.split(os.environ.get("KUBESOCK_PODMAN", "podman"))
    return Podman(command, shlex.split(os.environ.get("KUBESOCK_PODMAN_RUN", "")), image)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    remove_leftovers("test")
    with Sandbox.create("test") as made:
        yield made


@pytest.fixture(scope="session")
def cluster(sandbox: Sandbox) -> SmallCluster:
    return SmallCluster(sandbox)


@pytest.fixture
def cgroup(sandbox: Sandbox) -> Iterator[Path]:
    name = f"served{next(_numbers)}"
    yield sandbox.new_cgroup(name)
    sandbox.remove_cgroup(name)


@pytest.fixture
def in_client(cluster: SmallCluster, cgroup: Path) -> InClient:
    return InClient(cluster.client.netns, cgroup)


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    return Manifests(tmp_path / "manifests")


class Node:
    """What the containers of one node share: namespace, served cgroup, bpffs, state."""

    def __init__(
        self, podman: Podman, sandbox: Sandbox, cluster: SmallCluster, cgroup: Path, folder: Path
    ) -> None:
        self._podman, self._sandbox, self._cluster = podman, sandbox, cluster
        self._cgroup = cgroup
        self.bpffs = sandbox.bpffs / f"image{next(_numbers)}"
        self.bpffs.mkdir()
        self.state = folder / "state"
        self.state.mkdir()
        self._manifests = folder / "manifests"
        self.name = ""
        self.process: Child | None = None

    def start(self, options: Sequence[str], instead: Sequence[str] = ()) -> None:
        """Start the agent's container: read-only root, no way to the outside, the node's namespace.

        Args:
            options: podman's.
            instead: what runs in the agent's place, as a pod's `command`.
        """
        self.name = f"kubesock-{self._sandbox.id}-{next(_numbers)}"
        where = [
            f"--name={self.name}",
            "--rm",
            "--user=0:0",
            "--read-only",
            "--read-only-tmpfs=false",
            f"--network=ns:{self._cluster.node.netns}",
            f"--volume={self.bpffs}:/sys/fs/bpf",
            f"--volume={self._cgroup}:/run/kubesock/cgroup",
            f"--volume={self.state}:/var/lib/kubesock",
            f"--volume={self._manifests}:/manifests:ro",
            *options,
        ]
        flags = ["run", "--manifests=/manifests", "--node-name=n", "--cgroup=/run/kubesock/cgroup"]
        if instead:
            where.append(f"--entrypoint={instead[0]}")
            flags = list(instead[1:])
        self.process = self._sandbox.spawn(
            [
                *self._podman.command,
                "run",
                *self._podman.run_options,
                *where,
                self._podman.image,
                *flags,
            ],
            log=f"{self.name}.log",
            label="container",
        )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while call(_readyz, netns=self._cluster.node.netns) != 200:
            assert self.process is not None
            assert self.process.running, f"the container ended\n{self.log}"
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)

    def wait_ended(self) -> int:
        assert self.process is not None
        code = self.process.wait(READY_SECONDS)
        assert code is not None, self.log
        return code

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A verb inside the running container, as `kubectl exec` would run it."""
        return self._podman("exec", self.name, "kubesock", *arguments, check=False)

    def stop(self) -> int:
        """End the container as kubelet would. Returns the agent's exit code."""
        self._podman("stop", "--time=20", self.name)
        return self.wait_ended()

    def remove(self) -> None:
        """Whatever still runs; leaves pins to the sandbox."""
        self._podman("rm", "--force", "--ignore", self.name, check=False)

    @property
    def log(self) -> str:
        return (self._sandbox.folder / f"{self.name}.log").read_text(errors="replace")[-4000:]


@pytest.fixture
def node(
    podman: Podman,
    sandbox: Sandbox,
    cluster: SmallCluster,
    cgroup: Path,
    manifests: Manifests,
    tmp_path: Path,
) -> Iterator[Node]:
    made = Node(podman, sandbox, cluster, cgroup, tmp_path)
    yield made
    made.remove()


def _readyz() -> int:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", 10256, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
