"""Which iptables chains are kube-proxy's, and what iptables-restore needs to remove them. It runs nothing.

Names and jumps are those of pkg/proxy/iptables (proxier.go, cleanup.go) of Kubernetes 1.29 to 1.36. Chains of
kubelet (KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-KUBELET-CANARY) look alike and are not among them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

NFT_TABLE = "kube-proxy"
"""In the families ip and ip6 (pkg/proxy/nftables/proxier.go)."""

_CHAINS = {
    "nat": {"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY"},
    "filter": {
        "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL",
        "KUBE-PROXY-CANARY",
    },
    "mangle": {"KUBE-PROXY-CANARY"},
}  # fmt: skip
_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-")
"""Of chains in nat, one or more for each Service port; KUBE-XLB- before 1.24."""

_JUMPS = {
    "nat": {
        "PREROUTING": {"KUBE-SERVICES"},
        "OUTPUT": {"KUBE-SERVICES"},
        "POSTROUTING": {"KUBE-POSTROUTING"},
    },
    "filter": {
        "INPUT": {"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"},
        "FORWARD": {"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL"},
        "OUTPUT": {"KUBE-SERVICES", "KUBE-PROXY-FIREWALL"},
    },
}


class Rule(NamedTuple):
    """A line `-A CHAIN …` of iptables-save, with the chain it goes to, if any."""

    chain: str
    text: str
    target: str


class Table(NamedTuple):
    """One table: its chains (True: the kernel's own, with a policy) and rules."""

    name: str
    chains: dict[str, bool]
    rules: list[Rule]


class Removal(NamedTuple):
    """What iptables-restore --noflush is to be given, and what comes of it."""

    text: str
    removed: list[str]
    kept: list[str]  # ours by name, but somebody else's rules lead there


def tables(saved: str) -> list[Table]:
    """What iptables-save printed."""
    found: list[Table] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            found.append(Table(line[1:].strip(), {}, []))
        elif line.startswith(":") and found:
            name, policy, *_ = line[1:].split()
            found[-1].chains[name] = policy != "-"
        elif line.startswith("-A ") and found:
            _, chain, rest = line.split(" ", 2)
            found[-1].rules.append(Rule(chain, rest, _target(rest)))
    return found


def is_kube_proxys(table: str, chain: str) -> bool:
    """Whether kube-proxy makes a chain of this name in this table."""
    return chain in _CHAINS.get(table, ()) or (table == "nat" and chain.startswith(_PREFIXES))


def removal(saved: str) -> Removal:
    """Everything of kube-proxy's in the output of iptables-save, and nothing else.

    A chain that rules of others lead to stays, with all that it needs: those rules could not stay without it.
    """
    text, removed, kept = "", [], []
    for table in tables(saved):
        ours = {chain for chain in table.chains if is_kube_proxys(table.name, chain)}
        wanted = _needed_by_others(table, ours)
        going = sorted(ours - wanted)
        jumps = [rule for rule in table.rules if _is_jump(table.name, rule)]
        kept += [f"{table.name} {chain}" for chain in sorted(wanted)]
        removed += [f"{table.name} {rule.chain} -> {rule.target}" for rule in jumps]
        removed += [f"{table.name} {chain}" for chain in going]
        if going or jumps:
            text += f"*{table.name}\n"
            text += "".join(f":{chain} - [0:0]\n" for chain in going)  # which empties them
            text += "".join(f"-D {rule.chain} {rule.text}\n" for rule in jumps)
            text += "".join(f"-X {chain}\n" for chain in going)
            text += "COMMIT\n"
    return Removal(text, removed, kept)


def _is_jump(table: str, rule: Rule) -> bool:
    return rule.target in _JUMPS.get(table, {}).get(rule.chain, ())


def _needed_by_others(table: Table, ours: set[str]) -> set[str]:
    foreign = {
        rule.target
        for rule in table.rules
        if rule.target in ours and rule.chain not in ours and not _is_jump(table.name, rule)
    }
    return _reached(foreign, table.rules, ours)


def _reached(start: Iterable[str], rules: list[Rule], ours: set[str]) -> set[str]:
    found, waiting = set(), set(start)
    while waiting:
        chain = waiting.pop()
        found.add(chain)
        waiting |= {r.target for r in rules if r.chain == chain and r.target in ours} - found
    return found


def _target(rest: str) -> str:
    try:
        words = shlex.split(rest)
    except ValueError:
        return ""  # a comment with an odd quote: leads to no chain of ours
    for flag, value in pairwise(words):
        if flag in ("-j", "--jump", "-g", "--goto"):
            return value
    return ""
