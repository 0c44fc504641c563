"""Where packets are served: by links or filters, and at which devices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from pyagent.datapath.writes import Remove
from pyagent.desired.outside import covered_devices, read_outside
from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.devices import devices
from pyagent.kernel.outside import Outside
from pyagent.kernel.tc_links import attached_places, has_tcx
from pyagent.model.address import parse_address
from pyagent.model.device import ETHERNET, LOOPBACK, Device
from pyagent.model.failures import InvalidField
from tests.datapath.ground.asking import ask_tcp
from tests.outside.served import NODE_PORT, Served, exposed

NODE = parse_address("192.0.2.11")


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
def test_a_foreign_program_in_our_link_and_altered_devices_are_noticed(served: Served) -> None:
    lan = served.lan

    def look() -> list[bool]:
        made = Outside(served.folder, served.maps)
        made.use(served.programs)
        own = frozenset(map(parse_address, (lan.node_a.ipv4, lan.node_a.ipv6)))
        wanted = covered_devices(read_outside(["auto"]), devices(), own)
        made.cover(wanted)
        seen = [made.is_whole()]
        link = bpf.obj_get(str(next((served.folder / "outside").glob("arrive-*"))))
        bpf.link_update(link, served.programs["leave_ether"])
        seen.append(made.is_whole())
        made.cover(wanted)
        seen.append(made.is_whole())
        served.maps.apply([Remove("outside_devices", key) for key, _ in served.maps.items("outside_devices")])
        seen.append(made.is_whole())
        made.cover(wanted)
        return [*seen, made.is_whole()]

    assert lan.node_a.do(look) == [True, False, True, False, True]


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


def test_a_device_without_an_address_lends_the_nodes() -> None:
    found = {one.name: one for one in covered_devices(read_outside(["auto"]), DEVICES, frozenset({NODE}))}
    assert found["eth0"].ipv4 == found["eth10"].ipv4 == NODE
    assert found["vxlan.1"].ipv4 == parse_address("10.244.1.0")
    assert found["eth0"].ipv6 == bytes(16)


@pytest.mark.parametrize("text", ["", "off,eth0", "pods:", "a b", "0123456789abcdef", "a/b"])
def test_what_names_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidField):
        read_outside(text.split(","))
