"""A demo from nothing to nothing: builds it, runs the real agent in it, and removes all of it."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import NamedTuple, NoReturn

from rich.console import Console

from pyagent.demo import namespaces
from pyagent.demo.agent_process import Agent
from pyagent.demo.cluster import DemoCluster
from pyagent.demo.objects import NODE_NAME, Objects
from pyagent.demo.requirements import missing_requirements
from pyagent.demo.sandbox import Sandbox, remove_leftovers
from pyagent.demo.screen import LiveScreen, Screen
from pyagent.demo.story import Story
from pyagent.model.failures import KubesockError

KIND = "demo"
EXIT_FINE, EXIT_FAILED, EXIT_MISSING = 0, 1, 3


class Options(NamedTuple):
    """What the command line asked for. `duration` is seconds of traffic, spread over the steps."""

    duration: float = 10.0
    keep: bool = False
    color: str = "auto"  # auto, always, never
    lines: bool = False


class Interrupted(BaseException):
    """A signal asked the demo to end. No Exception, so that nothing between takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def run_demo(options: Options) -> int:
    """The whole demo. Returns the exit code: 0 all was right, 1 something was not, 3 cannot run here."""
    console = _console(options.color)
    if told_missing(console):
        return EXIT_MISSING
    live = console.is_terminal and not options.lines
    screen = LiveScreen(console) if live else Screen(console)
    try:
        with _on_signals(_unwind):
            remove_leftovers(KIND)
            with Sandbox.create(KIND) as sandbox:
                complaints = _show(sandbox, screen, options)
                with _on_signals(signal.SIG_IGN):
                    sandbox.remove()
    except Interrupted as ended:
        console.print(f"{ended}: ended early; everything that the demo had made is removed")
        return 128 + ended.number
    except KubesockError as error:
        console.print(f"kubesock demo: {error}", markup=False, soft_wrap=True)
        return EXIT_FAILED
    for text, times in complaints.items():  # again, since a live table has no room for many
        console.print(f"{times} x WRONG {text}", markup=False, soft_wrap=True)
    if left := _traces(sandbox):
        console.print(f"not removed: {', '.join(left)}", soft_wrap=True)
        return EXIT_FAILED
    console.print("Everything that the demo had made is removed.")
    return EXIT_FAILED if complaints else EXIT_FINE


def clean(color: str = "auto") -> int:
    """Remove what crashed demos left. Returns the exit code."""
    console = _console(color)
    if told_missing(console):
        return EXIT_MISSING
    removed, in_use = remove_leftovers(KIND)
    for name in removed:
        console.print(f"removed {name}: namespaces, cgroups, pins, processes, files")
    for name in in_use:
        console.print(f"left {name} alone: its demo is running")
    if not removed:
        console.print("nothing to clean")
    return EXIT_FINE


def told_missing(console: Console) -> bool:
    """Say what this machine lacks. Returns whether it lacks anything."""
    missing = missing_requirements()
    for one in missing:
        console.print(f"kubesock demo needs {one.what}: {one.remedy}", markup=False, soft_wrap=True)
    return bool(missing)


def _show(sandbox: Sandbox, screen: Screen, options: Options) -> Counter[str]:
    """Everything between the first namespace and the last word. Returns what was wrong, and how often."""
    started = time.monotonic()
    manifests = sandbox.folder / "manifests"
    manifests.mkdir()
    objects = Objects.packaged(manifests)
    with screen:
        screen.step(f"A cluster of network namespaces, kubesock-{sandbox.id}-*")
        cluster = DemoCluster(sandbox, objects)
        objects.write()
        services = len(list(objects.of_kind("Service")))
        took = time.monotonic() - started
        screen.say(f"{services} Services, {len(objects.pods())} servers, no route outside: {took:.2f} s")
        agent = _start_agent(sandbox, cluster, screen)
        with closing(Story(cluster, objects, agent, screen, options.duration)) as story:
            story.run()
            if options.keep:
                _keep(story, sandbox, screen)
            story.run_without_agent()
            _clean_up_with_kubesock(agent, story, screen)
            complaints = story.tally.complaints
            screen.step(f"{story.tally.dials} dials answered right, {complaints.total()} wrong")
    return complaints


def _start_agent(sandbox: Sandbox, cluster: DemoCluster, screen: Screen) -> Agent:
    started = time.monotonic()
    bpffs = sandbox.bpffs / "kubesock"
    agent = Agent(
        sandbox,
        ("--manifests", str(cluster.objects.folder)),
        node_name=NODE_NAME,
        cgroup=cluster.hooked,
        bpffs=bpffs,
        state_dir=sandbox.folder / "state",
        netns=cluster.node,
    )
    agent.wait_ready()
    screen.say(f"kubesock run is ready: {time.monotonic() - started:.2f} s, process {agent.process.pid}")
    screen.say(f"look at it from another terminal: kubesock services --bpffs {bpffs} -A", style="dim")
    return agent


def _keep(story: Story, sandbox: Sandbox, screen: Screen) -> None:
    """Traffic goes on until a signal, which is a proper end here."""
    client = story.cluster.clients[0]
    netns = namespaces.NAMESPACES / f"kubesock-{sandbox.id}-{client.name}"
    screen.step("Kept running; Ctrl-C ends it")
    screen.say(f"manifests to edit: {story.objects.folder}")
    screen.say(
        f"dial yourself: sh -c 'echo $$ > {story.cluster.hooked}/cgroup.procs;"
        f" exec nsenter --net={netns} curl -s http://10.96.14.7'"
    )
    noted: list[int] = []
    with _on_signals(lambda number, _frame: noted.append(number)):
        while not noted:
            story.traffic(0.5)
    screen.say("ending")


def _clean_up_with_kubesock(agent: Agent, story: Story, screen: Screen) -> None:
    code, _, err = agent.verb("cleanup")
    screen.say("kubesock cleanup has detached the programs")
    if code != 0 or agent.bpffs.exists():
        text = f"kubesock cleanup ended with {code} and left {agent.bpffs}: {err.strip()}"
        story.tally.complaints[text] += 1
        screen.fault(text)


def _console(color: str) -> Console:
    forced = {"always": True, "never": None, "auto": None}[color]
    plain = not sys.stdout.isatty() and color != "always"
    return Console(
        force_terminal=forced if sys.stdout.isatty() else None,
        color_system="truecolor" if color == "always" else "auto",
        no_color=color == "never" or plain,
        highlight=False,
    )


def _traces(sandbox: Sandbox) -> list[str]:
    """What is still there of a removed sandbox."""
    places = [sandbox.folder, sandbox.cgroup, *namespaces.named(f"kubesock-{sandbox.id}-")]
    return [str(place) for place in places if place.exists()]


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _on_signals(handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind the stack, so that everything is removed on the way; a second signal must not stop that."""
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)
