"""The sentences of an explanation: why the outcome is what it is, and what else is worth knowing."""

from __future__ import annotations

from collections.abc import Iterator

from pyagent.datapath.bounds import decode_bounds
from pyagent.datapath.decoded import RawMaps, decode_frontend
from pyagent.datapath.encoded import NODE, is_node_port, port_of
from pyagent.datapath.evaluate import evaluate
from pyagent.datapath.layout import CONFIG, FRONTEND_KEY, Feature, NodeId
from pyagent.model.address import Protocol, format_address, format_endpoint, is_loopback
from pyagent.model.outcome import ERRNO_OF, Outcome
from pyagent.view.explain_facts import NodeFacts, PortFacts
from pyagent.view.explain_lookup import LookUp
from pyagent.view.explain_question import SERVED, Dial, is_in_node_namespace
from pyagent.view.live import LiveMaps, live_sets
from pyagent.view.names import PortName, node_names, service_port_names

SHOWN = 10
"""Of a list in a sentence; the rest is counted."""


def because(live: LiveMaps, found: LookUp, port: PortName | None, facts: NodeFacts | None) -> str:
    """One sentence: why it comes out like this."""
    name = port.service if port is not None else "a service port without a name"
    address = format_address(found.dial.address)
    match found.outcome:
        case Outcome.TRANSLATED:
            return _translated(found, name)
        case Outcome.TRANSLATED_BY_AFFINITY:
            return _by_affinity(found, name)
        case Outcome.REFUSED_NO_ENDPOINTS:
            return f"no endpoint of {name} is ready, and none serves while it terminates"
        case Outcome.REFUSED_NO_LOCAL_ENDPOINTS:
            where = _whose(live, found)
            return f"{name} has endpoints, but none usable on {where}, and the policy is Local"
        case Outcome.REFUSED_UNDEFINED_PORT:
            return _undefined(live.raw, found.dial, facts)
        case Outcome.REFUSED_UNALLOCATED_ADDRESS:
            return f"{address} lies in the service range {found.answer.rule}, and no Service has it"
        case Outcome.PASSED_OTHER_PROXY:
            return f"{address} belongs to {_served_elsewhere(facts)}, which another proxy serves: left alone"
        case Outcome.PASSED_OPTED_OUT:
            return "this client's sockets are left alone: its workload is opted out of translation"
        case Outcome.REFUSED_SOURCE_RANGE | Outcome.REFUSED_UNKNOWN_SOURCE:
            return _kept_out(found, name)
        case Outcome.REFUSED_UNSTABLE:
            return (
                "the maps contradict themselves here; the agent repairs them, and `kubesock diff` tells where"
            )
        case Outcome.PROBED:
            return "this address is reserved for the agent's self-probe"
        case _:
            return _not_ours(live, found, facts)


def _translated(found: LookUp, name: str) -> str:
    chances = [chance for chance in found.chances if chance]
    if len(chances) == 1:
        only = found.answer.candidates[found.chances.index(chances[0])]
        return f"{name} has one backend to choose from here: {format_endpoint(only.address, only.port)}"
    return f"{name} has {len(chances)} backends to choose from here, each as likely as the others"


def _by_affinity(found: LookUp, name: str) -> str:
    entry = found.affinity
    if entry is None or entry.slot is None:
        return ""
    backend = found.answer.candidates[entry.slot]
    text = format_endpoint(backend.address, backend.port)
    return f"session affinity of {name}: this client is on {text} for another {entry.remaining} s of silence"


def _whose(live: LiveMaps, found: LookUp) -> str:
    header = found.answer.header
    node = header.node_id if header is not None else NodeId.OWN
    if node == NodeId.OWN:
        return "this node"
    if node == NodeId.ANY_OTHER:
        owner = live.raw.node_addresses.get(found.dial.address, NODE.pack(node))
        node = NODE.unpack(owner)[0]
    return f"node {node_names(live.raw.names).get(node, (f'#{node}', ''))[0]}"


def _kept_out(found: LookUp, name: str) -> str:
    admission = found.admission
    if admission is None or admission.source is None:
        return f"{name} has source ranges, and the address of this client's network namespace is not known"
    ranges = _some([str(network) for network in admission.ranges])
    return f"{format_address(admission.source)} is outside the source ranges of {name}: {ranges}"


def _undefined(raw: RawMaps, dial: Dial, facts: NodeFacts | None) -> str:
    address, wanted = format_address(dial.address), f"{dial.port}/{dial.protocol.name}"
    served = served_at(raw, dial.address)
    if served:
        ports = _some([f"{port}/{protocol}" for _, port, protocol in served])
        return f"{address} is the address of Service {served[0][0]}, which serves {ports} and not {wanted}"
    owner = "a Service"
    if facts is not None and facts.services:
        owner = f"Service {facts.services[0].namespace}/{facts.services[0].name}"
    return f"{address} is the address of {owner}, which does not serve {wanted}"


