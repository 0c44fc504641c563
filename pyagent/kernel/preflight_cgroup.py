"""Where the hooks would go and what is there already: mounts, other programs, our own pins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyagent.kernel import mounts
from pyagent.kernel.features import kernel_version
from pyagent.kernel.links import foreign_programs, pinned_states
from pyagent.kernel.lock_owner import lock_owner
from pyagent.kernel.map_set import current_folder
from pyagent.kernel.preflight import Finding, State
from pyagent.model.failures import KernelRefused, LayoutMismatch, NoPermission, PinsMissing, sanitized

SHARED_CLASSES = frozenset({"net_cls", "net_prio"})
MIXED_HIERARCHIES_FIXED = (5, 15)
TRANSLATORS = {
    "cil_sock": "Cilium",
    "sock4_": "Cilium",
    "sock6_": "Cilium",
    "calico_": "Calico",
    "cali_": "Calico",
}
"""How the names of other socket load balancers' programs begin."""


def bpf_file_system(bpffs: Path) -> Iterator[Finding]:
    """Whether `--bpffs` lies on a BPF file system."""
    existing = bpffs
    while not existing.exists():
        existing = existing.parent
    if mounts.filesystem_type(existing) == mounts.BPFFS_MAGIC:
        yield Finding("BPF file system", State.FOUND, True, str(existing))
        return
    known = "\tbpf\n" in Path("/proc/filesystems").read_text()
    if known:
        yield Finding("BPF file system", State.FOUND, True, f"none at {bpffs}: `kubesock run` mounts it")
    else:
        remedy = "boot a kernel with CONFIG_BPF_SYSCALL=y"
        yield Finding("BPF file system", State.MISSING, True, "unknown to this kernel", remedy)


def cgroup(given: Path | None) -> Iterator[Finding]:
    """The cgroup whose processes would be translated."""
    try:
        root = mounts.cgroup2_root()
    except KernelRefused:
        remedy = "`mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot systemd.unified_cgroup_hierarchy=1"
        yield Finding("cgroup v2", State.MISSING, True, "not mounted", remedy)
        return
    path = given or root
    if not path.is_dir() or mounts.filesystem_type(path) != mounts.CGROUP2_MAGIC:
        remedy = f"give --cgroup a folder below {root}"
        yield Finding("cgroup v2", State.MISSING, True, f"{path} is none of its folders", remedy)
    elif given is None and not mounts.is_hierarchy_root(path):
        yield Finding(
            "cgroup v2",
            State.WARNING,
            True,
            f"{path} is not the root of the hierarchy",
            "mount the host's cgroup v2 into this container; else only processes below it are translated",
        )
    else:
        yield Finding("cgroup v2", State.FOUND, True, str(path))


def version_1() -> Iterator[Finding]:
    """cgroup v1 classes take the place in a socket that old kernels keep its v2 cgroup in."""
    found = sorted(
        name
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup"
        for name in SHARED_CLASSES.intersection(line.split()[3].split(","))
    )
    if not found:
        yield Finding("cgroup v1", State.FOUND, False, "no net_cls or net_prio hierarchy")
    elif kernel_version() >= MIXED_HIERARCHIES_FIXED:
        yield Finding(
            "cgroup v1", State.FOUND, False, f"{', '.join(found)} mounted, harmless since Linux 5.15"
        )
    else:
        yield Finding(
            "cgroup v1",
            State.WARNING,
            False,
            f"{', '.join(found)} mounted: before Linux 5.15 sockets lose their v2 cgroup by it",
            "boot with cgroup_no_v1=net_prio,net_cls, or Linux 5.15 or later",
        )


def other_programs(bpffs: Path, given: Path | None) -> Iterator[Finding]:
    """Programs of others at the same hooks. Two translators see each other's addresses."""
    own = frozenset(state.program_id for state in pinned_states(bpffs / "links"))
    found: dict[str, list[str]] = {}
    for hook, identifier, name in foreign_programs(given or mounts.cgroup2_root(), own):
        owner = next((who for start, who in TRANSLATORS.items() if name.startswith(start)), "")
        found.setdefault(owner, []).append(f"{sanitized(name)[1:-1]} (id {identifier}, {hook.name.lower()})")
    if not found:
        yield Finding("other programs", State.FOUND, True, "none at these hooks")
    for owner, texts in sorted(found.items()):
        detail = ", ".join(texts)
        if owner:
            remedy = f"switch {owner}'s socket load balancing off: two translators on one cgroup disagree"
            yield Finding("other programs", State.MISSING, True, f"{owner}: {detail}", remedy)
        else:
            remedy = "make sure that they do not change addresses too; `bpftool prog show id` tells more"
            yield Finding("other programs", State.WARNING, False, detail, remedy)


def pins(bpffs: Path) -> Iterator[Finding]:
    """What an agent has pinned at `--bpffs` before."""
    try:
        folder = current_folder(bpffs)
    except PinsMissing:
        yield Finding("pins", State.FOUND, False, f"none at {bpffs}")
        return
    except LayoutMismatch as error:
        yield Finding("pins", State.WARNING, False, str(error), "`kubesock run` makes new maps beside them")
        return
    except NoPermission as error:
        yield Finding("pins", State.UNKNOWN, False, str(error), "run as root to learn it")
        return
    owner = lock_owner(bpffs)
    who = (
        f"agent {owner.pid} is running" if owner.pid else "an agent is running" if owner.alive else "no agent"
    )
    yield Finding("pins", State.FOUND, False, f"{folder}, {who}")
