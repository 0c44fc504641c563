"""The answer of `kubesock explain`: where a dial goes from here, and why. A function of maps and facts."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from pyagent.datapath.decoded import DecodedFrontend, decode_frontend
from pyagent.datapath.evaluate import Candidate
from pyagent.datapath.layout import NodeId, Scope
from pyagent.model.address import family_of, format_address, format_endpoint, is_loopback
from pyagent.model.outcome import ERRNO_OF, Outcome
from pyagent.model.service import ANY_OTHER_NODE, BackendStateBit, SetKey, View
from pyagent.view.backend_table import state_text
from pyagent.view.explain_facts import EndpointFacts, NodeFacts, PortFacts, ServiceFacts, view_of
from pyagent.view.explain_lookup import LookUp, backend_endpoint, is_restricted
from pyagent.view.explain_question import is_cluster_ip, is_in_node_namespace
from pyagent.view.explain_reasons import because, notes
from pyagent.view.live import LiveMaps
from pyagent.view.names import PortName, node_names, policy_text, service_port_names
from pyagent.view.tables import Row

KIND = "Explanation"


def question_of(live: LiveMaps, found: LookUp) -> str:
    """What to ask the agent about a dial: the path of its answer."""
    port = answering_port(live, found)
    if port is not None:
        return f"/v1/services/{port.namespace}/{port.name}"
    return f"/v1/addresses/{format_address(found.dial.address)}"


def explain(live: LiveMaps, found: LookUp, facts: NodeFacts | None, has_errno: bool = True) -> Row:
    """The explanation, as `-o json` shows it but for apiVersion and kind.

    Args:
        found: the dial, replayed on the maps.
        facts: the agent's answer to `question_of`; None without a living agent.
        has_errno: the kernel lets a hook choose the error (bpf_set_retval, Linux 5.18).
    """
    port = answering_port(live, found)
    known = _facts_of(facts, port)
    view = view_text_of(live, found)
    owned = known[1] if known else None
    endpoints = owned.endpoints if owned else ()
    return {
        "dialled": str(found.dial),
        "address": format_address(found.dial.address),
        "port": found.dial.port,
        "protocol": found.dial.protocol.name,
        "family": family_of(found.dial.address).label,
        "from": _client(live, found),
        "level": "maps" if facts is None else "agent",
        "outcome": found.outcome.label,
        "errno": error_name(found.outcome, has_errno),
        "because": because(live, found, port, facts),
        "service": _service(found, port),
        "frontend": _frontend(live, found, owned),
        "rule": str(found.answer.rule) if found.answer.rule is not None else None,
        "set": _set(found, view),
        "affinity": _affinity(live, found),
        "sourceRanges": _source_ranges(found),
        "backends": _backends(live, found, endpoints),
        "boundToLoopback": _bound_to_loopback(found),
        "endpoints": [_endpoint(one, view) for one in endpoints],
        "node": facts.node if facts is not None else "",
        "zone": facts.zone if facts is not None else "",
        "problems": _problems(facts, known[0] if known else None),
        "notes": notes(live, found, owned, has_errno),
        "old": not live.agent.alive,
    }


def answering_port(live: LiveMaps, found: LookUp) -> PortName | None:
    """The service port whose frontend was dialled; None if it was none, or its name is gone."""
    wanted = (found.answer.service_port, found.answer.incarnation)
    if found.answer.header is None or not wanted[0]:
        return None
    names = service_port_names(live.raw.names)
    return next((name for name in names if (name.identifier, name.incarnation) == wanted), None)


def view_text_of(live: LiveMaps, found: LookUp) -> str:
    """Which endpoints the answering set holds."""
    header = found.answer.header
    if header is None or header.view not in set(View):
        return ""
    node = node_text(live, header.node_id) if header.view == View.NODE else ""
    return view_of(SetKey(View(header.view), node))


def node_text(live: LiveMaps, node_id: int) -> str:
    """A node's name by its id; "" for this node."""
    if node_id == NodeId.OWN:
        return ""
    if node_id == NodeId.ANY_OTHER:
        return ANY_OTHER_NODE
    return node_names(live.raw.names).get(node_id, (f"node-{node_id}", ""))[0]


def error_name(outcome: Outcome, has_errno: bool) -> str | None:
    """What the application's call fails with; None: it does not fail because of us."""
    number = ERRNO_OF.get(outcome)
    if number is None:
        return None
    return errno.errorcode[number if has_errno else errno.EPERM]


def _facts_of(facts: NodeFacts | None, port: PortName | None) -> tuple[ServiceFacts, PortFacts] | None:
    if facts is None or port is None:
        return None
    for service in facts.services:
        owned = service.port(port.service, port.family)
        if owned is not None:
            return service, owned
    return None


def _client(live: LiveMaps, found: LookUp) -> Row:
    known = found.client.cookie is not None
    return {
        "name": found.client.name,
        "netnsCookie": found.client.cookie,
        "inNodeNamespace": is_in_node_namespace(live.raw, found.client) if known else None,
    }


