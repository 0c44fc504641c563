"""What results of `make kernels` are of: the C in `bpf/`, its programs, and the tests that ran."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

BPF = Path(__file__).resolve().parents[2] / "bpf"
TESTS = (
    "tests/datapath/test_verifier.py",
    "tests/datapath/test_kernel_side.py",
    "tests/datapath/test_namespace_cookie.py",
    "tests/datapath/test_outcomes.py",
    "tests/datapath/test_calls.py",
    "tests/datapath/test_datagrams.py",
    "tests/datapath/test_affinity.py",
    "tests/datapath/test_node_ports.py",
    "tests/datapath/test_bound_to_loopback.py",
    "tests/datapath/test_crossing.py",
    "tests/outside/test_packets.py",
    "tests/outside/test_raw.py",
    "tests/outside/test_devices.py",
    "tests/outside/test_topologies.py",
)
"""None needs an agent: to start a process takes half a minute under emulation. The first compiles for all."""

CROSSING = ", crossing"
"""Ends the name of a program of translate.c that knows the records of an earlier layout too."""

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_PROGRAM = re.compile(r"^int (\w+)\(struct (?:bpf_sock_addr|__sk_buff|bpf_iter__\w+) \*", re.MULTILINE)
_ITERATOR = re.compile(r"^BPF_ITER\((\w+)\)", re.MULTILINE)
_INCLUDED = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


class Count(NamedTuple):
    """Of one program. All zero but for `refused` where the kernel does not load it.

    Attributes:
        instructions: as this kernel keeps them, which is a few more than the compiler made.
        verified: how many the verifier walked through; 0 where it does not tell (before Linux 5.16).
    """

    instructions: int
    verified: int
    refused: str = ""


def digest(folder: Path = BPF, tests: Iterable[str] = TESTS) -> str:
    """Changes with every C file in `folder`, though not with comments or white space, and with `tests`."""
    made = hashlib.sha256("\n".join(tests).encode())
    for path in sorted((*folder.rglob("*.c"), *folder.rglob("*.h"))):
        words = " ".join(_COMMENT.sub(" ", path.read_text()).split())
        made.update(f"\n{path.relative_to(folder)}\n{words}".encode())
    return made.hexdigest()


def programs(folder: Path = BPF) -> dict[str, str]:
    """Name -> source, of every program that some `bpf/*.c` makes."""
    found = {}
    for source in sorted(folder.glob("*.c")):
        for text in _texts(source, folder, set()):
            names = [*_PROGRAM.findall(text), *(f"bpf_iter__{name}" for name in _ITERATOR.findall(text))]
            found.update(dict.fromkeys(names, source.name))
    crossing = {f"{name}{CROSSING}": source for name, source in found.items() if source == "translate.c"}
    return found | crossing


def _texts(path: Path, folder: Path, seen: set[Path]) -> Iterator[str]:
    seen.add(path)
    text = path.read_text()
    yield text
    for name in _INCLUDED.findall(text):
        if folder / name not in seen:
            yield from _texts(folder / name, folder, seen)
