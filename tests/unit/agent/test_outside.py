"""A kernel that refuses the programs for packets costs nothing else."""

from __future__ import annotations

import logging
from typing import cast

import pytest

from pyagent.agent.facts import Facts
from pyagent.agent.outside import OutsideKeeper
from pyagent.demo.children import wait_until
from pyagent.desired.nodes import Settings
from pyagent.desired.outside import read_outside
from pyagent.desired.snapshot import Snapshot
from pyagent.desired.state import DesiredState
from pyagent.kernel.outside import Outside
from pyagent.model.failures import KernelRefused


class Refused:
    """Its kernel knows no such programs."""

    def __init__(self) -> None:
        self.asked = 0

    def load(self) -> None:
        self.asked += 1
        raise KernelRefused("arrive_ether: this kernel refuses it")


def test_a_kernel_that_refuses_is_named_once_and_asked_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyagent.agent.outside.LOOK_SECONDS", 0.05)
    outside = Refused()
    keeper = OutsideKeeper(cast(Outside, outside), read_outside(["auto"]), hooked=lambda: True, facts=Facts())
    desired = DesiredState(Settings("node-a"))
    with caplog.at_level(logging.INFO):
        keeper.start()
        try:
            keeper.follow(desired.full(), desired, Snapshot("node-a"))
            assert wait_until(lambda: outside.asked >= 2, 30.0), "it goes on after the first refusal"
        finally:
            keeper.stop()
    told = [record.message for record in caplog.records if "arrive_ether" in record.message]
    assert len(told) == 1
    assert "sockets are" in told[0]
