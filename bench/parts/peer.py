"""The same calls through NAT rules as kube-proxy's nftables mode loads them, in a namespace of their own."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator

from bench import objects
from bench.lab import Lab, Place, Programmed, measured
from bench.lanes import Client, Lane
from bench.objects import PORT, TARGET_PORT, Plan
from bench.scale import ENDPOINTS_OF_OTHERS, Scale
from bench.tables import RATIO_COLUMNS, Table, duration, ratio_row
from pyagent.model.failures import KubesockError

LOAD_SECONDS = 120.0
SERVICES_PER_TRANSACTION = 500


def run(lab: Lab, scale: Scale) -> list[Table]:
    """Both at the same numbers of Services, call by call in one process that enters both namespaces."""
    if shutil.which("nft") is None:
        note = "Skipped: `nft` is not installed (package nftables)."
        return [Table("Through kube-proxy's kind of nftables rules", ("what",), [], (note,))]
    client = Client(lab)
    tables = []
    with Programmed(lab) as programmed:
        programmed.attach()
        for services in scale.peer_services:
            programmed.grow(services, ENDPOINTS_OF_OTHERS)
            rules = lab.new_pods(f"nft-{services}")
            took = _load(lab, rules, services)
            tables.append(_compare(client, scale, services, rules, took))
    return tables


def _compare(client: Client, scale: Scale, services: int, rules: Place, took: float) -> Table:
    rows = []
    for what, lanes in (("TCP connect()", _connects(rules)), ("UDP round trip", _trips(rules))):
        times = client.run(lanes, scale.rounds)
        rows += [
            ratio_row(f"{what}, {lane.name}", times.ratio(lane.name, "direct"), times.of("direct"))
            for lane in lanes[1:]
        ]
    notes = (
        "Reference: a direct call in a namespace without rules or hooks.",
        f"The rules took {duration(took)} to load, {SERVICES_PER_TRANSACTION} Services in a transaction.",
    )
    size = f"{services:,} Services × {ENDPOINTS_OF_OTHERS} endpoints"
    return Table(f"Through kube-proxy's kind of nftables rules, {size}", RATIO_COLUMNS, rows, notes)


def _connects(rules: Place) -> list[Lane]:
    ten = measured("ten")
    pod = Lane("direct", "connect", False, "tcp", ten.pod(0), TARGET_PORT, ten.endpoints)
    frontend = Lane("", "connect", False, "tcp", ten.cluster_ips[0], PORT)
    return [
        pod,
        pod._replace(name="A/A"),
        frontend._replace(name="kubesock, Service", hooked=True),
        pod._replace(name="kubesock, other", hooked=True),
        frontend._replace(name="nftables, Service", place=rules),
        pod._replace(name="nftables, other", place=rules),
    ]


def _trips(rules: Place) -> list[Lane]:
    """Datagrams both ways: a UDP connect() alone sends none, so rules would see nothing."""
    one = measured("one")
    pod = Lane("direct", "trip", False, "udp", one.pod(0), TARGET_PORT, answerer=one.pod(0))
    frontend = pod._replace(address=one.cluster_ips[0], port=PORT)
    return [
        pod,
        pod._replace(name="A/A"),
        frontend._replace(name="kubesock, Service", hooked=True),
        pod._replace(name="kubesock, other", hooked=True),
        frontend._replace(name="nftables, Service", place=rules),
        pod._replace(name="nftables, other", place=rules),
    ]


def _load(lab: Lab, place: Place, services: int) -> float:
    """Load the rules into a namespace. Returns the seconds that it took."""
    wanted = [measured("one"), measured("ten"), *objects.plans(services, ENDPOINTS_OF_OTHERS)]
    file = lab.sandbox.folder / f"{place.client.name}.nft"
    began = time.perf_counter()
    for lines in transactions(wanted):
        file.write_text("\n".join(["table ip kube-proxy {", *lines, "}", ""]))
        try:
            done = subprocess.run(
                ["nsenter", f"--net={place.client}", "nft", "-f", str(file)],
                capture_output=True,
                text=True,
                timeout=max(1.0, began + LOAD_SECONDS - time.perf_counter()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubesockError(
                f"the peer's {services:,} Services are not loaded in {LOAD_SECONDS:g} s"
            ) from None
        if done.returncode != 0:
            raise KubesockError(f"nft does not load the peer's rules: {done.stderr.strip()[:300]}")
    return time.perf_counter() - began


def transactions(wanted: list[Plan]) -> Iterator[list[str]]:
    """IPv4 rules of the kind that pkg/proxy/nftables of Kubernetes 1.33 writes for ClusterIP Services.

    A verdict map leads from address, protocol and port to a Service's chain, which draws an endpoint's.
    Service by Service in several transactions, since the kernel's time for one grows with its square.
    """
    yield [" chain mark-for-masquerade { meta mark set meta mark or 0x4000; }"]
    for start in range(0, len(wanted), SERVICES_PER_TRANSACTION):
        yield list(_service_chains(wanted[start : start + SERVICES_PER_TRANSACTION]))
    elements = [
        f"  {plan.cluster_ips[0]} . {protocol} . {PORT} : goto {_chain(plan, protocol)},"
        for plan in wanted
        for protocol in _protocols(plan)
    ]
    head = " map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = {"
    addresses = ", ".join(plan.cluster_ips[0] for plan in wanted)
    cluster_ips = f" set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}"
    yield [head, *elements, " } }", cluster_ips, *_FRAME]


def _protocols(plan: Plan) -> tuple[str, ...]:
    return ("tcp", "udp") if plan.dual_stack else ("tcp",)


def _chain(plan: Plan, protocol: str) -> str:
    return f"service-{plan.number:08X}-bench/{plan.name}/{protocol}/http".replace("/", "_")


def _service_chains(wanted: list[Plan]) -> Iterator[str]:
    for plan in wanted:
        for protocol in _protocols(plan):
            name = _chain(plan, protocol)
            draws = []
            for number in range(plan.endpoints):
                endpoint = f"endpoint-{number}-{name}"
                draws.append(f"{number} : goto {endpoint}")
                pod = plan.pod(number)
                yield f" chain {endpoint} {{"
                yield f"  ip saddr {pod} jump mark-for-masquerade"
                yield f"  meta l4proto {protocol} dnat to {pod}:{TARGET_PORT}"
                yield " }"
            yield f" chain {name} {{"
            yield (
                f"  ip daddr {plan.cluster_ips[0]} {protocol} dport {PORT} ip saddr != {objects.POD_NETWORK}"
                " jump mark-for-masquerade"
            )
            yield f"  numgen random mod {plan.endpoints} vmap {{ {', '.join(draws)} }}"
            yield " }"


_FRAME = """\
 map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
 map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
 map service-nodeports { type inet_proto . inet_service : verdict; }
 set nodeport-ips { type ipv4_addr; elements = { 10.1.0.1 }; }
 chain services {
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
 }
 chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
 chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
 chain cluster-ips-check { ip daddr @cluster-ips reject; }
 chain masquerading {
  meta mark & 0x4000 == 0 return
  meta mark set meta mark xor 0x4000
  masquerade fully-random
 }
 chain filter-prerouting { type filter hook prerouting priority -110; ct state new jump firewall-check; }
 chain filter-output { type filter hook output priority -110; ct state new jump firewall-check; }
 chain filter-input { type filter hook input priority 0; ct state new jump service-endpoints-check; }
 chain filter-output-post-dnat {
  type filter hook output priority -90;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
 }
 chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
 chain nat-output { type nat hook output priority -100; jump services; }
 chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }""".splitlines()
