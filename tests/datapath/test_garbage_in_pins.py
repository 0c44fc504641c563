"""Any bytes in the pinned maps: readers say what they see or why not, and the next agent puts all right."""

from __future__ import annotations

import os
import random
import signal

import pytest

from pyagent.datapath.layout import MapType
from pyagent.demo.agent_process import Agent
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.map_set import MapSet, current_folder
from tests.datapath.ground import Manifests, SmallCluster, StartAgent
from tests.datapath.ground.cluster import InClient
from tests.datapath.ground.waiting import wait_for
from tests.datapath.test_agent_life import WAYS, dial, objects

pytestmark = pytest.mark.kernel

SIZES = (
    "--map-sizes=frontends=64,sets=64,slots=512,backends=64,service_ports=64,service_addresses=64,"
    "node_addresses=64,affinity=64,overflow=64,source_ranges=64,clients=64,event_bytes=4096"
)
READERS = ("services", "backends", "affinity", "connections", "maps", "status")
ENTRIES = 12
FILLABLE = {MapType.ARRAY, MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE}


def fill(agent: Agent, chance: random.Random, spared: frozenset[str]) -> list[str]:
    """Bytes by chance in every map that user space may write; the names of those that took some."""
    maps = MapSet.open(current_folder(agent.bpffs), writable=True)
    filled = []
    for name, spec in maps.specs.items():
        if spec.type not in FILLABLE or name in spared:
            continue
        for number in range(ENTRIES):
            key = chance.randbytes(spec.key_size)
            if spec.type is MapType.ARRAY:
                key = (number if number < spec.max_entries else 0).to_bytes(4, "little")
            elif spec.type is MapType.LPM_TRIE:
                key = chance.randrange(8 * (spec.key_size - 4) + 1).to_bytes(4, "little") + key[4:]
            try:
                bpf.map_update(maps.fd(name), key, chance.randbytes(spec.value_size))
            except OSError:
                continue  # full, or frozen
            filled.append(name)
    maps.close()
    return sorted(set(filled))


def check_readers(agent: Agent) -> None:
    for verb in READERS:
        more = ("-A",) if verb in ("services", "backends", "affinity", "connections") else ()
        for form in ((), ("-o", "json")):
            code, out, err = agent.verb(verb, *more, *form)
            assert code in (0, 1, 3, 4), (verb, code, err)
            assert all(line.startswith("kubesock: ") for line in err.splitlines()), err
            assert "unexpected" not in err
            assert all(line.isprintable() for line in (out + err).splitlines()), (verb, out, err)


@pytest.mark.parametrize("spared", [frozenset({"layout"}), frozenset()], ids=["layout right", "all"])
def test_garbage_is_shown_in_peace_and_put_right_by_the_next_agent(
    cluster: SmallCluster,
    manifests: Manifests,
    start_agent: StartAgent,
    in_client: InClient,
    spared: frozenset[str],
) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    manifests.write("web", objects(cluster, "a"))
    agent = start_agent(manifests.folder, arguments=(SIZES,))
    agent.stop(signal.SIGKILL)
    filled = fill(agent, random.Random(seed), spared)
    assert {"frontends", "sets", "slots", "backends", "names", "meta", "source_ranges"} <= set(filled), filled
    check_readers(agent)
    manifests.write("web", objects(cluster, "b"))
    again = start_agent(manifests.folder, arguments=(SIZES,))
    assert in_client(lambda: dial(WAYS[0])) == "b"
    wait_for(
        lambda: again.verb("diff", f"--state-dir={again.state_dir}")[0], lambda code: code == 0, "right maps"
    )
    assert "Traceback" not in again.log.read_text()
