"""What only the agent knows about Services: the form in which it tells, and readers understand.

Fields are added, never renamed: agent and reader may be of different versions during an upgrade.
"""

from __future__ import annotations

import msgspec

from pyagent.model.service import ANY_OTHER_NODE, SetKey, View


class EndpointFacts(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint of a slice. `chosen` and `left_out` say of each set (by its view) whether it is in."""

    endpoint: str  # address:port, or the address alone where its slice lacks the port
    slice: str
    ready: bool
    serving: bool
    terminating: bool
    node: str = ""
    zone: str = ""
    pod: str = ""
    hinted_zones: tuple[str, ...] = ()
    hinted_nodes: tuple[str, ...] = ()
    chosen: dict[str, str] = {}  # view -> why it is in
    left_out: dict[str, str] = {}  # view -> why not


class FrontendFacts(msgspec.Struct, frozen=True, rename="camel"):
    dialled: str
    kind: str
    view: str
    lost_to: str = ""  # the service port that owns the address instead


class PortFacts(msgspec.Struct, frozen=True, rename="camel"):
    """One service port."""

    service: str  # namespace/name:port/PROTOCOL
    family: str
    frontends: tuple[FrontendFacts, ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()
    no_room: bool = False  # the maps are too full for it


class ServiceFacts(msgspec.Struct, frozen=True, rename="camel"):
    """One Service. `not_served` says why it has no ports here, "" if it has."""

    namespace: str
    name: str
    not_served: str = ""
    ports: tuple[PortFacts, ...] = ()
    problems: tuple[str, ...] = ()

    def port(self, service: str, family: str) -> PortFacts | None:
        """The facts of a service port."""
        return next((p for p in self.ports if (p.service, p.family) == (service, family)), None)


class NodeFacts(msgspec.Struct, frozen=True, rename="camel"):
    """The agent's answer about a few Services, and from where it looks at them."""

    node: str = ""
    zone: str = ""
    services: tuple[ServiceFacts, ...] = ()


def view_of(key: SetKey) -> str:
    """Which endpoints a set holds, as people read it."""
    if key.view is View.CLUSTER:
        return "Cluster"
    if key.view is View.LOCAL:
        return "Local"
    if key.view is View.RESTRICTED:
        return "Cluster, source ranges"
    if key.view is View.RESTRICTED_LOCAL:
        return "Local, source ranges"
    if key.view is View.NODE_LOCAL:
        return "Node-local"
    return "Local on other nodes" if key.node == ANY_OTHER_NODE else f"Local on {key.node}"
