"""`kubesock demo`: a small cluster on this machine, to see Services being translated."""

from __future__ import annotations

import sys

import click


@click.command("demo")
@click.option(
    "--clean",
    "only_clean",
    is_flag=True,
    help="Only remove what demos that were killed left behind.",
)
@click.option("--keep", is_flag=True, help="After the last step go on with traffic until Ctrl-C.")
@click.option(
    "--duration",
    type=click.FloatRange(1.0, 3600.0),
    default=10.0,
    show_default=True,
    help="Seconds of traffic, spread over the steps.",
)
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours: auto means on a terminal only.",
)
@click.option("--lines", is_flag=True, help="Print lines on a terminal too, instead of the live table.")
def demo(only_clean: bool, keep: bool, duration: float, color: str, lines: bool) -> None:
    """Build a cluster of network namespaces, run the agent in it, drive traffic, remove it all.

    Needs root. Nothing outside its own namespaces, cgroup and folder below /run is touched. Exit code 0 if
    every connection reached the right pod, 1 if not, 3 if this machine lacks something.
    """
    from pyagent.demo.run import Options, clean, run_demo  # rich and pyroute2 are slow to import

    sys.exit(clean(color) if only_clean else run_demo(Options(duration, keep, color, lines)))
