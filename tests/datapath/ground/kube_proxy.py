"""Rules as kube-proxy writes them, with its table and chain names, and rules of others beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple


class Served(NamedTuple):
    """One port of a Service, TCP."""

    name: str  # namespace/name:port
    cluster_ip: str
    port: int
    endpoints: Sequence[str]  # ADDRESS:PORT; none: refused
    node_port: int = 0
    sticky: bool = False  # sessionAffinity: in nftables a chain for each endpoint, else one choice from a map

    def chain(self, kind: str, more: str = "") -> str:
        digest = hashlib.sha256(f"{self.name}tcp{more}".encode()).hexdigest()[:16].upper()
        return f"KUBE-{kind}-{digest}"


def iptables_rules(services: Sequence[Served]) -> str:
    """What kube-proxy's iptables mode gives to iptables-restore --noflush, after its jumps are there."""
    head = [
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-NODEPORTS - [0:0]",
        ":KUBE-POSTROUTING - [0:0]",
        ":KUBE-MARK-MASQ - [0:0]",
    ]
    head.append(":KUBE-PROXY-CANARY - [0:0]")
    rules, refused = [], []
    for one in services:
        where = f"-d {one.cluster_ip}/32 -p tcp -m tcp --dport {one.port}"
        if not one.endpoints:
            text = f'-A KUBE-SERVICES -m comment --comment "{one.name} has no endpoints" {where}'
            refused.append(f"{text} -j REJECT --reject-with icmp-port-unreachable")
            continue
        chain = one.chain("SVC")
        head.append(f":{chain} - [0:0]")
        rules.append(f'-A KUBE-SERVICES -m comment --comment "{one.name} cluster IP" {where} -j {chain}')
        if one.node_port:
            outer = one.chain("EXT")
            head.append(f":{outer} - [0:0]")
            rules.append(
                f'-A {outer} -m comment --comment "masquerade {one.name} external" -j KUBE-MARK-MASQ'
            )
            rules.append(f"-A {outer} -j {chain}")
            rules.append(
                f'-A KUBE-NODEPORTS -m comment --comment "{one.name}" -p tcp --dport {one.node_port}'
                f" -j {outer}"
            )
            rules.append(
                f'-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment "{one.name}" -m tcp'
                f" --dport {one.node_port} -j {outer}"
            )
        left = len(one.endpoints)
        for endpoint in one.endpoints:
            end = one.chain("SEP", endpoint)
            address = endpoint.rpartition(":")[0]
            head.append(f":{end} - [0:0]")
            odds = f" -m statistic --mode random --probability {1 / left:.11f}" if left > 1 else ""
            rules.append(f'-A {chain} -m comment --comment "{one.name} -> {endpoint}"{odds} -j {end}')
            rules.append(f'-A {end} -s {address}/32 -m comment --comment "{one.name}" -j KUBE-MARK-MASQ')
            rules.append(
                f'-A {end} -p tcp -m comment --comment "{one.name}" -j DNAT --to-destination {endpoint}'
            )
            left -= 1
    rules += [
        '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; this must be the last rule"'
        " -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE',
        '-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    ]
    names = (
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-FORWARD",
        "KUBE-PROXY-FIREWALL",
    )
    new = "-m conntrack --ctstate NEW"
    filters = [
        *refused,
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding" -m mark --mark 0x4000/0x4000 -j ACCEPT',
        f'-A INPUT {new} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL',
        '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        f'-A INPUT {new} -m comment --comment "externally-visible service portals" -j KUBE-EXTERNAL-SERVICES',
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        f'-A FORWARD {new} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        f'-A FORWARD {new} -m comment --comment "external service portals" -j KUBE-EXTERNAL-SERVICES',
        f'-A OUTPUT {new} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    ]
    nat = "\n".join(["*nat", *head, *rules, "COMMIT"])
    declared = [f":{name} - [0:0]" for name in (*names, "KUBE-PROXY-CANARY")]
    return "\n".join(
        [nat, "*mangle", ":KUBE-PROXY-CANARY - [0:0]", "COMMIT", "*filter", *declared, *filters, "COMMIT", ""]
    )


FOREIGN_IPTABLES = """\
*mangle
:KUBE-KUBELET-CANARY - [0:0]
:MY-MANGLE - [0:0]
-A OUTPUT -j MY-MANGLE
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:KUBECTL-PROXY - [0:0]
:KUBE-SVCX - [0:0]
-A KUBE-MARK-DROP -j MARK --or-mark 0x8000
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "it's \\"so\\"" --dport 8 -j DNAT --to-destination 10.1.0.1
-A POSTROUTING -s 10.88.0.0/16 ! -o cni0 -j MASQUERADE
-A OUTPUT -d 192.0.2.1/32 -j KUBECTL-PROXY
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -m comment --comment "KUBE-SERVICES is only named here" -j ACCEPT
-A OUTPUT -j KUBE-FIREWALL
-A FORWARD -j DOCKER-USER
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A DOCKER-USER -j RETURN
COMMIT
"""
"""Of kubelet, a CNI plugin, a container engine and an operator."""

FOREIGN_NFT = """\
table inet firewalld {
	set kube-proxy { type ipv4_addr; elements = { 192.0.2.7 } }
	chain filter_INPUT {
		type filter hook input priority 10; policy accept;
		ip saddr @kube-proxy counter accept
	}
}
table ip kube-proxy-mine {
	chain services { return; }
}
table inet kube-proxy {
	chain services { return; }
}
"""
"""Names that are close to kube-proxy's; it has no table of the family inet."""


def nft_rules(services: Sequence[Served], family: str = "ip") -> str:
    """What kube-proxy's nftables mode gives to nft."""
    kind, word = ("ipv4_addr", "ip") if family == "ip" else ("ipv6_addr", "ip6")
    ips, verdicts, none, ports, chains = [], [], [], [], []
    for one in services:
        ips.append(one.cluster_ip)
        place = f"{one.cluster_ip} . tcp . {one.port}"
        slug = one.name.replace(":", "/tcp/")
        digest = hashlib.sha256(one.name.encode()).hexdigest()[:8].upper()
        if not one.endpoints:
            none.append(f'{place} comment "{one.name}" : goto reject-chain')
            continue
        chain = f"service-{digest}-{slug}"
        verdicts.append(f'{place} comment "{one.name}" : goto {chain}')
        if one.node_port:
            chains.append(f"chain external-{digest}-{slug} {{ jump mark-for-masquerade; goto {chain}; }}")
            ports.append(f'tcp . {one.node_port} comment "{one.name}" : goto external-{digest}-{slug}')
        if not one.sticky:
            choice = ", ".join(
                f"{number} : {address.strip('[]')} . {port}"
                for number, (address, _, port) in enumerate(e.rpartition(":") for e in one.endpoints)
            )
            chains.append(
                f"chain {chain} {{ meta l4proto tcp dnat {word} addr . port to numgen random mod"
                f" {len(one.endpoints)} map {{ {choice} }}; }}"
            )
            continue
        targets = []
        for number, endpoint in enumerate(one.endpoints):
            address, _, port = endpoint.rpartition(":")
            end = f"endpoint-{digest}-{slug}__{address.strip('[]').replace(':', '.')}/{port}"
            targets.append(f"{number} : goto {end}")
            chains.append(
                f"chain {end} {{ {word} saddr {address.strip('[]')} jump mark-for-masquerade;"
                f" meta l4proto tcp dnat to {endpoint}; }}"
            )
        chains.append(
            f"chain {chain} {{ numgen random mod {len(targets)} vmap {{ {', '.join(targets)} }}; }}"
        )

    def elements(found: list[str]) -> str:
        return f"elements = {{ {', '.join(found)} }}" if found else ""

    # Chains before those that lead to them.
    body = "\n".join(
        sorted(
            chains,
            key=lambda text: ("endpoint-", "service-", "external-").index(
                next(p for p in ("endpoint-", "service-", "external-") if text.startswith(f"chain {p}"))
            ),
        )
    )
    key = f"{kind} . inet_proto . inet_service : verdict"
    return f"""
table {family} kube-proxy {{
	comment "rules for kube-proxy"
	chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
	chain reject-chain {{ reject; }}
	chain masquerading {{
		meta mark & 0x4000 == 0 return
		meta mark set meta mark ^ 0x4000
		masquerade fully-random
	}}
	{body}
	set cluster-ips {{ type {kind}; comment "Active ClusterIPs"; {elements(ips)}; }}
	set nodeport-ips {{ type {kind}; comment "IPs that accept NodePort traffic"; }}
	map no-endpoint-services {{ type {key}; {elements(none)}; }}
	map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
	map service-ips {{ type {key}; {elements(verdicts)}; }}
	map service-nodeports {{ type inet_proto . inet_service : verdict; {elements(ports)}; }}
	chain services {{
		{word} daddr . meta l4proto . th dport vmap @service-ips
		{word} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}}
	chain service-endpoints-check {{ {word} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
	chain filter-output {{
		type filter hook output priority -101; policy accept;
		ct state new jump service-endpoints-check
	}}
	chain nat-prerouting {{ type nat hook prerouting priority -100; policy accept; jump services; }}
	chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
	chain nat-postrouting {{ type nat hook postrouting priority 100; policy accept; jump masquerading; }}
}}
""".replace(" ; }", " }").replace("; ; ", "; ")
