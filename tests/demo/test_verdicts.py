"""Which answers the demo takes for right, and that it shows and counts the others."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from pyagent.demo.objects import Objects, Target
from pyagent.demo.screen import LiveScreen, Screen
from pyagent.demo.tally import Tally, key_of
from pyagent.demo.traffic import Answer, Client, complaint

WEB = Target("shop", "web", "http", "TCP", "10.96.14.7", 80)
DNS = Target("kube-system", "kube-dns", "dns", "UDP", "10.96.0.10", 53)
RIGHT = Answer(WEB, "web-1", ("10.96.14.7", 80), "10.244.1.5")
REFUSED = Answer(WEB, error=errno.ECONNREFUSED, trouble="refused")
NOW = [{"web-1", "web-2"}]
CLIENT = ("10.244.1.5",)


def test_an_allowed_pod_seen_under_the_service_address_is_right() -> None:
    assert complaint(RIGHT, NOW, CLIENT) == ""


@pytest.mark.parametrize(
    ("answer", "states", "said"),
    [
        (RIGHT._replace(pod="cart-1"), NOW, "answered by 'cart-1', allowed: web-1, web-2"),
        (RIGHT, [set()], "answered by 'web-1', allowed: nobody"),
        (RIGHT._replace(peer=("10.244.1.14", 8080)), NOW, "getpeername"),
        (RIGHT._replace(peer=("10.96.14.7", 8080)), NOW, "getpeername"),
        (RIGHT._replace(seen_client="10.244.0.1"), NOW, "the server saw client 10.244.0.1"),
        (REFUSED, NOW, "ECONNREFUSED"),
        (REFUSED._replace(error=errno.ENETUNREACH), [set()], "ENETUNREACH"),
        (Answer(DNS, "coredns-1", ("10.244.1.16", 53)), [{"coredns-1"}], "the answer came from"),
    ],
)
def test_everything_else_is_told_with_its_service(answer: Answer, states: list[set[str]], said: str) -> None:
    told = complaint(answer, states, CLIENT)
    assert str(answer.target) in told
    assert said in told


def test_without_pods_only_a_refusal_is_right() -> None:
    assert complaint(REFUSED, [set()], CLIENT) == ""


def test_while_a_change_is_on_its_way_both_states_are_right() -> None:
    to_zero = [{"web-1"}, set[str]()]
    assert complaint(RIGHT, to_zero, CLIENT) == complaint(REFUSED, to_zero, CLIENT) == ""


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(Objects.packaged(tmp_path))


def client(*addresses: str) -> Client:
    return cast("Client", SimpleNamespace(addresses=addresses, name="shopper"))


def checkout(tally: Tally) -> Target:
    return next(target for target in tally.states if target.service == "checkout")


def answer_from(tally: Tally, target: Target, pod: str) -> Answer:
    return Answer(target, pod, (target.address, target.port))


def test_a_change_is_judged_by_both_states_and_then_by_the_new_one(tally: Tally) -> None:
    target = checkout(tally)
    gone, stays = tally.objects.backends(target)
    tally.objects.remove_pods(target, {gone})
    tally.begin_change([target])
    assert tally.add(answer_from(tally, target, gone), client()) == ""
    tally.end_change([target])
    assert "answered by" in tally.add(answer_from(tally, target, gone), client())
    assert tally.add(answer_from(tally, target, stays), client()) == ""
    assert tally.dials == 2


def test_the_same_fault_is_told_once_and_counted_every_time(tally: Tally) -> None:
    wrong = answer_from(tally, checkout(tally), "stranger")
    assert tally.add(wrong, client()) != ""
    assert tally.add(wrong, client()) == ""
    assert tally.complaints.total() == 2


def test_kernel_counts_that_differ_from_the_answers_are_told(tally: Tally) -> None:
    target = checkout(tally)
    pod, endpoint = next(iter(tally.objects.backends(target).items()))
    tally.add(answer_from(tally, target, pod), client())
    assert tally.miscounted({key_of(target, endpoint): 1}) == []
    (told,) = tally.miscounted({key_of(target, endpoint): 3})
    assert f"chose {pod} 3 times, clients got 1" in told


@pytest.mark.parametrize("kind", [Screen, LiveScreen])
def test_a_screen_shows_services_backends_counts_and_faults(tally: Tally, kind: type[Screen]) -> None:
    out = io.StringIO()
    target = checkout(tally)
    pod, endpoint = next(iter(tally.objects.backends(target).items()))
    tally.add(answer_from(tally, target, pod), client())
    console = Console(file=out, width=160, force_terminal=kind is LiveScreen, highlight=False)
    with kind(console) as screen:
        screen.step("A step")
        screen.fault("this and that")
        rows = tally.rows({key_of(target, endpoint): 4711})
        screen.refresh(rows)
        screen.summary(rows)
    shown = [text for target in tally.states for text in (str(target), target.dialled)]
    for text in ("A step", "WRONG this and that", pod[-5:], "4711", *shown):
        assert text in out.getvalue(), text
