"""`python -m bench [--quick] [NAME...]`: measures, prints tables, writes RESULTS.md.

Everything happens in network namespaces and cgroups that it makes, bounded in rounds and time, and is taken
away at the end, on Ctrl-C and on SIGTERM; what a killed run left, the next one removes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from bench import machine
from bench.lab import Lab
from bench.parts import (
    agent,
    cluster,
    connect,
    connections,
    datagrams,
    floor,
    memory,
    outside,
    peer,
    planning,
    traffic,
)
from bench.scale import FULL, QUICK, Scale
from bench.tables import Table, rendered
from pyagent.demo.calls import call
from pyagent.demo.requirements import missing_requirements
from pyagent.demo.sandbox import Sandbox, remove_leftovers
from pyagent.model.failures import KubesockError

RESULTS = Path(__file__).parent / "RESULTS.md"
PART_SECONDS = 400.0

PARTS: dict[str, Callable[[Lab, Scale], list[Table]]] = {
    "connect": connect.run,
    "floor": floor.run,
    "datagrams": datagrams.run,
    "traffic": traffic.run,
    "planning": planning.run,
    "memory": memory.run,
    "connections": connections.run,
    "agent": agent.run,
    "cluster": cluster.run,
    "outside": outside.run,
    "peer": peer.run,
}


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 all measured, 1 a part failed, 2 usage or a machine that cannot."""
    options = _options(arguments)
    missing = missing_requirements()
    if missing:
        print("bench:", "; ".join(map(str, missing)), file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    remove_leftovers("bench")
    names = options.names or list(PARTS)
    shown = " ".join(["python -m bench", *arguments])
    head = _head(machine.facts(shown))
    print(head, flush=True)
    output = options.output or (None if options.names else RESULTS)
    sections, failed = [head], []
    began = time.monotonic()
    with Sandbox.create("bench") as sandbox:
        for name in names:
            try:
                text = _measured(sandbox, name, QUICK if options.quick else FULL)
            except Exception as error:  # noqa: BLE001 - one part must not cost the others' figures
                failed.append(name)
                if not isinstance(error, KubesockError | OSError):
                    traceback.print_exc()
                text = f"## {name}\n\nnot measured: {error}\n"
            print(text, flush=True)
            sections.append(text)
            _write(output, sections)  # what is measured stays, whatever becomes of the rest
    sections.append(f"Measured in {time.monotonic() - began:.0f} s.\n")
    print(sections[-1], flush=True)
    _write(output, sections)
    if output is not None:
        print(f"bench: wrote {output}", file=sys.stderr)
    if failed:
        print(f"bench: not measured: {', '.join(failed)}; see above", file=sys.stderr)
    return 1 if failed else 0


def _write(output: Path | None, sections: Sequence[str]) -> None:
    if output is not None:
        output.write_text("\n".join(sections))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="What kubesock costs on this machine."
    )
    parser.add_argument("--quick", action="store_true", help="smaller, a minute and a half")
    parser.add_argument(
        "--output", type=Path, help=f"file for the tables (default: {RESULTS.name}, if all is measured)"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"parts (default: all): {' '.join(PARTS)}")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return options


def _measured(sandbox: Sandbox, name: str, scale: Scale) -> str:
    """One part's tables as text. Each has a process of its own, so that none leaves its heap to the next."""
    began = time.monotonic()
    tables = call(partial(_run, sandbox, name, scale), timeout=PART_SECONDS)
    texts = [f"## {name} ({time.monotonic() - began:.0f} s)\n", *map(rendered, tables)]
    return "\n".join(texts)


def _run(sandbox: Sandbox, name: str, scale: Scale) -> list[Table]:
    return PARTS[name](Lab(sandbox, name), scale)


def _head(facts: Sequence[tuple[str, str]]) -> str:
    lines = [f"* {name}: {value}" for name, value in facts]
    return "\n".join(["# What kubesock costs", "", *lines, "", *machine.warning(), ""])


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
