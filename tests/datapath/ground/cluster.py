"""One node, two clients and three servers, each in a network namespace that leads nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from pyagent.demo import namespaces
from pyagent.demo.calls import call
from pyagent.demo.echo import Listener, spawn_server
from pyagent.demo.links import Attachment
from pyagent.demo.sandbox import Sandbox

T = TypeVar("T")

PORTS = (8080, 8081, 5353)
"""Every server listens on these, TCP and UDP, IPv4 and IPv6."""

POD_NETWORK = ("10.244.0.0/16", "fd44:10:244::/64")
NODE_NETWORK = ("172.30.0.0/24", "fd44:172:30::/64")
SERVICE_NETWORK = ("10.96.0.0/16", "fd44:10:96::/112")
"""Where tests take ClusterIPs from; no namespace has a route to it."""


class Pod(NamedTuple):
    """A namespace with one IPv4 and one IPv6 address. Servers answer with `name`."""

    name: str
    netns: Path
    ipv4: str
    ipv6: str

    def address(self, family: int) -> str:
        """Its address of family 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6


class SmallCluster:
    """Servers run outside every test's cgroup, so a test's hooks see only its own clients.

    `node` is the node's namespace: it has the bridge, 10.244.0.1 and, as the node's own address, 172.30.0.10
    (IPv6: fd44:172:30::10), where a server called `node` listens too.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.node = Pod("node", sandbox.new_namespace("n"), "172.30.0.10", "fd44:172:30::10")
        namespaces.make_node(
            self.node.netns,
            ("10.244.0.1/16", "fd44:10:244::1/64", f"{self.node.ipv4}/24", f"{self.node.ipv6}/64"),
        )
        self.client = self._pod("client", 10)
        self.other_client = self._pod("client-2", 11)
        self.servers = tuple(self._pod(name, number) for number, name in enumerate("abc", 20))
        pods = (self.client, self.other_client, *self.servers)
        namespaces.attach_pods(
            self.node.netns,
            [
                Attachment(pod.name, pod.netns, (f"{pod.ipv4}/16", f"{pod.ipv6}/64"), NODE_NETWORK)
                for pod in pods
            ],
        )
        for pod in (self.node, *self.servers):
            self.serve(pod)

    def _pod(self, name: str, number: int) -> Pod:
        netns = self.sandbox.new_namespace(name)
        return Pod(name, netns, f"10.244.1.{number}", f"fd44:10:244::1:{number}")

    def serve(
        self, pod: Pod, ports: tuple[int, ...] = PORTS, name: str = "", cgroup: Path | None = None
    ) -> None:
        """Start an echo server in a pod on its two addresses, TCP and UDP, until the session ends."""
        listeners = [
            Listener(address, port, protocol)
            for address in (pod.ipv4, pod.ipv6)
            for port in ports
            for protocol in ("TCP", "UDP")
        ]
        place = partial(self.sandbox.spawn, netns=pod.netns, cgroup=cgroup, label=f"server {pod.name}")
        spawn_server(place, name or pod.name, listeners)

    def server(self, name: str) -> Pod:
        return next(pod for pod in self.servers if pod.name == name)


class InClient:
    """Runs callables in a client's namespace and one cgroup.

    The fork enters both before the callable makes its first socket. `in_client.of(pod)` is the same in
    another namespace, `in_client.unhooked` the same outside every test's cgroup.
    """

    def __init__(self, netns: Path, cgroup: Path | None) -> None:
        self.netns = netns
        self.cgroup = cgroup

    def __call__(self, work: Callable[[], T], timeout: float = 10.0) -> T:
        """What `work()` returns there; its exception is raised here. Killed after `timeout` seconds."""
        return call(work, netns=self.netns, cgroup=self.cgroup, timeout=timeout)

    def of(self, pod: Pod) -> InClient:
        return InClient(pod.netns, self.cgroup)

    @property
    def unhooked(self) -> InClient:
        return InClient(self.netns, None)
