"""Two nodes with an agent each, a third one without, pods on all of them; one link that leads nowhere.

    node-1  zone-a  172.30.0.11  agent  pods client-1 a1 b1
    node-2  zone-b  172.30.0.12  agent  pods client-2 a2 b2
    node-3  zone-c  172.30.0.13         pod  a3

Every pod and every node runs a server under its own name on TARGET_PORTS. Pods and the processes of a node
are below the cgroup that the node's agent serves, as on a real node; the agent itself is not.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pyagent.demo import namespaces
from pyagent.demo.agent_process import Agent
from pyagent.demo.children import wait_until
from pyagent.demo.echo import Listener, spawn_server
from pyagent.demo.links import Attachment
from pyagent.demo.sandbox import Sandbox
from tests.conformance.ground.clients import Place, can_connect
from tests.conformance.ground.objects import NAMESPACE, Address, Object, Pod, service
from tests.conformance.ground.real_server import RealServer
from tests.datapath.ground.manifests import Manifests, node, service_cidr
from tests.datapath.ground.manifests import Port as NamedPort

TARGET_PORTS = (8080, 8081)
POD_NETWORKS = ("10.244.0.0/16", "fd44:10:244::/64")
NODE_NETWORKS = ("172.30.0.0/24", "fd44:172:30::/64")
SERVICE_RANGES = ("10.96.0.0/16", "fd44:10:96::/112")
ZONES = {"node-1": "zone-a", "node-2": "zone-b", "node-3": "zone-c"}
AGENTS = ("node-1", "node-2")
PODS = {"node-1": ("client-1", "a1", "b1"), "node-2": ("client-2", "a2", "b2"), "node-3": ("a3",)}

_REVISION = Address("10.96.255.254", "fd44:10:96::fffe")
_SETTLE_SECONDS = 20.0


class Cluster:
    """The whole of it. `put` says what Services there are; places say what clients see then."""

    def __init__(self, sandbox: Sandbox, folder: Path, kube_binaries: Path | None = None) -> None:
        """
        Args:
            kube_binaries: with them agents follow a real API server, else the manifests directory.
        """
        self.sandbox = sandbox
        self.manifests = Manifests(folder / "manifests")
        self._switch = sandbox.new_namespace("switch")
        namespaces.make_node(self._switch, ())
        self.pods: dict[str, Pod] = {}
        for number, name in enumerate(ZONES, 1):
            self._add(name, name, f"172.30.0.{10 + number}", f"fd44:172:30::1{number}")
            for index, own in enumerate(PODS[name], 10):
                self._add(own, name, f"10.244.{number}.{index}", f"fd44:10:244::{number}:{index}")
        self._connect(self.pods.values())
        for pod in self.pods.values():
            self._start_server(pod)
        self._server: RealServer | None = None
        if kube_binaries is not None:
            self._server = RealServer(
                sandbox, folder, self._switch, kube_binaries, SERVICE_RANGES, routes=POD_NETWORKS
            )
        self._places: dict[str, Place] = {}
        self._revisions = itertools.count(1)
        self.describe_nodes()
        self._write(())
        self.agents: dict[str, Agent] = {}
        self.start_agents()

    def __getitem__(self, name: str) -> Pod:
        return self.pods[name]

    def place(self, name: str) -> Place:
        """A pod or a node as a client."""
        if name not in self._places:
            self._places[name] = Place(self.sandbox, self.pods[name], self._cgroup(self.pods[name]))
        return self._places[name]

    @property
    def clients(self) -> list[Place]:
        """A pod and the host of each node that has an agent."""
        return [self.place(name) for name in ("client-1", "client-2", "node-1", "node-2")]

    def put(self, *objects: Object | Sequence[Object]) -> None:
        """Let these be all the objects there are, and wait until both kernels know."""
        port = self._write([one for some in objects for one in ([some] if isinstance(some, dict) else some)])
        for name in self.agents:
            self._await(name, port)

    def describe_nodes(
        self, zones: Mapping[str, str] | None = None, changed: Mapping[str, Object] | None = None
    ) -> None:
        """Write the Node objects and the service range. The next `put` waits until they are known too.

        Args:
            zones: by node, in place of those above; "" leaves the label away.
            changed: top-level fields by node, as `{"spec": {"taints": ...}}`.
        """
        objects = [service_cidr(*SERVICE_RANGES)]
        for name, usual in ZONES.items():
            zone = (zones or {}).get(name, usual)
            labels = {"topology.kubernetes.io/zone": zone} if zone else {}
            pod = self.pods[name]
            objects.append({**node(name, [pod.ipv4, pod.ipv6], labels), **(changed or {}).get(name, {})})
        self._tell("cluster", objects)

    @contextlib.contextmanager
    def agents_with(self, *arguments: str) -> Iterator[None]:
        """The agents of both nodes with further arguments of `kubesock run`, until the end of the block."""
        self._stop_all()
        self.start_agents(*arguments)
        try:
            yield
        finally:
            self._stop_all()
            self.start_agents()

    def _stop_all(self) -> None:
        for name in tuple(self.agents):
            self.stop_agent(name)

    def stop_agent(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End the agent of a node; `put` does not wait for it then."""
        self.agents.pop(name).stop(how)

    def start_agents(self, *arguments: str, ready: bool = True) -> list[Agent]:
        """Start those that were stopped, on what they left, with further arguments of `kubesock run`."""
        missing = [name for name in AGENTS if name not in self.agents]
        self.agents |= {name: self._start_agent(name, *arguments) for name in missing}
        started = [self.agents[name] for name in missing]
        for agent in started if ready else ():
            agent.wait_ready()
        return started

    def everyone(self, target: Pod | Address, port: int = 80, **how: object) -> set[str]:
        """Whom the clients of both nodes see, all together; they must not disagree about an error."""
        seen = {client: client.who(target, port, **how) for client in self.clients}  # type: ignore[arg-type]
        failing = {client for client, names in seen.items() if any(name.isupper() for name in names)}
        assert not failing or len(failing) == len(seen), f"clients differ: {seen}"
        return set().union(*seen.values())

    def close(self) -> None:
        for place in self._places.values():
            place.close()

    def _write(self, objects: Iterable[Object]) -> int:
        """Returns the port of `_REVISION` that a kernel serves once it has all this.

        The file with that Service sorts behind the other, and is written after it.
        """
        port = next(self._revisions)
        self._tell("scenario", objects)
        ports: tuple[NamedPort, ...] = (("", port, "UDP"),)
        marker = service("revision", _REVISION, [])
        marker["spec"]["ports"] = [{"port": port, "protocol": "UDP"} for _, port, _ in ports]
        marker["metadata"]["namespace"] = f"{NAMESPACE}-revision"
        slice_ = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "revision",
                "namespace": f"{NAMESPACE}-revision",
                "labels": {"kubernetes.io/service-name": "revision"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [self.pods["a3"].ipv4]}],
            "ports": [{"name": "", "port": 9, "protocol": "UDP"}],
        }
        self._tell("then-revision", [marker, slice_])
        return port

    def _tell(self, name: str, objects: Iterable[Object]) -> None:
        if self._server is None:
            self.manifests.write(name, objects)
        else:
            self._server.write(name, objects)

    def _await(self, name: str, port: int) -> None:
        host = self.place(name)
        if not wait_until(
            lambda: host.do(can_connect, _REVISION.ipv4, port), _SETTLE_SECONDS, interval=0.004
        ):
            raise AssertionError(f"{name} does not follow\n{self.agents[name].log_tail()}")

    def _add(self, name: str, node_name: str, ipv4: str, ipv6: str) -> None:
        self.pods[name] = Pod(name, self.sandbox.new_namespace(name), node_name, ipv4, ipv6)

    def _connect(self, pods: Iterable[Pod]) -> None:
        attachments = []
        for pod in pods:
            is_node = pod.name == pod.node
            bits = (24, 64) if is_node else (16, 64)
            addresses = f"{pod.ipv4}/{bits[0]}", f"{pod.ipv6}/{bits[1]}"
            routes = POD_NETWORKS if is_node else NODE_NETWORKS
            attachments.append(Attachment(pod.name, pod.netns, addresses, routes))
        namespaces.attach_pods(self._switch, attachments)

    def _cgroup(self, pod: Pod) -> Path:
        return self.sandbox.new_cgroup(f"{pod.node}/{'host' if pod.name == pod.node else pod.name}")

    def _start_server(self, pod: Pod) -> None:
        listeners = [
            Listener(address, port, protocol)
            for address in (pod.ipv4, pod.ipv6)
            for port in TARGET_PORTS
            for protocol in ("TCP", "UDP")
        ]
        place = partial(self.sandbox.spawn, netns=pod.netns, cgroup=self._cgroup(pod))
        spawn_server(place, pod.name, listeners)

    def _start_agent(self, name: str, *arguments: str) -> Agent:
        return Agent(
            self.sandbox,
            ("--manifests", str(self.manifests.folder)) if self._server is None else self._server.source,
            node_name=name,
            cgroup=self.sandbox.new_cgroup(name),
            bpffs=self.sandbox.bpffs / name,
            state_dir=self.sandbox.folder / f"state-{name}",
            netns=self.pods[name].netns,
            arguments=("--udp-grace=500ms", *arguments),
        )
