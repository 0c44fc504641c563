"""kube-proxy's rules in this network namespace: read, and removed, by the distribution's own tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from pyagent.kernel.kube_proxy_chains import NFT_TABLE, Removal, removal
from pyagent.model.failures import KernelRefused, KubesockError, NoPermission

SECONDS = 60.0
FAMILIES = ("ip", "ip6")
_VARIANTS = ("-nft", "-legacy", "")
"""Two back ends hold rules side by side; kube-proxy uses the one that kubelet uses."""

_LEGACY_TABLES = {"iptables": "/proc/net/ip_tables_names", "ip6tables": "/proc/net/ip6_tables_names"}


class Variant(NamedTuple):
    """One back end for one family: the names of its commands."""

    save: str
    restore: str


class Found(NamedTuple):
    """What there is of kube-proxy's.

    Attributes:
        nft: families whose table is there.
        iptables: back ends with chains or jumps, and how they are removed.
        missing_tools: what could not be looked at.
        ipvs: there is an interface of kube-proxy's ipvs mode.
        blind: no tool is here, so that nothing was looked at.
    """

    nft: tuple[str, ...]
    iptables: tuple[tuple[Variant, Removal], ...]
    missing_tools: tuple[str, ...]
    ipvs: bool
    blind: bool

    def __bool__(self) -> bool:
        return bool(self.nft or any(one.text for _, one in self.iptables))


def look() -> Found:
    """Find kube-proxy's tables and chains; nothing is changed.

    Raises:
        NoPermission, KernelRefused: a tool refuses.
    """
    missing = [] if shutil.which("nft") else ["nft"]
    nft = tuple(family for family in FAMILIES if not missing and nft_table(family) is not None)
    variants = _variants()
    if not variants:
        missing.append("iptables-save")
    found = [(variant, removal(saved(variant))) for variant in variants]
    ipvs = Path("/sys/class/net/kube-ipvs0").exists()
    removable = tuple(f for f in found if f[1].text or f[1].kept)
    return Found(nft, removable, tuple(missing), ipvs, blind="nft" in missing and not variants)


def remove(found: Found) -> list[str]:
    """Take away what was found, each table in one transaction; a line for each thing removed.

    Raises:
        NoPermission, KernelRefused: a tool refuses; what went before is gone.
    """
    done = []
    for family in found.nft:
        _run(["nft", "delete", "table", family, NFT_TABLE])
        done.append(f"nftables table {family} {NFT_TABLE}")
    for variant, one in found.iptables:
        if one.text:
            _run([variant.restore, "--noflush", "--wait=5"], one.text)
            done += [f"{variant.save.removesuffix('-save')} {line}" for line in one.removed]
    return done


def nft_table(family: str) -> list[dict[str, Any]] | None:
    """kube-proxy's table as nft's JSON (libnftables-json(5)); None: there is none, or no nft.

    Raises:
        NoPermission, KernelRefused: nft refuses.
    """
    if not shutil.which("nft"):
        return None
    listed = json.loads(_run(["nft", "--json", "list", "tables", family]))["nftables"]
    if not any(one.get("table", {}).get("name") == NFT_TABLE for one in listed):
        return None
    text = _run(["nft", "--json", "list", "table", family, NFT_TABLE])
    found: list[dict[str, Any]] = json.loads(text)["nftables"]
    return found


def saved_rules() -> dict[Variant, str]:
    """What iptables-save of each back end and family prints."""
    return {variant: saved(variant) for variant in _variants()}


def saved(variant: Variant) -> str:
    """What iptables-save of a back end prints."""
    return _run([variant.save])


def _variants() -> list[Variant]:
    found: dict[Path, Variant] = {}
    for family in _LEGACY_TABLES:
        for kind in _VARIANTS:
            path = shutil.which(f"{family}{kind}-save")
            if path is None or (kind == "-legacy" and not Path(_LEGACY_TABLES[family]).exists()):
                continue  # to look at legacy tables would load the modules that they need
            # The plain name is one of the other two, by update-alternatives; their binaries have many names.
            known = [v for v in found.values() if v.save.startswith(family) and v.save != f"{family}-save"]
            if kind == "" and known:
                continue
            found[Path(path)] = Variant(f"{family}{kind}-save", f"{family}{kind}-restore")
    return list(found.values())


def _run(command: list[str], text: str = "") -> str:
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            errors="replace",
        )
    except FileNotFoundError:
        raise KubesockError(
            f"{command[0]}: not installed; install it, or run `kube-proxy --cleanup`"
        ) from None
    except subprocess.TimeoutExpired:
        raise KernelRefused(f"{' '.join(command)}: no answer in {SECONDS:.0f} s; try again") from None
    if done.returncode:
        error = " | ".join(line.strip() for line in done.stderr.splitlines() if line.strip())[:500]
        kind = NoPermission if "ermi" in error else KernelRefused  # Permission denied, not permitted
        raise kind(f"{' '.join(command)}: {error or done.returncode}; run as root, in the node's namespace")
    return done.stdout
