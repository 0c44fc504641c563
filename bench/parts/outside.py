"""Packets from outside: what serving them adds on a node, beside an nft rule that does the same."""

from __future__ import annotations

import socket
import subprocess
import time
from functools import partial
from typing import NamedTuple

from bench.lab import Lab
from bench.ratios import ratios, summarize
from bench.scale import Scale
from bench.tables import RATIO_COLUMNS, Table, ratio_row
from pyagent.model.failures import KubesockError
from tests.outside.lan import Host, Lan
from tests.outside.served import UDP_NODE_PORT, Served, exposed

NFT_PORT = 31_053
BURST = 32
BUDGET = 1.0
TOLERANCE = 0.02
"""A packet's way through five namespaces and two processes varies by more than what is added."""

UNTRACKED = """
  chain raw {{
    type filter hook prerouting priority raw;
    ip daddr {pod} udp dport 5353 notrack
    ip saddr {pod} udp sport 5353 notrack
  }}
"""

RULES = """
table ip bench
delete table ip bench
table ip bench {{
  {raw}
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    ip daddr {node} udp dport {port} dnat to {pod}:8080
  }}
}}
"""


CASES = (
    ("a datagram and its answer", 1, UNTRACKED),
    (f"{BURST} at a time", BURST, UNTRACKED),
    ("tracked: a datagram and its answer", 1, ""),
    (f"tracked: {BURST} at a time", BURST, ""),
)


class Target(NamedTuple):
    name: str
    port: int


TARGETS = (Target("kubesock", UDP_NODE_PORT), Target("nft", NFT_PORT), Target("A/A", NFT_PORT))


def run(lab: Lab, scale: Scale) -> list[Table]:
    lan = Lan(lab.sandbox)
    programs = lab.sandbox.folder / "outside-programs"
    programs.mkdir(mode=0o700)
    served = Served(lan, lab.sandbox.bpffs / "outside", programs)
    try:
        served.serve(exposed((lan.a1, "node-a")))
        rows = []
        for what, burst, raw in CASES:
            filled = raw.format(pod=lan.a1.ipv4)
            _nft(lan.node_a, RULES.format(node=lan.node_a.ipv4, port=NFT_PORT, pod=lan.a1.ipv4, raw=filled))
            rounds = max(200, scale.rounds // burst)
            times = lan.client.do(partial(_measure, lan.node_a.ipv4, rounds, burst), 200)
            reference = summarize(times["nft"])
            for name, budget in (("A/A", None), ("kubesock", BUDGET + TOLERANCE)):
                found = summarize(ratios(times[name], times["nft"]))
                rate = burst * 1e9 / summarize(times[name]).median
                rows.append(ratio_row(f"{what}, {name}, {rate:,.0f}/s", found, reference, budget))
    finally:
        served.close()
    notes = (
        "UDP from a client through a router and a node to a pod on it and back, by flows that are known,",
        "÷ the same through a rule of nft (conntrack), round by round. Tracked: conntrack, which the rule",
        "needs, sees kubesock's packets too, as on a node where other rules need it.",
    )
    return [Table("From outside", RATIO_COLUMNS, rows, notes)]


def _nft(node: Host, rules: str) -> None:
    done = subprocess.run(
        ["nsenter", f"--net={node.netns}", "nft", "-f", "-"],
        input=rules, text=True, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise KubesockError(f"nft: {done.stderr.strip() or done.returncode}; install nftables")


def _measure(address: str, rounds: int, burst: int) -> dict[str, list[float]]:
    """Nanoseconds of each round by target, side by side."""
    times: dict[str, list[float]] = {target.name: [] for target in TARGETS}
    sockets = {}
    for target in TARGETS:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(5)
        sock.connect((address, target.port))
        sockets[target.name] = sock
    for number in range(rounds + 20):
        order = TARGETS[number % 3 :] + TARGETS[: number % 3]
        for target in order:
            sock = sockets[target.name]
            began = time.perf_counter_ns()
            for _ in range(burst):
                sock.send(b"x")
            for _ in range(burst):
                sock.recv(4096)
            took = time.perf_counter_ns() - began
            if number >= 20:  # the first ones begin flows
                times[target.name].append(took)
    return times
