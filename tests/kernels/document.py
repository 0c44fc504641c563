"""From the results of several kernels to docs/compatibility.md.

python -m tests.kernels.document --keep FILE RESULTS   what a machine wrote becomes RESULTS/SERIES.json
python -m tests.kernels.document RESULTS PAGE          all results become the page
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.kernels.sources import Count

Result = dict[str, Any]
RESULTS = Path(__file__).with_name("results")
TOLERATED = 0.10
"""How far the cost of a program may move, either way, before somebody has to look at it."""
CLSACT = "filters at devices (clsact)"
UNFINISHED = "the machine ended before its tests:"
COPIED = "copying of sockets' records"

INTRODUCTION = """\
# Compatibility

kubesock needs Linux 5.10 or later on x86_64, with cgroup v2. What an older kernel lacks is done in another
way, or is less in a way that has a name; `kubesock check` says which of these hold on a machine.

This page is made by `make kernels`: it boots each kernel below (Debian's generic images) in a virtual
machine, compiles and loads every program there, runs the tests of the datapath that need no agent, those of
traffic from outside among them, and keeps what came of it in `tests/kernels/results`, with a digest of the C
that it is of. Programs are compiled without header files of the kernel.
"""


class Lack(NamedTuple):
    """A feature that a kernel may lack.

    Attributes:
        name: as `kubesock check` calls it, or as the results do.
        less: what is less without it.
        shown: where that can be seen.
    """

    name: str
    since: str
    less: str
    shown: str


LACKS = (
    Lack(
        "bpf_set_retval",
        "5.18",
        "a refused call fails with `EPERM` instead of `ECONNREFUSED`, `EHOSTUNREACH` or `EAGAIN`;"
        " still at once",
        "`check`; outcomes, counters and events are the same",
    ),
    Lack(
        "SO_NETNS_COOKIE",
        "5.14",
        "nothing: a namespace's cookie is asked of a small connect hook, attached to the agent's own cgroup"
        " for a moment",
        "`check`",
    ),
    Lack(
        "socket cookies in iterators",
        "5.12",
        "a stale UDP socket is named to the kernel by its addresses and ports alone; a socket that took its"
        " ports since then would be ended instead",
        "`check`; `connections -o json` has `cookie` 0",
    ),
    Lack("bpf_ktime_get_coarse_ns", "5.11", "some nanoseconds: a more precise clock is read", "`check`"),
    Lack(
        "memory of BPF is charged to the cgroup",
        "5.11",
        "maps count as locked memory of the process; the agent raises its own limit, for which it needs"
        " CAP_SYS_RESOURCE or an unlimited RLIMIT_MEMLOCK",
        "`check`, locked memory: needed",
    ),
    Lack(
        "batch operations: LPM trie",
        "5.13",
        "ClusterIPs and source ranges are written and read one by one, which takes five times as long",
        "`check`",
    ),
    Lack(
        "links at devices (tcx)",
        "6.6",
        "programs are attached to devices as clsact filters of priority 27507, which `tc` can take away; they"
        " are put back within seconds. Another program under our filter's name is not noticed, and the agent"
        " takes 20 MB more memory",
        "`check`; `tc filter show dev DEVICE ingress`",
    ),
    Lack(
        "packet programs",
        "4.1",
        "no traffic from outside: `--outside=off`; calls of pods and of the node go on",
        "`check`; the agent's log",
    ),
    Lack(
        CLSACT,
        "CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF",
        "nothing where there are links at devices; else as without packet programs",
        "the agent's log",
    ),
    Lack(
        COPIED,
        "5.11",
        "after an upgrade to another layout of maps, sockets that were open show their backend as their peer,"
        " and are not in the connection table; they go on",
        "the agent's log",
    ),
    Lack(
        "BTF",
        "CONFIG_DEBUG_INFO_BTF",
        "no connection table; UDP sockets stay on removed backends",
        "`check`; `connections` exits with 3 and says why",
    ),
    Lack(
        "iterator over socket storage",
        "5.9",
        "as without BTF",
        "`check`; `connections` exits with 3 and says why",
    ),
    Lack(
        "ending of stale sockets",
        "CONFIG_INET_DIAG_DESTROY",
        "UDP sockets stay on removed backends until they are closed",
        "`check`; the agent's log names each socket that lives on",
    ),
)


SHOWN = {True: "yes", False: "**no**", None: "–"}


def results_in(folder: Path) -> list[Result]:
    """All results, by kernel."""
    return sorted((json.loads(path.read_text()) for path in folder.glob("*.json")), key=version)


def version(result: Result) -> tuple[int, ...]:
    """(5, 10, 262): Debian's release names do not tell the stable update, the text beside them does."""
    built = re.search(r"Debian ([0-9.]+)", result["version"])
    return tuple(map(int, re.findall(r"\d+", built.group(1) if built else result["release"])[:3]))


def series(result: Result) -> str:
    """Like 5.10."""
    return ".".join(map(str, version(result)[:2]))


def page(results: Sequence[Result]) -> str:
    """The whole text."""
    parts = [
        INTRODUCTION,
        _kernels(results),
        "## What kernels have\n",
        _features(results),
        "## What is less without it\n",
        _lacks(),
        "## What the verifier looks at\n",
        "Instructions of a program, and how many the verifier walks through to accept it (told since 5.16;"
        " its limit is one million). A test on a machine with one of these kernels fails if either is"
        f" {TOLERATED:.0%} more or less than here. Programs that are crossing know the records of an earlier"
        " layout of maps, and run for the moment in which an upgrade leads sockets from one to the other.\n",
        _programs(results),
    ]
    return "\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _kernels(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        tests = result["tests"]
        failed = tests.get("failed", 0) + tests.get("error", 0)
        rows.append(
            (
                ".".join(map(str, version(result))),
                result["release"],
                str(tests.get("passed", 0)),
                str(tests.get("skipped", 0)),
                str(failed),
            )
        )
    text = _table(("kernel", "release", "tests passed", "skipped", "failed"), rows)
    notes: dict[str, list[str]] = {}
    for result in results:
        for test, reason in result["reasons"].items():
            name = f"`{test.split('::')[-1].split('[')[0]}`:" if "::" in test else test
            notes.setdefault(f"{name} {reason}", []).append(series(result))
        for test in result.get("again", ()):
            note = f"`{test.split('::')[-1].split('[')[0]}`: passed when it was run again, by itself"
            notes.setdefault(note, []).append(series(result))
    lines = [f"* {', '.join(dict.fromkeys(where))}: {note}\n" for note, where in notes.items()]
    return text + ("\nSkipped, failed or run again:\n\n" + "".join(lines) if lines else "")


def _features(results: Sequence[Result]) -> str:
    names = list(dict.fromkeys(name for result in results for name in features(result)))
    rows = [(name, *(SHOWN[features(result).get(name)] for result in results)) for name in names]
    return _table(("", *map(series, results)), rows)


def features(result: Result) -> dict[str, bool]:
    """What the kernel has, by name."""
    batches = {f"batch operations: {kind}": found for kind, found in result["batch operations"].items()}
    charged = {"memory of BPF is charged to the cgroup": version(result)[:2] >= (5, 11)}
    carried = [count for count in result["programs"].values() if count.get("source") == "carry.c"]
    copied = {COPIED: not any(count["refused"] for count in carried)} if carried else {}
    return {**dict(sorted(result["checks"].items())), **batches, **charged, **copied}


def _lacks() -> str:
    return _table(
        ("feature", "since", "what is less", "where it shows"),
        ((lack.name, lack.since, lack.less, lack.shown) for lack in LACKS),
    )


def _programs(results: Sequence[Result]) -> str:
    sources = {
        name: count.get("source", "translate.c")
        for result in results
        for name, count in result["programs"].items()
    }
    rows = []
    for name, source in sorted(sources.items(), key=lambda item: (item[1], item[0])):
        counts = [result["programs"].get(name, {}) for result in results]
        lengths = [count["instructions"] for count in counts if count.get("instructions")] or [0]
        rows.append((source, f"`{name}`", f"{min(lengths)}–{max(lengths)}", *map(_verified, counts)))
    return _table(("source", "program", "instructions", *map(series, results)), rows)


def _verified(count: Mapping[str, Any]) -> str:
    return "refused" if count.get("refused") else str(count.get("verified") or "–")


def beyond(found: Mapping[str, Count], kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each program whose cost is not, within TOLERATED, what is kept of the same kernel."""
    told = []
    for name, count in found.items():
        before = kept.get(name)
        if before is None:
            told.append(f"{name}: nothing is kept")
            continue
        for what in ("instructions", "verified"):
            was, now = before[what], getattr(count, what)
            if was and abs(now - was) > TOLERATED * was:
                told.append(f"{name}: {now} {what}, {was} are kept")
    return told


def keep(raw: Path, folder: Path) -> str:
    """Put away what a virtual machine wrote; a summary of it.

    Raises:
        ValueError: it did not come to its end. What there is of it is kept, with a reason that says so.
    """
    result: Result = json.loads(raw.read_bytes().rstrip(b"\0") or b"{}")
    if not result.get("tests"):
        raise ValueError("no test came to its end")
    path = folder / f"{series(result)}.json"
    before = json.loads(path.read_text())["programs"] if path.exists() else {}
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    changed = [name for name, count in result["programs"].items() if before.get(name, count) != count]
    told = f"; instructions changed: {', '.join(changed)}" if changed else ""
    summary = f"{result['release']}: {result['tests']} in {result['seconds']} s{told}"
    if UNFINISHED in result["reasons"]:
        raise ValueError(f"{summary}; {UNFINISHED} {result['reasons'][UNFINISHED]}")
    return summary


def main() -> None:
    if sys.argv[1] == "--keep":
        try:
            print(keep(Path(sys.argv[2]), Path(sys.argv[3])))
        except ValueError as error:
            sys.exit(str(error))
    else:
        Path(sys.argv[2]).write_text(page(results_in(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
