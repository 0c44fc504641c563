"""Maps that get full are exchanged for larger ones while clients go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyagent.agent.growth import Growth, LargerReady
from pyagent.datapath.layout import Capacities, Hook, map_specs
from pyagent.datapath.writes import Put, Store
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.map_copy import copy_contents, copy_late
from pyagent.kernel.map_set import MapSet
from pyagent.model.failures import KernelRefused
from tests.datapath.ground.hooks import SMALL as GROUND
from tests.datapath.ground.hooks import Hooks

pytestmark = pytest.mark.kernel

SMALL = Capacities(frontends=64, sets=64, slots=512, backends=64, service_ports=64, event_bytes=4096)
LARGE = SMALL._replace(frontends=128, sets=128, slots=1024, backends=128)


class Killed(BaseException):
    """Nothing after it is done, as after SIGKILL."""


@pytest.fixture
def attached(hooks: Hooks, cgroup: Path, bpffs: Path) -> Datapath:
    """Hooks on maps of an agent that a test ends."""
    made = Datapath(bpffs, cgroup, GROUND, cache=hooks.cache)
    made.open()
    made.load_programs()
    made.attach()
    return made


def test_a_larger_set_holds_the_same_at_the_same_places(bpffs: Path) -> None:
    bpffs.mkdir(exist_ok=True)
    old = MapSet.create(bpffs / "v1-1", SMALL)
    word = (7 << 32).to_bytes(8, "little")
    old.apply(
        [
            Put("frontends", bytes(20), word),
            Store("sets", 8, word),
            Store("slots", 8 * 511, word),
            Store("backends", 32 * 63, bytes(range(32))),
            Store("chosen", 8 * 63, word),  # first shard, last backend
            Store("chosen", 8 * 64, word),  # second shard, first backend
        ]
    )
    new = MapSet.create(bpffs / "v1-2", LARGE, like=old)
    copy_contents(old, new)
    assert new.items("frontends") == [(bytes(20), word)]
    assert new.memory("sets")[8:16] == word
    assert new.memory("slots")[8 * 511 : 8 * 512] == word
    assert new.memory("backends")[32 * 63 : 32 * 64] == bytes(range(32))
    assert new.memory("chosen")[8 * 63 : 8 * 64] == word
    assert new.memory("chosen")[8 * 128 : 8 * 129] == word
    old.close()
    new.close()


def test_flows_that_came_while_maps_were_copied_are_copied_late_and_none_grows_old(bpffs: Path) -> None:
    bpffs.mkdir(exist_ok=True)
    old = MapSet.create(bpffs / "v1-1", SMALL)
    new = MapSet.create(bpffs / "v1-2", SMALL._replace(flows=2 * SMALL.flows), like=old)
    size = old.specs["flows"]
    early, late = (bytes([n]) * size.key_size for n in (1, 2))
    before, after = (bytes([n]) * size.value_size for n in (3, 4))
    old.apply([Put("flows", early, before)])
    copy_contents(old, new)
    new.apply([Put("flows", early, after)])
    old.apply([Put("flows", late, before)])
    copy_late("flows", old, new)
    assert dict(new.items("flows")) == {early: after, late: before}
    old.close()
    new.close()


def test_maps_that_keep_their_size_are_shared(bpffs: Path) -> None:
    bpffs.mkdir(exist_ok=True)
    old = MapSet.create(bpffs / "v1-1", SMALL)
    new = MapSet.create(bpffs / "v1-2", LARGE, like=old)
    grown = {a.name for a, b in zip(map_specs(SMALL), map_specs(LARGE), strict=True) if a != b}
    old.apply([Store("refused", 0, (5).to_bytes(8, "little"))])
    assert "refused" not in grown
    assert new.memory("refused")[:8] == (5).to_bytes(8, "little")
    old.close()
    new.close()


def test_an_agent_killed_while_hooks_are_exchanged_is_followed_by_one_that_attaches_again(
    attached: Datapath, hooks: Hooks, cgroup: Path, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else some hooks would go on with maps that nobody writes any more."""
    assert attached.keeps_programs
    larger = attached.larger(GROUND._replace(frontends=2 * GROUND.frontends))
    point = attached.links._point

    def point_until_killed(hook: Hook, program: int) -> None:
        if hook is Hook.SENDMSG6:
            raise Killed
        point(hook, program)

    monkeypatch.setattr(attached.links, "_point", point_until_killed)
    with pytest.raises(Killed):
        attached.grow(larger)
    left = {state.hook: state.program_id for state in attached.link_states()}
    attached.close()
    following = Datapath(bpffs, cgroup, GROUND, cache=hooks.cache)
    try:
        assert following.open().reused
        kept = following.keeps_programs
        assert not kept
        following.load_programs()
        following.attach()
        now = {state.hook: state.program_id for state in following.link_states()}
        assert now.keys() == left.keys()
        assert all(now[hook] != left[hook] for hook in now)
        assert following.keeps_programs
        assert len(list(bpffs.glob("v*-*"))) == 1
    finally:
        following.close()


