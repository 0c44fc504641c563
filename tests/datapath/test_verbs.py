"""The reading verbs as processes, on real pinned maps, links and locks."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyagent.cli.main import main
from pyagent.datapath.layout import AFFINITY, AFFINITY_KEY, Hook, map_specs, pair_word
from pyagent.datapath.writes import Put, Store
from pyagent.demo.agent_process import kubesock, run_verb
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.bpffs_lock import BpffsLock
from pyagent.kernel.features import PROGRAM_SOCK_ADDR
from pyagent.kernel.links import ATTACH_TYPE, UNCONNECTED_UDP, Links, program_name
from pyagent.kernel.map_set import MapSet
from tests.datapath.ground import Manifests, SmallCluster, StartAgent, ask_tcp, endpoint_slice, service
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.listed import API, CAPACITIES, pin_two_services
from tests.unit.view.maps_made import made, shop, writes

pytestmark = pytest.mark.kernel

LISTS = ("services", "backends", "affinity", "maps")
OTHERS = ("status", "connections", "events", "top --once", "explain 10.96.0.1:80", "migrate compare")
"""More verbs that read the pins."""
DUMPS = (
    "frontends", "sets", "slots", "backends", "names", "service_addresses", "node_addresses", "affinity",
    "origin_overflow", "source_ranges", "client_addresses", "opted_out", "chosen", "refused", "outcomes",
    "config", "meta",
)  # fmt: skip
RETURN_1 = bytes.fromhex("b7000000010000009500000000000000")


@pytest.fixture
def maps(bpffs: Path) -> Iterator[MapSet]:
    """Pinned maps of two Services, as an agent leaves them."""
    made_set = pin_two_services(bpffs)
    yield made_set
    made_set.close()


@pytest.fixture
def agent(maps: MapSet, bpffs: Path) -> Iterator[None]:
    """The lock that a living agent holds."""
    lock = BpffsLock(bpffs)
    yield
    lock.close()


InProcess = Callable[..., tuple[int, str, str]]


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str]) -> Iterator[InProcess]:
    """Runs a command line here, for tests that need many: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    yield run
    gc.enable()  # a listing switches it off for its short life


def verb(bpffs: Path, *arguments: str) -> tuple[int, str, str]:
    return run_verb(*arguments, f"--bpffs={bpffs}")