def served_at(raw: RawMaps, address: bytes) -> list[tuple[str, int, str]]:
    """(namespace/name, port, protocol) of everything that an address is dialled for."""
    names = {name.identifier: name for name in service_port_names(raw.names)}
    sets = live_sets(raw, {name.identifier: name.incarnation for name in names.values()})
    owners = {one.set_id: names[one.service_port] for one in sets}
    found = []
    for key, value in raw.frontends.items():
        if key[:16] != address or is_node_port(key):
            continue
        entry = decode_frontend(key, value)
        if entry is not None and entry.set_id in owners:
            owner = owners[entry.set_id]
            found.append((f"{owner.namespace}/{owner.name}", entry.port, owner.protocol))
    return sorted(found, key=lambda one: (one[1], one[2]))


def _served_elsewhere(facts: NodeFacts | None) -> str:
    if facts is None or not facts.services:
        return "a Service"
    return f"Service {facts.services[0].namespace}/{facts.services[0].name}"


def _not_ours(live: LiveMaps, found: LookUp, facts: NodeFacts | None) -> str:
    """Why nobody answers, by the first thing that nearly does."""
    raw, dial = live.raw, found.dial
    text = "not a frontend: the connection is made as if kubesock were not there"
    inside = is_in_node_namespace(raw, found.client)
    others = [
        protocol.name
        for protocol in SERVED
        if protocol is not dial.protocol
        and evaluate(raw, dial.address, dial.port, protocol, in_node_namespace=inside).header is not None
    ]
    if others:
        return f"{text}; the same address and port is served for {', '.join(others)}"
    owner = node_port_owner(raw, dial.port, dial.protocol)
    if owner and is_loopback(dial.address) and not inside:
        return f"{text}; on loopback only the node's own processes get the nodePort of {owner} (--from host)"
    if owner:
        return f"{text}; {dial.port} is the nodePort of {owner}, but {_no_node_port(live, dial)}"
    for service in facts.services if facts is not None else ():
        if service.not_served:
            return f"{text}; Service {service.namespace}/{service.name} is not served: {service.not_served}"
    return text


def _no_node_port(live: LiveMaps, dial: Dial) -> str:
    address = format_address(dial.address)
    owner = live.raw.node_addresses.get(dial.address)
    if owner is None:
        return f"{address} is no node's address that answers on nodePorts here"
    return f"not for the family or the node of {address}"


def node_port_owner(raw: RawMaps, port: int, protocol: Protocol) -> str:
    """The service port that has a nodePort, on whatever node and family; "" if none."""
    if len(raw.config) < CONFIG.size or port not in decode_bounds(raw.config).node_port:
        return ""
    names = {name.identifier: name for name in service_port_names(raw.names)}
    sets = live_sets(raw, {name.identifier: name.incarnation for name in names.values()})
    owners = {one.set_id: names[one.service_port].service for one in sets}
    for key, value in sorted(raw.frontends.items()):
        if (
            len(key) == FRONTEND_KEY.size
            and is_node_port(key)
            and port_of(key) == port
            and key[18] == protocol
        ):
            entry = decode_frontend(key, value)
            if entry is not None and entry.set_id in owners:
                return owners[entry.set_id]
    return ""


def notes(live: LiveMaps, found: LookUp, owned: PortFacts | None, has_errno: bool) -> list[str]:
    """What else an operator should know about this dial."""
    return list(_notes(live, found, owned, has_errno))


def _notes(live: LiveMaps, found: LookUp, owned: PortFacts | None, has_errno: bool) -> Iterator[str]:
    translated = bool(found.chances)
    if found.admission is not None and found.admission.admitted is None:
        ranges = _some([str(network) for network in found.admission.ranges])
        yield f"only clients in {ranges} may dial it; --from CLIENT tells whether one is"
    header = found.answer.header
    if translated and header is not None and header.affinity_seconds and found.client.cookie is None:
        yield (
            f"session affinity: a client stays on its backend for {header.affinity_seconds} s of silence;"
            " --from CLIENT tells on which"
        )
    if found.affinity is not None and not found.affinity.decides:
        yield "the client's affinity entry has expired or its backend is not eligible: it chooses anew"
    if translated and found.dial.protocol is Protocol.UDP and not (header and header.affinity_seconds):
        yield "an unconnected UDP socket stays on the backend that it has as long as that is eligible"
    if found.outcome in ERRNO_OF and not has_errno:
        yield "this kernel is older than 5.18: every refusal is EPERM instead of the error that it stands for"
    if owned is not None and owned.no_room:
        yield "the maps have no room for this service port: the kernel holds an older state of it"
    if _may_be_opted_out(live.raw, found):
        yield "workloads may be opted out by their cgroup: --from POD or process id tells whether this one is"
    if not live.agent.alive:
        yield "no agent runs: the maps serve as they are and do not follow the cluster; start `kubesock run`"


def _may_be_opted_out(raw: RawMaps, found: LookUp) -> bool:
    """Whether opt-out by cgroup is on, and the client's cgroups are not known."""
    if found.outcome in (Outcome.NOT_A_SERVICE, Outcome.PASSED_OPTED_OUT) or found.client.cgroups:
        return False
    if len(raw.config) < CONFIG.size:
        return False
    config = CONFIG.as_dict(memoryview(raw.config))
    return bool(int(config["features"]) & Feature.OPT_OUT and config["opt_out_level"])


def _some(texts: list[str]) -> str:
    rest = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