def _service(found: LookUp, port: PortName | None) -> Row | None:
    if port is None:
        return None
    header = found.answer.header
    return {
        "service": port.service,
        "namespace": port.namespace,
        "name": port.name,
        "port": port.port,
        "protocol": port.protocol,
        "family": port.family,
        "type": port.type,
        "policy": policy_text(port.policy),
        "affinitySeconds": header.affinity_seconds if header else 0,
        "id": port.identifier,
    }


def _frontend(live: LiveMaps, found: LookUp, owned: PortFacts | None) -> Row | None:
    key = found.answer.frontend
    entry = decode_frontend(key, live.raw.frontends[key]) if key is not None else None
    if entry is None or key is None:
        return None
    text = frontend_text(live, entry)
    kind = _kind_of(live, entry, found)
    told = (
        [f.kind for f in owned.frontends if f.dialled == f"{text}/{found.dial.protocol.name}"]
        if owned
        else []
    )
    return {"frontend": text, "kind": told[0] if told else kind, "tagMatches": entry.tag_matches}


def frontend_text(live: LiveMaps, entry: DecodedFrontend) -> str:
    """`ADDRESS:PORT`, or `NODE:PORT` where `node` is this one and `*` any other."""
    if entry.scope is Scope.ADDRESS:
        return format_endpoint(entry.address, entry.port)
    return f"{node_text(live, entry.node_id) or 'node'}:{entry.port}"


def _kind_of(live: LiveMaps, entry: DecodedFrontend, found: LookUp) -> str:
    """As far as the maps tell."""
    if entry.scope is Scope.NODE_PORT:
        return "nodePort"
    if is_restricted(found.answer):
        return "loadBalancerIP"
    return "clusterIP" if is_cluster_ip(live.raw, entry.address) else "externalIP or loadBalancerIP"


def _set(found: LookUp, view: str) -> Row | None:
    header = found.answer.header
    if header is None:
        return None
    return {
        "id": found.answer.set_id,
        "view": view,
        "backends": len(found.answer.candidates),
        "whenEmpty": header.when_empty.label,
    }


def _affinity(live: LiveMaps, found: LookUp) -> Row | None:
    entry = found.affinity
    if entry is None:
        return None
    endpoint = backend_endpoint(live.raw, entry.word)
    return {
        "backend": format_endpoint(*endpoint) if endpoint is not None else "",
        "remainingSeconds": max(0, entry.remaining),
        "decides": entry.decides,
        "state": "active" if entry.decides else "expired" if entry.remaining < 0 else "not eligible",
    }


def _source_ranges(found: LookUp) -> Row | None:
    admission = found.admission
    if admission is None:
        return None
    return {
        "ranges": [str(network) for network in admission.ranges],
        "source": format_address(admission.source) if admission.source is not None else "",
        "admitted": admission.admitted,
    }


def _backends(live: LiveMaps, found: LookUp, endpoints: Sequence[EndpointFacts]) -> list[Row]:
    pods = {one.endpoint: one.pod for one in endpoints if one.chosen}
    nodes = node_names(live.raw.names)
    chances = found.chances or (0.0,) * len(found.answer.candidates)
    return [
        _backend(candidate, chance, nodes, pods)
        for candidate, chance in zip(found.answer.candidates, chances, strict=True)
    ]


def _backend(
    candidate: Candidate, chance: float, nodes: dict[int, tuple[str, str]], pods: dict[str, str]
) -> Row:
    endpoint = format_endpoint(candidate.address, candidate.port)
    node, zone = nodes.get(candidate.node_id, ("", ""))
    return {
        "backend": endpoint,
        "probability": round(chance, 6),
        "state": state_text(candidate.state) if candidate.matches else "torn",
        "local": bool(candidate.state & BackendStateBit.LOCAL),
        "node": node,
        "zone": zone,
        "pod": pods.get(endpoint, ""),
        "id": candidate.backend_id,
    }


def _bound_to_loopback(found: LookUp) -> list[str]:
    """The backends that a socket bound to a loopback address can get; if none, it is not translated."""
    return [
        format_endpoint(candidate.address, candidate.port)
        for candidate in found.answer.candidates
        if is_loopback(candidate.address) or candidate.state & BackendStateBit.ON_NODE_ADDRESS
    ]


def _endpoint(one: EndpointFacts, view: str) -> Row:
    is_in = view in one.chosen
    why = one.chosen.get(view) or one.left_out.get(view) or next(iter(one.left_out.values()), "")
    return {
        "endpoint": one.endpoint,
        "in": is_in,
        "why": why,
        "ready": one.ready,
        "serving": one.serving,
        "terminating": one.terminating,
        "node": one.node,
        "zone": one.zone,
        "pod": one.pod,
        "hintedZones": list(one.hinted_zones),
        "hintedNodes": list(one.hinted_nodes),
        "slice": one.slice,
    }


def _problems(facts: NodeFacts | None, service: ServiceFacts | None) -> list[str]:
    concerned: Any = (service,) if service is not None else facts.services if facts is not None else ()
    return [problem for one in concerned for problem in one.problems]