def items(bpffs: Path, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = verb(bpffs, *arguments, "-o", "json")
    assert code == 0, err
    found = json.loads(out)
    assert found["apiVersion"] == "kubesock.io/v1"
    return list(found["items"])


def test_services_are_listed_with_what_the_kernel_counted(bpffs: Path, agent: None) -> None:
    code, out, err = verb(bpffs, "services")
    assert (code, err) == (0, "")
    header, api, web = (line.split() for line in out.splitlines())
    assert header[:5] == ["NAMESPACE", "NAME", "TYPE", "PROTOCOL", "FRONTENDS"]
    assert api == ["shop", "api", "ClusterIP", "TCP", "10.96.0.2:443", "1", "0", "Cluster", "-", "0", "0"]
    assert web == [
        "shop",
        "web:http",
        "ClusterIP",
        "TCP",
        "10.96.0.1:80",
        "2",
        "1",
        "Cluster",
        "60s",
        "4",
        "2",
    ]
    rows = items(bpffs, "services")
    assert [row["old"] for row in rows] == [False, False]
    assert (rows[1]["chosen"], rows[1]["refused"], rows[1]["terminating"]) == (4, 2, 1)


def test_every_form_of_output_has_the_same_rows(bpffs: Path, agent: None) -> None:
    import yaml

    rows = items(bpffs, "services")
    assert yaml.safe_load(verb(bpffs, "services", "-o", "yaml")[1])["items"] == rows
    assert verb(bpffs, "services", "-o", "name")[1] == "shop/api/TCP\nshop/web:http/TCP\n"
    wide = verb(bpffs, "services", "-o", "wide", "--no-headers")[1].splitlines()
    assert len(wide) == 2
    assert "IPv4" in wide[0]


def test_rows_can_be_chosen_and_sorted(bpffs: Path, agent: None) -> None:
    assert items(bpffs, "services", "-n", "elsewhere") == []
    assert len(items(bpffs, "services", "-n", "elsewhere", "-A")) == 2
    assert [row["name"] for row in items(bpffs, "services", "-l", "name=web,protocol=tcp")] == ["web"]
    assert [row["name"] for row in items(bpffs, "services", "--sort-by=-chosen")] == ["web", "api"]
    assert [row["backend"] for row in items(bpffs, "backends", "shop/api")] == ["10.1.0.9:443"]
    code, out, err = verb(bpffs, "backends", "shop/none")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "kubesock services" in err
    assert verb(bpffs, "services", "--sort-by", "size")[0] == 2


def test_backends_know_their_node(bpffs: Path, agent: None) -> None:
    row = items(bpffs, "backends", "web")[1]
    assert (row["node"], row["zone"], row["share"], row["state"]) == ("worker-1", "zone-a", 25.0, "ready")


def test_affinity_counts_down_from_the_last_connection(bpffs: Path, maps: MapSet, agent: None) -> None:
    value = AFFINITY.pack(pair_word(2, 1002), int(time.monotonic()), 1, 0)
    maps.apply([Put("affinity", AFFINITY_KEY.pack(1, 101, 4711, 0), value)])
    (row,) = items(bpffs, "affinity")
    assert (row["client"], row["backend"], row["state"]) == (4711, "10.1.0.2:8080", "active")
    assert 0 < row["remainingSeconds"] <= 60


def test_data_without_an_agent_is_shown_and_marked_as_old(bpffs: Path, maps: MapSet) -> None:
    code, out, err = verb(bpffs, "services", "--no-headers")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["old", "old"]
    assert err.count("\n") == 1
    assert "no agent is running" in err
    assert all(row["old"] for row in items(bpffs, "backends"))


def test_maps_tell_fill_and_memory(bpffs: Path, agent: None) -> None:
    rows = {row["name"]: row for row in items(bpffs, "maps")}
    assert list(rows) == [spec.name for spec in map_specs(CAPACITIES)]
    assert (rows["frontends"]["entries"], rows["frontends"]["capacity"]) == (2, 64)
    assert rows["frontends"]["fillPercent"] == 3.1
    assert rows["backends"]["entries"] == 4
    assert rows["origin"]["entries"] is None
    assert all(rows[name]["memoryBytes"] >= 64 * 8 for name in ("frontends", "sets", "backends", "names"))


@pytest.mark.parametrize("form", [(), ("--raw",)])
def test_the_contents_of_every_map_are_listed(
    bpffs: Path, agent: None, in_process: InProcess, form: tuple[str, ...]
) -> None:
    for name in DUMPS:
        code, out, err = in_process("maps", name, "-o", "json", *form, f"--bpffs={bpffs}")
        # Counts per CPU, and single elements that are shown as fields, have no bytes worth a dump.
        assert code == (2 if form and name in ("outcomes", "meta") else 0), err
        assert code or json.loads(out)["kind"] == "MapEntryList"


def test_socket_storage_cannot_be_listed_and_says_why(bpffs: Path, agent: None) -> None:
    code, out, err = verb(bpffs, "maps", "origin")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_another_layout_ends_with_3(bpffs: Path, maps: MapSet) -> None:
    (bpffs / "current").unlink()
    (bpffs / "current").symlink_to("v99-1")
    for name in (*LISTS, *OTHERS):
        code, out, err = verb(bpffs, *name.split())
        assert (code, out, err.count("\n")) == (3, "", 1), name
        assert "layout 99" in err


def test_a_map_of_another_size_ends_with_3(bpffs: Path, maps: MapSet) -> None:
    pin = bpffs / "v1-1" / "backends"
    pin.unlink()
    fd = bpf.map_create("backends", 2, 4, 16, 8, 1 << 10)
    bpf.obj_pin(fd, str(pin))
    os.close(fd)
    code, _, err = verb(bpffs, "services")
    assert (code, err.count("\n")) == (3, 1)
    assert "backends" in err


def test_a_missing_pin_ends_with_3(bpffs: Path, maps: MapSet) -> None:
    (bpffs / "v1-1" / "names").unlink()
    code, _, err = verb(bpffs, "services")
    assert (code, err.count("\n")) == (3, 1)
    assert "names" in err


@pytest.mark.parametrize("name", [*LISTS, *OTHERS])
def test_without_rights_a_reader_ends_with_3(bpffs: Path, maps: MapSet, name: str) -> None:
    done = subprocess.run(
        kubesock(*name.split(), f"--bpffs={bpffs}"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
    )
    if "ModuleNotFoundError" in done.stderr:
        pytest.skip("nobody cannot read this tree")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done.stderr
    assert "root" in done.stderr


@pytest.mark.parametrize("seed", range(3))
def test_garbage_in_the_maps_is_never_a_traceback(
    bpffs: Path, maps: MapSet, agent: None, seed: int, in_process: InProcess
) -> None:
    dice = random.Random(seed)
    for name in ("sets", "slots", "backends", "chosen", "refused", "config", "meta"):
        memory = maps.memory(name)
        for _ in range(20):
            at = dice.randrange(len(memory) // 8) * 8 if seed else dice.randrange(64) * 8
            maps.apply([Store(name, at % (len(memory) - 8), dice.randbytes(8))])
    for name in ("names", "frontends", "affinity", "origin_overflow", "node_addresses", "client_addresses"):
        spec = maps.specs[name]
        maps.apply(
            Put(name, dice.randbytes(spec.key_size), dice.randbytes(spec.value_size)) for _ in range(10)
        )
    for arguments in [*((name,) for name in LISTS), ("status",), *(("maps", name) for name in DUMPS)]:
        code, out, err = in_process(*arguments, f"--bpffs={bpffs}")
        assert code == (4 if arguments == ("status",) else 0), (arguments, err)
        assert "Traceback" not in err
        assert out.replace("\n", "").isprintable(), arguments


def test_watching_shows_what_changes(bpffs: Path, maps: MapSet, agent: None) -> None:
    command = kubesock("services", "-w", "-o", "json", "--interval=0.1", f"--bpffs={bpffs}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        try:
            assert watching.stdout
            first = [json.loads(watching.stdout.readline()) for _ in range(2)]
            maps.apply([Store("refused", 8, (9).to_bytes(8, sys.byteorder))])
            changed = json.loads(watching.stdout.readline())
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 130
        finally:
            watching.kill()
    assert [event["type"] for event in first] == ["ADDED", "ADDED"]
    row = changed["object"]
    assert (changed["type"], row["name"], row["refused"]) == ("MODIFIED", "web", 9)


def test_the_shell_completes_names_of_services(bpffs: Path, maps: MapSet) -> None:
    line = f"kubesock backends --bpffs {bpffs} shop/w"
    environment = {**os.environ, "_KUBESOCK_COMPLETE": "bash_complete", "COMP_LINE": line}
    done = subprocess.run(kubesock(), capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout.strip() == "plain,shop/web:http/TCP"


@pytest.mark.parametrize("name", ["services", "backends", "maps"])
def test_a_list_imports_only_what_it_shows(bpffs: Path, maps: MapSet, agent: None, name: str) -> None:
    listing = "import sys; from pyagent.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    # Without `site`, whose .pth files bring what they like.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", listing, name, f"--bpffs={bpffs}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert "shop/web" in done.stdout or "web:http" in done.stdout or "frontends" in done.stdout
    modules = done.stdout.splitlines()[-1].split()
    heavy = {
        "bcc", "kubernetes", "textual", "rich", "pyroute2", "prometheus_client", "yaml", "asyncio", "ssl",
        "http", "email", "logging", "subprocess", "importlib.metadata", "urllib.request",
    }  # fmt: skip
    assert not heavy & set(modules)
    ours = {module for module in modules if module.startswith("pyagent.")}
    assert not {module for module in ours if module.startswith(("pyagent.agent", "pyagent.cluster"))}
    assert "pyagent.view.terminal.app" not in ours


def attach(bpffs: Path, cgroup: Path, hooks: frozenset[Hook] = frozenset(Hook)) -> Links:
    """Harmless programs at the hooks of a cgroup of this test, pinned as an agent pins its own."""
    links = Links(bpffs / "links", cgroup)
    programs = {
        hook: bpf.program_load(
            bpf.ProgramKind(PROGRAM_SOCK_ADDR, ATTACH_TYPE[hook]), RETURN_1, program_name(hook)
        )
        for hook in hooks
    }
    links.point_to(programs)
    for fd in programs.values():
        os.close(fd)
    return links


def status(bpffs: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = verb(bpffs, "status", "-o", "json", *arguments)
    assert err == ""
    return code, json.loads(out)


def test_status_is_fine_with_an_agent_and_all_hooks(bpffs: Path, agent: None, cgroup: Path) -> None:
    links = attach(bpffs, cgroup)
    links.close()
    code, found = status(bpffs, f"--cgroup={cgroup}")
    assert (code, found["status"], found["problems"]) == (0, "ok", [])
    assert {hook["cgroup"] for hook in found["hooks"]} == {str(cgroup)}
    assert all(hook["attached"] and hook["effective"] for hook in found["hooks"])
    assert (found["agent"]["running"], found["agent"]["pid"]) == (True, os.getpid())
    assert found["layout"] == 1
    code, out, _ = verb(bpffs, "status")
    assert code == 0
    assert "connect4" in out


def test_status_names_a_missing_hook_and_a_dead_agent(bpffs: Path, maps: MapSet, cgroup: Path) -> None:
    attach(bpffs, cgroup, frozenset(Hook) - {Hook.CONNECT6}).close()
    code, found = status(bpffs)
    assert (code, found["status"]) == (4, "degraded")
    assert any("hook connect6 is not attached" in problem for problem in found["problems"])
    assert any("no agent is running" in problem for problem in found["problems"])


def test_hooks_of_unconnected_udp_may_all_be_off(bpffs: Path, agent: None, cgroup: Path) -> None:
    attach(bpffs, cgroup, frozenset(Hook) - UNCONNECTED_UDP).close()
    assert status(bpffs)[0] == 0


def test_status_sees_hooks_at_another_cgroup(bpffs: Path, agent: None, cgroup: Path) -> None:
    below = cgroup / "below"
    below.mkdir()
    links = attach(bpffs, below)
    try:
        code, found = status(bpffs, f"--cgroup={cgroup}")
        assert code == 4
        assert any(str(cgroup) in problem for problem in found["problems"])
    finally:
        links.close()
        shutil.rmtree(bpffs / "links")
        below.rmdir()


def test_status_sees_a_map_that_is_nearly_full(bpffs: Path, cgroup: Path) -> None:
    bpffs.mkdir()
    tight = CAPACITIES._replace(frontends=2)
    maps = MapSet.create(bpffs / "v1-1", tight)
    (bpffs / "current").symlink_to("v1-1")
    maps.apply(writes(made([shop(), API]), tight))
    maps.close()
    code, found = status(bpffs)
    assert code == 4
    assert any("map frontends is 100.0% full" in problem for problem in found["problems"])


def test_check_recognises_another_translator_on_the_cgroup(bpffs: Path, cgroup: Path) -> None:
    program = bpf.program_load(
        bpf.ProgramKind(PROGRAM_SOCK_ADDR, ATTACH_TYPE[Hook.CONNECT4]), RETURN_1, "cil_sock4_connect"
    )
    folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    link = bpf.link_create(program, folder, ATTACH_TYPE[Hook.CONNECT4])
    try:
        code, out, _ = run_verb("check", "-o", "json", f"--bpffs={bpffs}", f"--cgroup={cgroup}")
        (row,) = [row for row in json.loads(out)["items"] if row["check"] == "other programs"]
        assert (code, row["state"], row["needed"]) == (1, "missing", True)
        assert "Cilium" in row["detail"]
    finally:
        for fd in (link, folder, program):
            os.close(fd)


def test_check_tells_its_own_programs_from_others(bpffs: Path, agent: None, cgroup: Path) -> None:
    attach(bpffs, cgroup).close()
    _, out, _ = run_verb("check", "-o", "json", f"--bpffs={bpffs}", f"--cgroup={cgroup}")
    rows = {row["check"]: row for row in json.loads(out)["items"]}
    assert rows["other programs"]["state"] == "found"
    assert str(os.getpid()) in rows["pins"]["detail"]


def test_the_verbs_follow_a_real_agent(
    start_agent: StartAgent, manifests: Manifests, cluster: SmallCluster, in_client: InClient, cgroup: Path
) -> None:
    address, ports = cluster.server("a").ipv4, [("http", 8080, "TCP")]
    manifests.write(
        "web",
        [service("web", ["10.96.0.1"], [("http", 80, "TCP")]), endpoint_slice("web", [address], ports)],
    )
    agent = start_agent(manifests.folder)
    for _ in range(3):
        in_client(lambda: ask_tcp("10.96.0.1", 80))
    (row,) = agent.rows("services")
    assert (row["name"], row["frontends"], row["ready"]) == ("web", ["10.96.0.1:80"], 1)
    assert (row["chosen"], row["old"]) == (3, False)
    assert [row["share"] for row in agent.rows("backends", "default/web")] == [100.0]
    code, out, err = agent.verb("status", "-o", "json", f"--cgroup={cgroup}")
    assert (code, err) == (0, ""), out
    found = json.loads(out)
    assert (found["status"], found["agent"]["pid"]) == ("ok", agent.process.pid)
    assert 0 <= found["agent"]["startedSecondsAgo"] < 120
    agent.stop()
    code, out, err = agent.verb("services", "-o", "json")
    assert code == 0
    assert "no agent is running" in err
    assert [row["old"] for row in json.loads(out)["items"]] == [True]
    assert agent.verb("status")[0] == 4
