"""`kubesock cleanup --kube-proxy` on rule sets of kube-proxy's own names beside those of others."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pyagent.demo import namespaces
from pyagent.demo.agent_process import run_verb
from pyagent.demo.calls import call
from pyagent.demo.sandbox import Sandbox
from pyagent.kernel.kube_proxy_chains import removal
from pyagent.kernel.kube_proxy_rules import nft_table
from pyagent.model.address import Family, Protocol, format_endpoint, parse_address
from pyagent.view.kube_proxy_served import Dialled, by_nft
from tests.datapath.ground.kube_proxy import (
    FOREIGN_IPTABLES,
    FOREIGN_NFT,
    Served,
    iptables_rules,
    nft_rules,
)
from tests.datapath.ground.waiting import wait_for

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed"),
    pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="iptables-nft is not installed"),
]

SERVICES = (
    Served("shop/web:http", "10.96.0.1", 80, ("10.1.0.1:8080", "10.1.0.2:8080"), 30080),
    Served("shop/api:http", "10.96.0.3", 80, ("10.1.0.1:8081", "10.1.0.2:8081"), sticky=True),
    Served("shop/none:http", "10.96.0.2", 80, ()),
)
SERVICES6 = (Served("shop/web:http", "fd00:96::1", 80, ("[fd00::1]:8080",)),)


_numbers = itertools.count()


class Ruled:
    """A network namespace of its own."""

    def __init__(self, netns: Path) -> None:
        self.netns = netns

    def tool(self, *command: str, text: str = "") -> str:
        def run() -> tuple[int, str, str]:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=30, check=False
            )
            return done.returncode, done.stdout, done.stderr

        code, out, err = call(run, netns=self.netns, timeout=40)
        assert code == 0, f"{command}: {err}"
        return out

    def verb(self, *arguments: str) -> tuple[int, str, str]:
        return call(partial(run_verb, *arguments), netns=self.netns, timeout=40)

    @property
    def ruleset(self) -> str:
        return self.tool("nft", "--stateless", "list", "ruleset")

    def saved(self, command: str) -> str:
        """What iptables-save prints, without times and counters."""
        lines = self.tool(command).splitlines()
        return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in lines if not line.startswith("#"))


@pytest.fixture
def ruled(sandbox: Sandbox) -> Iterator[Ruled]:
    path = sandbox.new_namespace(f"rules{next(_numbers)}")
    yield Ruled(path)
    namespaces.remove(path)


class BackEnd(NamedTuple):
    """How rules get into the kernel, and how one sees them."""

    add: Callable[[Ruled, str], object]
    foreign: str
    ours: str
    see: Callable[[Ruled], str]


def by_iptables(kind: str) -> BackEnd:
    return BackEnd(
        lambda ruled, text: ruled.tool(f"iptables-{kind}-restore", "--noflush", text=text),
        FOREIGN_IPTABLES,
        iptables_rules(SERVICES),
        lambda ruled: ruled.saved(f"iptables-{kind}-save"),
    )


BACK_ENDS = {
    "iptables-nft": by_iptables("nft"),
    "iptables-legacy": by_iptables("legacy"),
    "nft": BackEnd(
        lambda ruled, text: ruled.tool("nft", "--file", "-", text=text),
        FOREIGN_NFT,
        nft_rules(SERVICES) + nft_rules(SERVICES6, "ip6"),
        lambda ruled: ruled.ruleset,
    ),
}


@pytest.mark.parametrize("name", BACK_ENDS)
def test_all_of_kube_proxys_goes_and_nothing_else(ruled: Ruled, bpffs: Path, name: str) -> None:
    back_end = BACK_ENDS[name]
    back_end.add(ruled, back_end.foreign)
    before = back_end.see(ruled)
    back_end.add(ruled, back_end.ours)
    assert back_end.see(ruled) != before
    arguments = ("cleanup", "--kube-proxy", "--force", f"--bpffs={bpffs}")
    with_both = back_end.see(ruled)
    code, out, _ = ruled.verb(*arguments, "--dry-run")
    assert code == 0
    assert back_end.see(ruled) == with_both
    code, removed, err = ruled.verb(*arguments)
    assert (code, out.replace("would remove", "removed")) == (0, removed), err
    assert removed
    assert back_end.see(ruled) == before
    code, out, _ = ruled.verb(*arguments)
    assert (code, out) == (0, "nothing of kube-proxy's in this network namespace\n")


def test_what_nft_says_is_read_as_what_it_was_made_from(ruled: Ruled) -> None:
    back_end = BACK_ENDS["nft"]
    back_end.add(ruled, back_end.ours)

    def table(word: str) -> list[dict[str, Any]]:
        return nft_table(word) or []

    found = {
        family: by_nft(call(partial(table, word), netns=ruled.netns), family)
        for word, family in (("ip", Family.IPV4), ("ip6", Family.IPV6))
    }
    expected: dict[Family, dict[Dialled, set[str]]] = {Family.IPV4: {}, Family.IPV6: {}}
    for family, services in ((Family.IPV4, SERVICES), (Family.IPV6, SERVICES6)):
        for one in services:
            expected[family][Dialled(parse_address(one.cluster_ip), one.port, Protocol.TCP, family)] = set(
                one.endpoints
            )
            if one.node_port:
                expected[family][Dialled(b"", one.node_port, Protocol.TCP, family)] = set(one.endpoints)
    texts = {
        family: {dialled: {format_endpoint(*end) for end in ends} for dialled, ends in served.items()}
        for family, served in found.items()
    }
    assert texts == expected


def test_a_chain_that_others_use_stays_with_what_it_needs(ruled: Ruled, bpffs: Path) -> None:
    back_end = BACK_ENDS["iptables-nft"]
    back_end.add(ruled, back_end.ours)
    used = "*nat\n:MY-HOSTPORTS - [0:0]\n-A MY-HOSTPORTS -s 10.1.0.1/32 -j KUBE-MARK-MASQ\nCOMMIT\n"
    back_end.add(ruled, used)
    code, _, err = ruled.verb("cleanup", "--kube-proxy", "--force", f"--bpffs={bpffs}")
    assert code == 0
    assert "KUBE-MARK-MASQ stays: rules of others lead to it" in err
    left = back_end.see(ruled)
    assert set(re.findall(r"^:(KUBE-\S+|MY-\S+)", left, re.MULTILINE)) == {"KUBE-MARK-MASQ", "MY-HOSTPORTS"}
    assert "-A KUBE-MARK-MASQ -j MARK" in left
    assert "-A MY-HOSTPORTS -s 10.1.0.1/32 -j KUBE-MARK-MASQ" in left


def test_where_nobody_would_serve_nothing_is_removed(ruled: Ruled, bpffs: Path) -> None:
    back_end = BACK_ENDS["nft"]
    back_end.add(ruled, back_end.ours)
    before = back_end.see(ruled)
    code, _, err = ruled.verb("cleanup", "--kube-proxy", f"--bpffs={bpffs}")
    assert code == 1
    assert "no hooks of kubesock are attached" in err
    assert "--force" in err
    assert back_end.see(ruled) == before


def test_beside_a_kube_proxy_of_this_namespace_nothing_is_removed(
    ruled: Ruled, sandbox: Sandbox, bpffs: Path, tmp_path: Path
) -> None:
    back_end = BACK_ENDS["nft"]
    back_end.add(ruled, back_end.ours)
    before = back_end.see(ruled)
    program = tmp_path / "kube-proxy"
    shutil.copy(str(shutil.which("sleep")), program)
    running = sandbox.spawn([str(program), "60"], netns=ruled.netns)
    try:
        wait_for(
            lambda: Path(f"/proc/{running.pid}/comm").read_text(), lambda name: name == "kube-proxy\n", "it"
        )
        code, _, err = ruled.verb("cleanup", "--kube-proxy", f"--bpffs={bpffs}")
        assert code == 1
        assert f"kube-proxy runs, process {running.pid}" in err
        assert back_end.see(ruled) == before
    finally:
        running.kill()


@pytest.mark.parametrize("text", ["", "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n", FOREIGN_IPTABLES])
def test_rules_of_others_alone_give_nothing_to_do(text: str) -> None:
    assert removal(text) == ("", [], [])
