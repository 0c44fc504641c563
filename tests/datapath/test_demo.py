"""`kubesock demo` as users start it: from nothing to nothing, whatever ends it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyagent.demo import namespaces
from pyagent.demo.agent_process import kubesock, run_verb
from pyagent.demo.requirements import cgroup2_root
from pyagent.demo.sandbox import RUN

pytestmark = pytest.mark.kernel

DEMO_SECONDS = 90.0


class Demo:
    """A running `kubesock demo` without a terminal. `read_until` remembers every line in `said`."""

    def __init__(self, *arguments: str) -> None:
        self.said = ""
        self.process = subprocess.Popen(
            kubesock("demo", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_until(self, text: str) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if text in line:
                return
        pytest.fail(f"the demo ended before it said {text!r}:\n{self.said}")

    def end(self) -> int:
        assert self.process.stdout
        self.said += self.process.stdout.read()
        return self.process.wait(DEMO_SECONDS)

    @property
    def id(self) -> str:
        """The sandbox's id, from the first line: `... kubesock-ID-*`."""
        return self.said.partition("kubesock-")[2].partition("-*")[0]

    def traces(self) -> list[Path]:
        root = cgroup2_root()
        assert root
        mounts = [Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines()]
        return [
            *RUN.glob(f"kubesock-demo-{self.id}*"),
            *namespaces.named(f"kubesock-{self.id}-"),
            *root.glob(f"kubesock-demo-{self.id}"),
            *(mount for mount in mounts if self.id in str(mount)),
        ]


@pytest.fixture
def started() -> Iterator[list[Demo]]:
    """Demos that a test has started: ended, and cleaned up after, if it failed half-way."""
    demos: list[Demo] = []
    yield demos
    for demo in demos:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait(DEMO_SECONDS)
        if demo.process.stdout:
            demo.process.stdout.close()
    run_verb("demo", "--clean")


def test_without_a_terminal_it_prints_lines_finds_all_right_and_leaves_nothing(started: list[Demo]) -> None:
    demo = Demo("--duration=6")
    started.append(demo)
    code = demo.end()
    assert code == 0, demo.said
    assert "\x1b" not in demo.said, "escape codes in a pipe"
    assert ", 0 wrong" in demo.said
    assert "WRONG" not in demo.said
    for expected in (
        "shop/web:http",
        "kube-system/kube-dns:dns ",
        "media/images:http",
        "[fd44:10:96::4914]:80",
        "ECONNREFUSED",
        "50 of 50 dials refused",
        "dials were right without it",
        "is removed",
    ):
        assert expected in demo.said, demo.said
    assert demo.traces() == []


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_early_and_leaves_nothing(started: list[Demo], ending: signal.Signals) -> None:
    demo = Demo()
    started.append(demo)
    demo.read_until("== Traffic")
    assert demo.traces()
    demo.process.send_signal(ending)
    assert demo.end() == 128 + ending, demo.said
    assert demo.traces() == []


def test_a_killed_demo_is_removed_by_clean(started: list[Demo]) -> None:
    demo = Demo()
    started.append(demo)
    demo.read_until("== Traffic")
    demo.process.kill()
    demo.end()
    assert demo.traces()
    code, out, _ = run_verb("demo", "--clean")
    assert (code, demo.traces()) == (0, [])
    assert f"removed kubesock-demo-{demo.id}" in out


def test_clean_leaves_a_running_demo_alone(started: list[Demo]) -> None:
    demo = Demo("--duration=2")
    started.append(demo)
    demo.read_until("== Traffic")
    code, out, _ = run_verb("demo", "--clean")
    assert code == 0
    assert f"left kubesock-demo-{demo.id} alone" in out
    assert demo.end() == 0, demo.said
