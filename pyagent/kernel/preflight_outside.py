"""What `kubesock check` says of traffic from outside the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.outside_devices import outside_devices
from pyagent.kernel.preflight import Finding, State
from pyagent.model.failures import PinsMissing

FORWARDING = {"IPv4": "net/ipv4/ip_forward", "IPv6": "net/ipv6/conf/all/forwarding"}
EPHEMERAL = "net/ipv4/ip_local_port_range"
SYSCTL = Path("/proc/sys")


def outside(bpffs: Path) -> Iterator[Finding]:
    """Forwarding, devices, and whether the host uses the ports that packets leave with."""
    yield _forwarding()
    try:
        maps = MapSet.open(current_folder(bpffs))
    except PinsMissing:
        yield Finding("traffic from outside", State.FOUND, False, "no agent has run; --outside says where")
        return
    try:
        devices = outside_devices(bpffs, maps)
        yield _ports(maps)
    finally:
        maps.close()
    lost = [one.name for one in devices if not one.served]
    names = ", ".join(one.name + (" (pods)" if one.pod_side else "") for one in devices)
    if lost:
        remedy = "the agent attaches again within seconds; look at its log if it does not"
        yield Finding(
            "traffic from outside", State.WARNING, False, f"not served at {', '.join(lost)}", remedy
        )
    elif devices:
        yield Finding("traffic from outside", State.FOUND, False, f"served at {names}")
    else:
        why = "served nowhere: --outside=off, no uplink, or refused by the kernel; the agent's log says which"
        yield Finding("traffic from outside", State.FOUND, False, why)


def _forwarding() -> Finding:
    off = [family for family, name in FORWARDING.items() if _read(name) == "0"]
    if not off:
        return Finding("forwarding", State.FOUND, False, "on")
    remedy = "set " + ", ".join(f"{FORWARDING[f].replace('/', '.')}=1" for f in off)
    return Finding(
        "forwarding", State.WARNING, False, f"off for {', '.join(off)}: packets reach no pod", remedy
    )


def _ports(maps: MapSet) -> Finding:
    from pyagent.datapath.layout import CONFIG

    config = CONFIG.as_dict(maps.memory("config")[: CONFIG.size])
    first, last = int(config["source_port_low"]), int(config["source_port_high"])
    own = [int(part) for part in _read(EPHEMERAL).split()]
    detail = f"{first}-{last}"
    if len(own) == 2 and first <= own[1] and own[0] <= last:
        remedy = "give --outside-source-ports a range outside of net.ipv4.ip_local_port_range"
        return Finding(
            "source ports",
            State.WARNING,
            False,
            f"{detail} are the host's own too: {own[0]}-{own[1]}",
            remedy,
        )
    return Finding("source ports", State.FOUND, False, detail)


def _read(name: str) -> str:
    try:
        return (SYSCTL / name).read_text().strip()
    except OSError:
        return ""
