"""The demo's machines: a node, pods with servers in them, and clients, all namespaces of one sandbox."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from pyagent.demo import namespaces
from pyagent.demo.children import Child
from pyagent.demo.dns import DnsApp
from pyagent.demo.echo import App, Echo, Listener, spawn_server
from pyagent.demo.links import Attachment
from pyagent.demo.objects import NODE_POD, Objects, PodPlan
from pyagent.demo.sandbox import Sandbox
from pyagent.demo.traffic import Client

NODE_ADDRESSES = ("10.244.0.1/16", "fd44:10:244::1/56", "172.30.0.10/24", "fd44:172:30::10/64")
NODE_NETWORKS = ("172.30.0.0/24", "fd44:172:30::/64")
CLIENTS = {
    "shopper-1": ("10.244.1.5", "fd44:10:244:1::5"),
    "shopper-2": ("10.244.1.6", "fd44:10:244:1::6"),
}
DNS_PORT = 53


class DemoCluster:
    """Every pod of the objects, running. `hooked` is the cgroup that the agent serves.

    As on a real node, servers are below the agent's cgroup too, and the node itself is a client.
    """

    def __init__(self, sandbox: Sandbox, objects: Objects) -> None:
        self.sandbox = sandbox
        self.objects = objects
        self.hooked = sandbox.new_cgroup("cluster")
        self.node = sandbox.new_namespace(NODE_POD)
        self.servers: dict[str, Child] = {}
        self._links = itertools.count(1)
        namespaces.make_node(self.node, NODE_ADDRESSES)
        self.start_pods(objects.pods().values())
        self.clients = self._start_clients()

    def start_pods(self, plans: Iterable[PodPlan]) -> None:
        """Make the pods' namespaces, connect them, start their servers."""
        wanted = list(plans)
        places = {
            plan.name: self.node if plan.name == NODE_POD else self.sandbox.new_namespace(plan.name)
            for plan in wanted
        }
        self._attach({plan.name: plan.addresses for plan in wanted if plan.name != NODE_POD}, places)
        for plan in wanted:
            listeners = [
                Listener(address, port, protocol, "dns" if port == DNS_PORT else "echo")
                for address in plan.addresses
                for port, protocol in plan.ports
            ]
            place = partial(self.sandbox.spawn, netns=places[plan.name], cgroup=self._cgroup(plan.name))
            self.servers[plan.name] = spawn_server(place, plan.name, listeners, self._app)

    def stop_pods(self, names: Iterable[str]) -> None:
        """End pods as a kubelet does: the processes, then the namespace."""
        for name in names:
            self.servers.pop(name).stop()
            namespaces.remove(namespaces.NAMESPACES / f"kubesock-{self.sandbox.id}-{name}")

    def _start_clients(self) -> list[Client]:
        places = {name: self.sandbox.new_namespace(name) for name in CLIENTS}
        self._attach(CLIENTS, places)
        clients = [
            Client(self.sandbox, name, places[name], self._cgroup(name), addresses)
            for name, addresses in CLIENTS.items()
        ]
        return [*clients, Client(self.sandbox, "the node", self.node, self._cgroup("host"), ())]

    def _attach(self, addresses: Mapping[str, tuple[str, ...]], places: dict[str, Path]) -> None:
        attachments = [
            Attachment(
                f"veth{next(self._links)}",
                places[name],
                tuple(f"{address}/{56 if ':' in address else 16}" for address in own),
                NODE_NETWORKS[: len(own)],  # a pod with one address has an IPv4 one
            )
            for name, own in addresses.items()
        ]
        namespaces.attach_pods(self.node, attachments)

    def _cgroup(self, name: str) -> Path:
        return self.sandbox.new_cgroup(f"{self.hooked.name}/{name}")

    def _app(self, name: str) -> App:
        if name != "dns":
            return Echo()
        domain = "svc.cluster.local"
        return DnsApp(
            {
                f"{service['metadata']['name']}.{service['metadata']['namespace']}.{domain}": service["spec"][
                    "clusterIPs"
                ]
                for service in self.objects.of_kind("Service")
            }
        )
