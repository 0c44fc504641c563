"""Chains of the kind that kube-proxy's iptables mode loads."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.objects import POD_NETWORK, PORT, TARGET_PORT, Plan
from pyagent.model.failures import KubesockError

TOOLS = ("iptables-legacy-restore", "iptables-restore")
"""The first that is installed. Over nf_tables the same chains take many times as long to load."""

PACKAGE = "iptables"
MASQUERADED = "0x4000/0x4000"


def is_installed() -> bool:
    return any(map(shutil.which, TOOLS))


HOW = f"in one transaction by {next(filter(shutil.which, TOOLS), TOOLS[0])}"


def load(file: Path, netns: Path, wanted: list[Plan], seconds: float) -> float:
    """Load chains for Services into a network namespace. Returns the seconds that it took.

    Args:
        file: that may be written.
        seconds: longest that it may take.

    Raises:
        KubesockError: it takes longer, or the tool refuses.
    """
    tool = next(filter(shutil.which, TOOLS))
    file.write_text("\n".join(transaction(wanted)) + "\n")
    began = time.perf_counter()
    try:
        with file.open() as rules:
            done = subprocess.run(
                ["nsenter", f"--net={netns}", tool, "--noflush"],
                stdin=rules,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise KubesockError(f"{len(wanted):,} Services are not loaded in {seconds:g} s") from None
    if done.returncode != 0:
        raise KubesockError(f"{tool} does not load its chains: {done.stderr.strip()[:300]}")
    return time.perf_counter() - began


def transaction(wanted: list[Plan]) -> Iterator[str]:
    """IPv4 rules of the kind that pkg/proxy/iptables of Kubernetes 1.33 writes for ClusterIP Services.

    One list of all frontends leads to a Service's chain, which draws an endpoint's.
    """
    yield from ("*filter", ":KUBE-FORWARD - [0:0]", ":KUBE-FIREWALL - [0:0]")
    yield "-A FORWARD -j KUBE-FORWARD"
    yield "-A OUTPUT -j KUBE-FIREWALL"
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield f"-A KUBE-FORWARD -m mark --mark {MASQUERADED} -j ACCEPT"
    yield "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "COMMIT"
    yield from ("*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-MARK-MASQ - [0:0]")
    ports = [(plan, protocol) for plan in wanted for protocol in _protocols(plan)]
    for plan, protocol in ports:
        yield f":{_service_chain(plan, protocol)} - [0:0]"
        for number in range(plan.endpoints):
            yield f":{_endpoint_chain(plan, protocol, number)} - [0:0]"
    yield '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    yield '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    yield '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    yield "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000"
    yield f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADED} -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000"
    yield "-A KUBE-POSTROUTING -j MASQUERADE --random-fully"
    for plan, protocol in ports:
        yield from _service(plan, protocol)
    yield "COMMIT"


def _service(plan: Plan, protocol: str) -> Iterator[str]:
    chain = _service_chain(plan, protocol)
    dialled = f"-m {protocol} -p {protocol} -d {plan.cluster_ips[0]}/32 --dport {PORT}"
    name = f'-m comment --comment "bench/{plan.name}:http'
    yield f'-A KUBE-SERVICES {name} cluster IP" {dialled} -j {chain}'
    yield f'-A {chain} {name} cluster IP" {dialled} ! -s {POD_NETWORK} -j KUBE-MARK-MASQ'
    for number in range(plan.endpoints):
        left, pod = plan.endpoints - number, plan.pod(number)
        endpoint = _endpoint_chain(plan, protocol, number)
        draw = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        yield f'-A {chain} {name} -> {pod}:{TARGET_PORT}"{draw} -j {endpoint}'
        yield f'-A {endpoint} {name}" -s {pod}/32 -j KUBE-MARK-MASQ'
        destination = f"DNAT --to-destination {pod}:{TARGET_PORT}"
        yield f'-A {endpoint} {name}" -m {protocol} -p {protocol} -j {destination}'


def _protocols(plan: Plan) -> tuple[str, ...]:
    return ("tcp", "udp") if plan.dual_stack else ("tcp",)


def _service_chain(plan: Plan, protocol: str) -> str:
    return f"KUBE-SVC-{plan.number:08X}{protocol.upper()}"


def _endpoint_chain(plan: Plan, protocol: str, number: int) -> str:
    return f"KUBE-SEP-{plan.number:08X}{protocol.upper()}{number:04X}"
