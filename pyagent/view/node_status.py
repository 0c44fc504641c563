"""Whether this node is served as it should be, from the pins, the links and the lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from pyagent.datapath.encoded import PROBE_FRONTENDS
from pyagent.kernel.cgroup_paths import cgroup_path
from pyagent.kernel.links import UNCONNECTED_UDP, LinkState, cgroup_id, effective_programs, pinned_states
from pyagent.kernel.map_set import MapSet, current_folder
from pyagent.kernel.outside_devices import ServedDevice, outside_devices
from pyagent.view.fill import NEARLY_FULL_PERCENT
from pyagent.view.live import LiveMaps
from pyagent.view.map_table import map_rows, nearly_full
from pyagent.view.pins import read_live
from pyagent.view.service_table import service_rows

LINKS = "links"


class HookStatus(NamedTuple):
    """One hook. `effective`: its program runs for sockets of the cgroup; None where nobody could tell."""

    hook: str
    attached: bool
    effective: bool | None
    program_id: int
    link_id: int
    cgroup: str


class NodeStatus(NamedTuple):
    """Everything that `kubesock status` shows. `problems` is empty where all is well."""

    folder: str
    live: LiveMaps
    hooks: list[HookStatus]
    problems: list[str]
    outside: tuple[ServedDevice, ...] = ()


def read_status(bpffs: Path, cgroup: Path | None, observing: bool = False) -> NodeStatus:
    """Look at everything once.

    Args:
        cgroup: where the hooks should be; None: wherever they are.
        observing: the agent says that nothing is meant to be attached.

    Raises:
        PinsMissing, LayoutMismatch, NoPermission, KernelRefused: with the remedy.
    """
    folder = current_folder(bpffs)
    live = read_live(bpffs, facts=True)
    links = pinned_states(bpffs / LINKS)
    hooks = hook_statuses(links, cgroup)
    devices = _outside(bpffs, folder)
    found = problems(live, hooks, cgroup, bpffs, observing)
    found += [
        f"packets from outside are not served at {one.name}; the agent attaches again within seconds"
        for one in devices
        if not one.served
    ]
    return NodeStatus(str(folder), live, hooks, found, tuple(devices))


def _outside(bpffs: Path, folder: Path) -> list[ServedDevice]:
    maps = MapSet.open(folder)
    try:
        return outside_devices(bpffs, maps)
    finally:
        maps.close()


def hook_statuses(links: list[LinkState], cgroup: Path | None) -> list[HookStatus]:
    """How each hook stands; `cgroup` as in `read_status`."""
    paths = {link.cgroup_id: cgroup_path(link.cgroup_id) for link in links if link.attached}
    effective = {path: effective_programs(path) for path in paths.values() if path is not None}
    found = []
    for link in sorted(links):
        path = paths.get(link.cgroup_id) if link.attached else None
        runs = link.program_id in effective[path].get(link.hook, []) if path is not None else None
        if link.attached and cgroup is not None and link.cgroup_id != cgroup_id(cgroup):
            runs = False
        text = str(path) if path is not None else f"id {link.cgroup_id}" if link.attached else ""
        found.append(
            HookStatus(
                link.hook.name.lower(),
                link.attached,
                runs if link.attached else False,
                link.program_id,
                link.link_id,
                text,
            )
        )
    return found


def problems(
    live: LiveMaps, hooks: list[HookStatus], cgroup: Path | None, bpffs: Path, observing: bool = False
) -> list[str]:
    """What is not as it should be, each with the remedy."""
    found = []
    if not live.agent.alive:
        found.append(f"no agent is running on {bpffs}: changes are not followed; start `kubesock run`")
    detached = [hook.hook for hook in hooks if not hook.attached]
    unconnected = {hook.name.lower() for hook in UNCONNECTED_UDP}
    if not observing and set(detached) != unconnected:  # all of these and only these: `run --udp=connected`
        remedy = "the agent attaches again within seconds" if live.agent.alive else "start `kubesock run`"
        found += [f"hook {hook} is not attached; {remedy}" for hook in detached]
    where = cgroup if cgroup is not None else "its cgroup"
    found += [
        f"hook {hook.hook} is attached and does not run for {where}: `kubesock check` names other programs"
        for hook in hooks
        if hook.attached and hook.effective is False
    ]
    found += [
        f"map {facts.name} is {facts.fill_percent}% full, over {NEARLY_FULL_PERCENT:.0f}%:"
        f" {facts.entries} of {facts.capacity}"
        for facts in live.maps
        if nearly_full(facts)
    ]
    return found


def status_fields(status: NodeStatus) -> dict[str, Any]:
    """The status as JSON and YAML show it."""
    live = status.live
    services = service_rows(live)
    return {
        "status": "degraded" if status.problems else "ok",
        "problems": status.problems,
        "outside": [{"device": o.name, "served": o.served, "podSide": o.pod_side} for o in status.outside],
        "agent": {
            "running": live.agent.alive,
            "pid": live.agent.pid or None,
            "startedSecondsAgo": None if live.agent.age is None else round(live.agent.age, 1),
        },
        "pins": status.folder,
        "layout": live.meta.get("layout"),
        "programTag": f"{live.meta.get('program_tag', 0):016x}",
        "servicePorts": len(services),
        "servicePortsWithoutBackends": sum(1 for row in services if not row["ready"] + row["terminating"]),
        "frontends": len(live.raw.frontends.keys() - set(PROBE_FRONTENDS)),
        "hooks": [
            {
                "hook": hook.hook,
                "attached": hook.attached,
                "effective": hook.effective,
                "cgroup": hook.cgroup,
                "program": hook.program_id or None,
                "link": hook.link_id or None,
            }
            for hook in status.hooks
        ],
        "maps": map_rows(live),
        "outcomes": {outcome.label: count for outcome, count in live.outcomes.items()},
    }
