"""A look every two thirds of a second, a round every four seconds; what the kernel refuses ends neither."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import cast

import pytest

from pyagent.agent.audit import STEPS
from pyagent.agent.audit_rounds import ROUND_SECONDS, AuditRounds
from pyagent.agent.facts import Facts
from pyagent.agent.programmer import Programmer
from pyagent.model.failures import KernelRefused


class Writer:
    """Of a map that somebody else alters now and then."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refused = False

    def altered(self) -> list[str]:
        return self.names

    def undo_others(self) -> list[str]:
        if self.refused:
            raise KernelRefused("write map opted_out: no memory")
        undone, self.names = self.names, []
        return undone


class Driven:
    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0
        self.refused = False
        self.facts = Facts()
        self.writers = [Writer(), Writer()]
        programmer = cast("Programmer", SimpleNamespace(audit=self._audit))
        self.rounds = AuditRounds(programmer, lambda: self.writers, self.facts, lambda: self.now)

    def _audit(self) -> None:
        self.looks += 1
        if self.refused:
            raise KernelRefused("read map frontends: no memory")

    def wait(self, seconds: float) -> int:
        """How many rounds ended."""
        ended, ends = 0, self.now + seconds
        while self.rounds.due <= ends:
            self.now = max(self.now, self.rounds.due)
            ended += self.rounds.run()
            assert not self.rounds.run(), "not yet time for another look"
        self.now = ends
        return ended


def test_a_round_lasts_four_seconds_and_has_a_look_for_each_step() -> None:
    driven = Driven()
    assert driven.wait(ROUND_SECONDS) == 0, "the first plan is left alone"
    assert driven.wait(10 * ROUND_SECONDS) == 10
    assert driven.looks == pytest.approx(10 * len(STEPS), abs=1)


def test_an_audit_that_the_kernel_refuses_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven()
    driven.refused = True
    with caplog.at_level(logging.ERROR):
        assert driven.wait(3 * ROUND_SECONDS) == 2
    assert "maps not audited, tried again in 4 s: read map frontends: no memory" in caplog.text
    driven.writers[0].names = ["client_addresses"]
    driven.wait(ROUND_SECONDS)
    assert driven.writers[0].names == [], "what can be looked after is"


def test_what_no_plan_writes_is_made_good_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven()
    driven.writers[1].names = ["meta", "layout"]
    assert driven.rounds.altered_besides_plans() == ["map layout", "map meta"]
    with caplog.at_level(logging.WARNING):
        driven.wait(4 * ROUND_SECONDS)
    assert caplog.text.count("map meta, layout: entries were changed") == 1
    assert driven.facts.view().repairs == 1
    assert driven.rounds.altered_besides_plans() == []


def test_a_writer_that_the_kernel_refuses_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    driven = Driven()
    driven.writers[0].refused = True
    driven.writers[1].names = ["meta"]
    with caplog.at_level(logging.ERROR):
        driven.wait(2 * ROUND_SECONDS)
    assert driven.writers[1].names == []
    assert "maps not looked after" in caplog.text
