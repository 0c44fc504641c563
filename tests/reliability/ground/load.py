"""The C client: compiled, started once for each CPU, told of each switch, asked what it saw."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from pyagent.demo import namespaces
from pyagent.demo.children import Child
from pyagent.demo.sandbox import Sandbox
from tests.reliability.ground.served import Served

SOURCE = Path(__file__).parents[1] / "c" / "dials.c"
MAX_TARGETS, MAX_CLIENTS = 16, 8
WORD = struct.Struct("=Q")
CLIENT_WORDS = 2 + MAX_TARGETS
SIZE = 8 * (1 + 2 * MAX_TARGETS + MAX_CLIENTS * CLIENT_WORDS)
NETWORKS = ((4, "10.244.0.0/16"), (6, "fd44:10:244::/64"))


class Seen(NamedTuple):
    """What all clients saw together.

    Attributes:
        calls: connects and exchanges of datagrams through a Service, on new sockets.
        connects: those of them that connect()ed, TCP and UDP; the others were datagrams.
        in_switch: those during which a set was being switched.
        asked: answers to "who is the peer", of new and of old sockets.
        ended: UDP sockets whose backend went between connect() and send(), which told it.
        unheard: datagrams that went where they should, and for which the kernel found no receiver.
        wrong: how many were not as they must be.
        texts: the first of them.
    """

    calls: int
    connects: int
    in_switch: int
    asked: int
    ended: int
    unheard: int
    wrong: int
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls, {self.connects:,} of them connect();"
            f" {self.in_switch:,} while a set was switched; {self.asked:,} peers asked;"
            f" UDP sockets ended before their send(): {self.ended:,}; datagrams for which the kernel found"
            f" no receiver where they should go: {self.unheard:,};"
            f" wrong: {self.wrong:,}"
        )


class Load:
    """Running clients. `begin` and `end` enclose each switch of a Service."""

    def __init__(
        self, sandbox: Sandbox, binary: Path, cgroup: Path, served: Sequence[Served], calls: int, clients: int
    ) -> None:
        path = sandbox.folder / "dials.shared"
        path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SIZE)
        self._words = memoryview(self._memory).cast("Q")
        targets = [(one, text) for one in served for text in one.targets()]
        self._targets = {one: [at for at, (whose, _) in enumerate(targets) if whose == one] for one in served}
        self.clients: list[Child] = []
        self._logs: list[Path] = []
        self._namespaces: list[Path] = []
        for number in range(clients):
            netns = sandbox.new_namespace(f"dials-{number}")
            namespaces.isolate(netns)
            self._namespaces.append(netns)
            for family, network in NETWORKS:
                words = ("ip", "-n", netns.name, f"-{family}", "route", "add", "local", network, "dev", "lo")
                subprocess.run(words, check=True)
            log = f"dials-{number}.log"
            self._logs.append(sandbox.folder / log)
            command = [
                str(binary),
                str(-(-calls // clients)),
                str(number % (os.cpu_count() or 1)),
                str(number),
            ]
            command += [str(path), str(cgroup / "cgroup.procs"), *(text for _, text in targets)]
            self.clients.append(sandbox.spawn(command, netns=netns, log=log, label="dials"))

    def begin(self, served: Served, generation: int) -> None:
        """From now on calls may be led to this generation too."""
        for at in self._targets[served]:
            self._words[1 + 2 * at] = generation

    def end(self, served: Served, generation: int) -> None:
        """From now on no call may be led to an earlier one."""
        for at in self._targets[served]:
            self._words[2 + 2 * at] = generation

    def latest(self, served: Served) -> int:
        """The generation that every client has seen on every way to dial the Service."""
        return min(self._words[base + 2 + at] for base in self._bases() for at in self._targets[served])

    @property
    def calls(self) -> list[int]:
        """Of each client so far."""
        return [self._words[base] for base in self._bases()]

    @property
    def wrong(self) -> int:
        return sum(self._words[base + 1] for base in self._bases())

    def _bases(self) -> Iterator[int]:
        for number in range(len(self.clients)):
            yield 1 + 2 * MAX_TARGETS + number * CLIENT_WORDS

    @property
    def running(self) -> bool:
        return any(client.running for client in self.clients)

    def stop(self) -> Seen:
        """End the clients, and tell what they saw.

        Raises:
            AssertionError: one ended otherwise.
        """
        self._words[0] = 1
        counts: Counter[str] = Counter()
        texts: list[str] = []
        for client, log in zip(self.clients, self._logs, strict=True):
            code = client.wait(30.0)
            said = log.read_text(errors="replace")
            assert code == 0, f"a client ended with {code}: {said}"
            for line in said.splitlines():
                name, _, rest = line.partition(" ")
                if name == "wrong":
                    texts.append(rest)
                else:
                    counts[name] += int(rest)
        return Seen(
            counts["calls"],
            counts["connects"],
            counts["in_switch"],
            counts["asked"],
            counts["ended"],
            counts["unheard"],
            counts["wrong_count"],
            tuple(texts),
        )

    def close(self) -> None:
        for client in self.clients:
            client.kill()
        for netns in self._namespaces:
            namespaces.remove(netns)
        self._words.release()
        self._memory.close()


@contextmanager
def dialling(
    sandbox: Sandbox, cgroup: Path, served: Sequence[Served], calls: int = 0, clients: int = 0
) -> Iterator[Load]:
    """Clients that dial from now on, each in a namespace and on a CPU of its own.

    Args:
        calls: of all clients together; 0: until they are stopped.
        clients: how many; 0: one for each CPU.
    """
    load = Load(sandbox, compiled(sandbox), cgroup, served, calls, clients or min(os.cpu_count() or 1, 8))
    try:
        yield load
    finally:
        load.close()


def compiled(sandbox: Sandbox, source: Path = SOURCE) -> Path:
    """The binary of a C program, the client's if no other is meant."""
    binary = sandbox.folder / source.stem
    if not binary.exists():
        compiler = next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), None)
        if compiler is None:
            pytest.skip("no C compiler: install gcc and libc6-dev")
        subprocess.run([compiler, "-O2", "-Wall", "-pthread", "-o", str(binary), str(source)], check=True)
    return binary


def report(name: str, lines: Iterable[str]) -> None:
    """Print the figures of a long test, for docs/reliability.md."""
    print(f"\n{name}")
    for line in lines:
        print(f"  {line}")