def test_an_agent_killed_while_it_attaches_is_followed_by_one_that_attaches_again(
    attached: Datapath, hooks: Hooks, cgroup: Path, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an upgrade and back: the first build must not take hooks for its own of which half are another's."""
    assert attached.keeps_programs

    def be_killed(_programs: dict[Hook, int]) -> None:
        raise Killed

    monkeypatch.setattr(attached.links, "point_to", be_killed)
    with pytest.raises(Killed):
        attached.attach()
    attached.close()
    following = Datapath(bpffs, cgroup, GROUND, cache=hooks.cache)
    try:
        assert following.open().reused
        assert not following.keeps_programs
    finally:
        following.close()


def test_programs_at_devices_that_were_loaded_while_larger_maps_were_made_use_those_too(
    attached: Datapath,
) -> None:
    """Else packets from outside would go by maps that nobody writes any more."""
    try:
        larger = attached.larger(GROUND._replace(frontends=2 * GROUND.frontends))
        assert not larger.packets
        attached.outside.load()
        before = {bpf.program_info(fd).id for fd in attached.outside._programs.values()}
        attached.grow(larger)
        after = {bpf.program_info(fd).id for fd in attached.outside._programs.values()}
        assert after
        assert not after & before
    finally:
        attached.close()


def test_larger_maps_that_nobody_came_to_use_are_gone_with_the_next_start(
    attached: Datapath, hooks: Hooks, cgroup: Path, bpffs: Path
) -> None:
    used = attached.maps.folder
    attached.larger(GROUND._replace(frontends=2 * GROUND.frontends))
    assert len(list(bpffs.glob("v*-*"))) == 2
    attached.close()
    following = Datapath(bpffs, cgroup, GROUND, cache=hooks.cache)
    assert following.open().reused
    assert list(bpffs.glob("v*-*")) == [used]
    following.close()


def test_where_hooks_cannot_be_exchanged_the_agent_goes_on_with_the_maps_it_has(
    attached: Datapath, bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        before = {state.hook: state.program_id for state in attached.link_states()}
        folder, wanted = attached.maps.folder, GROUND._replace(frontends=2 * GROUND.frontends)
        growth = Growth(attached, lambda _event: None, lambda: 0.0)
        larger = attached.larger(wanted)
        point = attached.links._point

        def point_or_be_refused(hook: Hook, program: int) -> None:
            if hook is Hook.SENDMSG6 and program in larger.programs.values():
                raise KernelRefused("the cgroup is gone")
            point(hook, program)

        with monkeypatch.context() as patched:
            patched.setattr(attached.links, "_point", point_or_be_refused)
            assert not growth.switch(LargerReady(larger))
        assert {state.hook: state.program_id for state in attached.link_states()} == before
        assert list(bpffs.glob("v*-*")) == [folder]
        assert attached.keeps_programs, "the next start need not load any"
        assert attached.repair() == ([], [])
        assert growth.switch(LargerReady(attached.larger(wanted)))
        assert attached.capacities == wanted
    finally:
        attached.close()
