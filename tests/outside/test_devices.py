"""Where packets are served: by links or filters, and at which devices."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from functools import partial

import pytest

from pyagent.datapath.flow_layout import OUTSIDE_DEVICE
from pyagent.datapath.writes import Put, Remove
from pyagent.desired.outside import covered_devices, read_outside
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.devices import devices
from pyagent.kernel.outside import Outside
from pyagent.kernel.tc_links import Place, Point, attached_places, has_tcx, pinned_places
from pyagent.model.address import parse_address
from pyagent.model.device import ETHERNET, LOOPBACK, Device
from pyagent.model.failures import InvalidField
from tests.datapath.ground.asking import ask_tcp
from tests.outside.served import NODE_PORT, Served, exposed

NODE = parse_address("192.0.2.11")
LINK_DETACH = 34


class Disturbed:
    """What the agent has at node-a's uplink, for somebody with root's rights to disturb."""

    def __init__(self, served: Served, tcx: bool | None = None) -> None:
        self.made = Outside(served.folder, served.maps, tcx=tcx)
        self._programs = served.programs
        self.made.use(self.programs())
        own = frozenset(map(parse_address, (served.lan.node_a.ipv4, served.lan.node_a.ipv6)))
        self.wanted = covered_devices(read_outside(["auto"]), devices(), own)
        self.folder = served.folder / "outside"
        self.made.cover(self.wanted)
        self.arrive = next(self.folder.glob("*arrive-*"))
        self.leave = next(self.folder.glob("*leave-*"))
        self.maps = served.maps

    def programs(self) -> dict[str, int]:
        return {name: os.dup(fd) for name, fd in self._programs.items()}

    def alter_link(self) -> None:
        link, foreign = bpf.obj_get(str(self.arrive)), self.programs()["leave_ether"]
        bpf.link_update(link, foreign)
        os.close(link)

    def detach(self) -> None:
        link = bpf.obj_get(str(self.arrive))
        bpf.bpf(LINK_DETACH, bytearray(struct.pack("=I", link)), "detach")
        os.close(link)

    def remove_filter(self) -> None:
        subprocess.run(["tc", "filter", "del", "dev", "eth0", "ingress"], check=True)

    def exchange_pin(self) -> None:
        self.arrive.unlink()
        bpf.obj_pin(self.maps.fd("names"), str(self.arrive))

    def put_folder(self) -> None:
        self.arrive.unlink()
        (self.arrive / "below").mkdir(parents=True)

    def link_pins(self) -> None:
        self.arrive.rename(self.folder / "elsewhere")
        self.arrive.symlink_to("elsewhere")

    def lead_folder_elsewhere(self) -> None:
        self.folder.rename(self.folder.with_name("elsewhere"))
        self.folder.symlink_to("elsewhere")

    def pin_more(self) -> None:
        bpf.obj_pin(self.maps.fd("names"), str(self.folder / "arrive-4711"))

    def forget_devices(self) -> None:
        self.maps.apply([Remove("outside_devices", key) for key, _ in self.maps.items("outside_devices")])

    def invent_device(self) -> None:
        self.maps.apply([Put("outside_devices", struct.pack("=I", 4711), bytes(OUTSIDE_DEVICE.size))])


def disturb_filters(served: Served) -> list[list[str]]:
    here = Disturbed(served, tcx=False)
    found = []
    for deed in (Disturbed.exchange_pin, Disturbed.put_folder, Disturbed.remove_filter):
        deed(here)
        found.append(here.made.keep(here.wanted).repaired)
        assert here.made.keep(here.wanted) == ([], [], [])
    here.made.close()
    return found


DEEDS: dict[Callable[[Disturbed], None], list[str]] = {
    Disturbed.alter_link: ["arrive_ether at eth0: it ran a program of somebody else"],
    Disturbed.detach: ["arrive_ether at eth0: it was detached"],
    Disturbed.exchange_pin: ["arrive_ether at eth0: its pin was gone"],
    Disturbed.put_folder: ["arrive_ether at eth0: its pin was gone"],
    Disturbed.link_pins: ["arrive_ether at eth0: its pin was gone"],
    lambda here: here.leave.unlink(): ["leave_ether at eth0: its pin was gone"],
    lambda here: shutil.rmtree(here.folder): ["outside: the folder was gone, all pins with it"],
    Disturbed.lead_folder_elsewhere: ["outside: the folder was gone, all pins with it"],
    Disturbed.pin_more: ["outside/arrive-4711: somebody else's pin"],
    Disturbed.forget_devices: ["map outside_devices: entries were changed from outside"],
    Disturbed.invent_device: ["map outside_devices: entries were changed from outside"],
}


@pytest.mark.kernel
def test_filters_serve_where_links_cannot_be_had(
    served: Served, record_property: Callable[[str, object], None]
) -> None:
    """Before Linux 6.6; since then both can be had."""
    served.serve(exposed((served.lan.a1, "node-a")))
    lan, folder = served.lan, served.folder / "outside"
    try:
        served.cover("off")
        with pytest.raises(ConnectionRefusedError):
            lan.client.do(partial(ask_tcp, lan.node_a.ipv4, NODE_PORT))
        assert served.cover("auto", tcx=False) == ["serving packets at eth0"]
        assert served.cover("auto", tcx=False) == [], "replaced in place"
        assert len(lan.node_a.do(lambda: attached_places(folder))) == 2
        assert lan.node_a.do(partial(disturb_filters, served)) == [
            ["arrive_ether at eth0: its pin was gone"],
            ["arrive_ether at eth0: its pin was gone"],
            ["arrive_ether at eth0: it was detached"],
        ]
        assert lan.client.do(partial(ask_tcp, lan.node_a.ipv4, NODE_PORT)).pod == "a1"
        record_property("feature filters at devices (clsact)", True)
        served.cover("off", tcx=False)
        assert not lan.node_a.do(lambda: attached_places(folder))
        with pytest.raises(ConnectionRefusedError):
            lan.client.do(partial(ask_tcp, lan.node_a.ipv4, NODE_PORT))
    finally:
        served.cover("off", tcx=False)
        served.cover("auto")


@pytest.mark.kernel
@pytest.mark.skipif(not has_tcx(), reason="links at devices need Linux 6.6")
def test_what_somebody_does_to_programs_pins_and_devices_is_put_right_and_told(served: Served) -> None:
    def disturb() -> list[list[str]]:
        here = Disturbed(served)
        found = []
        for deed in DEEDS:
            before = dict(here.maps.items("outside_devices"))
            deed(here)
            differing = here.made.faults()
            kept = here.made.keep(here.wanted)
            assert kept.refused == []
            assert differing == kept.repaired, "what `diff` tells until then"
            assert here.made.faults() == []
            found.append(kept.repaired)
            assert here.made.keep(here.wanted) == ([], [], [])
            assert attached_places(here.folder) == {Place(here.wanted[0].ifindex, point) for point in Point}
            assert pinned_places(here.folder) == attached_places(here.folder)
            assert dict(here.maps.items("outside_devices")) == before
        here.made.close()
        shutil.rmtree(here.folder.with_name("elsewhere"))
        return found

    assert served.lan.node_a.do(disturb) == list(DEEDS.values())


@pytest.mark.kernel
@pytest.mark.skipif(not has_tcx(), reason="links at devices need Linux 6.6")
def test_programs_behind_a_symbolic_link_do_not_run_beside_those_of_the_next_agent(served: Served) -> None:
    def begin_again() -> list[int]:
        here = Disturbed(served)
        here.made.close()
        here.lead_folder_elsewhere()
        here = Disturbed(served)
        here.made.close()
        shutil.rmtree(here.folder.with_name("elsewhere"))
        index = here.wanted[0].ifindex
        return [len(bpf.program_query(index, point.attach_type, effective=False)) for point in Point]

    assert served.lan.node_a.do(begin_again) == [1, 1]


@pytest.mark.kernel
@pytest.mark.skipif(not has_tcx(), reason="links at devices need Linux 6.6")
def test_devices_that_come_and_go_are_nobodys_deed_and_one_that_is_refused_stops_no_other(
    served: Served,
) -> None:
    def come_and_go() -> None:
        here = Disturbed(served)
        (uplink,) = here.wanted
        subprocess.run(["ip", "link", "add", "gone0", "type", "veth"], check=True)
        index = socket.if_nametoindex("gone0")
        gone = uplink._replace(ifindex=index, name="gone0")
        here.made.keep([uplink])
        try:
            here.arrive.unlink()
            assert here.made.keep([uplink, gone]) == (
                ["serving packets at gone0"],
                ["arrive_ether at eth0: its pin was gone"],
                [],
            )
        finally:
            subprocess.run(["ip", "link", "del", "gone0"], check=True)
        assert here.made.keep([uplink, gone]) == ([], [], []), "looked at before it went"
        assert here.made.keep([uplink]) == ([], [], [])
        refused = uplink._replace(ifindex=1, name="lo", ethernet=False)
        here.made.use({**here.programs(), "leave_plain": os.dup(here.maps.fd("names"))})
        here.made.keep([uplink])
        here.arrive.unlink()
        kept = here.made.keep([refused, uplink])
        assert [text.split(":")[0] for text in kept.refused] == ["lo"]
        assert kept.repaired == ["arrive_ether at eth0: its pin was gone"]
        here.made.use(here.programs())
        assert here.made.keep([refused, uplink]) == (["serving packets at lo"], [], [])
        assert here.made.keep([uplink]) == (["no longer serving packets at lo"], [], [])
        here.made.close()

    served.lan.node_a.do(come_and_go)


def device(name: str, kind: str = "", **fields: object) -> Device:
    made = Device(len(name), name, kind, ETHERNET, up=True, master=0)
    return made._replace(**fields)  # type: ignore[arg-type]


DEVICES = (
    device("lo", hardware=LOOPBACK, addresses=(parse_address("127.0.0.1"),)),
    device("eth0", default_route=True),
    device("eth10", addresses=(NODE,)),
    device("eth200", up=False, default_route=True),
    device("vxlan.1", "vxlan", addresses=(parse_address("10.244.1.0"),)),
    device("bond-port", master=3, default_route=True),
    device("cni0-bridge", "bridge", addresses=(parse_address("10.244.1.1"),)),
)


def names(text: str) -> list[str]:
    return [one.name for one in covered_devices(read_outside(text.split(",")), DEVICES, frozenset({NODE}))]


def test_uplinks_and_tunnels_are_found_by_themselves() -> None:
    assert names("auto") == ["eth0", "eth10", "vxlan.1"]
    assert names("eth1*") == ["eth10"]
    assert names("auto,pods:cni*") == ["cni0-bridge", "eth0", "eth10", "vxlan.1"]
    assert names("off") == []


def test_where_an_earlier_agent_serves_is_kept_while_nobody_knows_better() -> None:
    """Of the Node's addresses it is known then only which answer on nodePorts."""
    kept = {device.ifindex for device in DEVICES if device.name in ("cni0-bridge", "lo")}

    def found(items: str) -> set[str]:
        return {one.name for one in covered_devices(read_outside([items]), DEVICES, frozenset({NODE}), kept)}

    assert found("auto") == {*names("auto"), "cni0-bridge"}
    assert found("eth10") == {"eth10"}, "what the operator names is all there is"


def test_a_device_without_an_address_lends_the_nodes() -> None:
    found = {one.name: one for one in covered_devices(read_outside(["auto"]), DEVICES, frozenset({NODE}))}
    assert found["eth0"].ipv4 == found["eth10"].ipv4 == NODE
    assert found["vxlan.1"].ipv4 == parse_address("10.244.1.0")
    assert found["eth0"].ipv6 == bytes(16)


@pytest.mark.parametrize("text", ["", "off,eth0", "pods:", "a b", "0123456789abcdef", "a/b"])
def test_what_names_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        read_outside(text.split(","))
