"""From maps of another layout to ours: no step begins while programs of the step before may still run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pyagent.datapath.layout import Hook
from pyagent.kernel.crossing import Crossing
from pyagent.kernel.earlier import Earlier
from pyagent.kernel.grace import GracePeriod
from pyagent.kernel.links import Links
from pyagent.kernel.map_set import MapSet


def test_records_are_copied_when_nobody_can_write_the_earlier_maps_and_ours_run_alone_afterwards() -> None:
    happened: list[Any] = []
    on_the_way, ours = {Hook.CONNECT4: 7}, {Hook.CONNECT4: 8}
    earlier = SimpleNamespace(copy_late=lambda _maps: happened.append("copied"))
    crossing = Crossing(cast("Earlier", earlier))
    crossing._maps, crossing._programs = cast("MapSet", object()), on_the_way
    links = SimpleNamespace(point_to=lambda programs: happened.append(programs))
    grace = SimpleNamespace(wait=lambda: happened.append("waited"))
    crossing.run(cast("Links", links), ours, cast("GracePeriod", grace))
    assert happened == [on_the_way, "waited", "copied", ours, "waited"]
