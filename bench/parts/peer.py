"""The same calls through NAT rules as kube-proxy's modes load them, each in namespaces of their own."""

from __future__ import annotations

from bench import objects
from bench.lab import Lab, Place, Programmed, measured
from bench.lanes import Client, Lane
from bench.objects import PORT, TARGET_PORT, Plan
from bench.peers import iptables, nftables
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, duration, ratio_row
from pyagent.model.failures import KubesockError

LOAD_SECONDS = 100.0
PEERS = {"nftables": nftables, "iptables": iptables}


def run(lab: Lab, scale: Scale) -> list[Table]:
    """All at the same numbers of Services, call by call in one process that enters the namespaces of each."""
    client = Client(lab)
    tables = []
    with Programmed(lab) as programmed:
        programmed.attach()
        for services in scale.peer_services:
            programmed.grow(services, ENDPOINTS_OF_OTHERS)
            tables.append(_at(lab, client, scale, services))
    return tables


def _at(lab: Lab, client: Client, scale: Scale, services: int) -> Table:
    """What cannot be loaded is left out, with the reason: it must not cost the others' figures."""
    places: dict[str, Place] = {}
    loaded = []
    for name, peer in PEERS.items():
        if not peer.is_installed():
            loaded.append(f"{name}: left out, not installed (package {peer.PACKAGE}).")
            continue
        place = lab.new_pods(f"{name}-{services}")
        try:
            took = peer.load(
                lab.sandbox.folder / place.client.name, place.client, _wanted(services), LOAD_SECONDS
            )
        except KubesockError as error:
            loaded.append(f"{name}: left out: {error}.")
            continue
        loaded.append(f"{name}: rules loaded in {duration(took)}, {peer.HOW}.")
        places[name] = place
    rows = []
    for what, lanes in (("TCP connect()", _connects(places)), ("UDP round trip", _trips(places))):
        times = client.run(lanes, scale.rounds)
        rows += [
            ratio_row(f"{what}, {lane.name}", times.ratio(lane.name, "direct"), times.of("direct"))
            for lane in lanes[1:]
        ]
    notes = ("Reference: a direct call in a namespace without rules or hooks.", *loaded)
    size = f"{services:,} Services × {ENDPOINTS_OF_OTHERS} endpoints"
    return Table(f"Beside rules of kube-proxy's kind, {size}", RATIO_COLUMNS, rows, notes)


def _wanted(services: int) -> list[Plan]:
    """The measured ones stand in the middle: where they are in a list is what iptables takes time for."""
    others = list(objects.plans(services, ENDPOINTS_OF_OTHERS))
    return [*others[: services // 2], measured("one"), measured("ten"), *others[services // 2 :]]


def _connects(places: dict[str, Place]) -> list[Lane]:
    ten = measured("ten")
    pod = Lane("direct", "connect", False, "tcp", ten.pod(0), TARGET_PORT, ten.endpoints)
    return _side_by_side(pod, Lane("", "connect", False, "tcp", ten.cluster_ips[0], PORT), places)


def _trips(places: dict[str, Place]) -> list[Lane]:
    """Datagrams both ways: a UDP connect() alone sends none, so rules would see nothing."""
    one = measured("one")
    pod = Lane("direct", "trip", False, "udp", one.pod(0), TARGET_PORT, answerer=one.pod(0))
    return _side_by_side(pod, pod._replace(address=one.cluster_ips[0], port=PORT), places)


def _side_by_side(pod: Lane, frontend: Lane, places: dict[str, Place]) -> list[Lane]:
    lanes = [
        pod,
        pod._replace(name="A/A"),
        frontend._replace(name="kubesock, Service", hooked=True),
        pod._replace(name="kubesock, other", hooked=True),
    ]
    for name, place in places.items():
        lanes.append(frontend._replace(name=f"{name}, Service", place=place))
        lanes.append(pod._replace(name=f"{name}, other", place=place))
    return lanes
