"""Rules of the kind that kube-proxy's nftables mode loads."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench import objects
from bench.objects import PORT, TARGET_PORT, Plan
from pyagent.model.failures import KubesockError

TOOL = "nft"
PACKAGE = "nftables"
SERVICES_PER_TRANSACTION = 500
HOW = f"{SERVICES_PER_TRANSACTION} Services in a transaction"


def is_installed() -> bool:
    return shutil.which(TOOL) is not None


def load(file: Path, netns: Path, wanted: list[Plan], seconds: float) -> float:
    """Load rules for Services into a network namespace. Returns the seconds that it took.

    Args:
        file: that may be written.
        seconds: longest that it may take.

    Raises:
        KubesockError: it takes longer, or nft refuses.
    """
    began = time.perf_counter()
    for lines in transactions(wanted):
        file.write_text("\n".join(["table ip kube-proxy {", *lines, "}", ""]))
        try:
            done = subprocess.run(
                ["nsenter", f"--net={netns}", TOOL, "-f", str(file)],
                capture_output=True,
                text=True,
                timeout=max(1.0, began + seconds - time.perf_counter()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubesockError(f"{len(wanted):,} Services are not loaded in {seconds:g} s") from None
        if done.returncode != 0:
            raise KubesockError(f"nft does not load its rules: {done.stderr.strip()[:300]}")
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
