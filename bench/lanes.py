"""The C client: compiles it once, runs its lanes, gives back their times."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.lab import Lab, Place
from bench.ratios import Summary, ratios, summarize
from pyagent.model.failures import KubesockError

SOURCES = Path(__file__).parent / "c"
COLUMNS = {"self-datagram": ("sendto", "recvfrom"), "trip": ("sendto", "server", "recvfrom")}
"""Parts of one sample; other operations have one."""

WARM_UP = 100  # rounds that are thrown away
RUN_SECONDS = 60.0


class Lane(NamedTuple):
    """One kind of call; see `c/main.c`.

    Attributes:
        addresses: how many addresses in a row, from `address` on, are dialled at random.
        place: None: from one pod to another.
        answerer: who answers its datagrams, of operation `trip`.
    """

    name: str
    operation: str
    hooked: bool
    protocol: str
    address: str
    port: int
    addresses: int = 1
    place: Place | None = None
    answerer: str = ""


class Times(NamedTuple):
    """Nanoseconds of every round by lane."""

    lanes: dict[str, list[int]]

    def ratio(self, name: str, reference: str) -> Summary:
        return summarize(ratios(self.lanes[name], self.lanes[reference]))

    def of(self, name: str) -> Summary:
        return summarize(self.lanes[name])


class Client:
    """The compiled client.

    Raises:
        KubesockError: no C compiler; the text says what to install.
    """

    def __init__(self, lab: Lab) -> None:
        compiler = next(
            (c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None
        )
        if compiler is None:
            raise KubesockError(
                "no C compiler: install gcc and libc6-dev (Debian, Ubuntu) or gcc and glibc-devel (Fedora)"
            )
        self._lab = lab
        self._binary = lab.sandbox.folder / "lanes"
        done = subprocess.run(
            [compiler, "-O2", "-Wall", "-o", str(self._binary), *map(str, sorted(SOURCES.glob("*.c")))],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise KubesockError(f"{compiler} cannot compile the bench's client: {done.stderr.strip()}")

    def run(self, lanes: Sequence[Lane], rounds: int) -> Times:
        """Time every lane once a round.

        Raises:
            KubesockError: a call failed; with the client's message.
        """
        answer = self._start(lanes, rounds + WARM_UP)
        try:
            data, complaint = answer.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise KubesockError(f"the bench's client is not done after {RUN_SECONDS:g} s") from None
        finally:
            answer.kill()
        if answer.returncode != 0:
            raise KubesockError(f"the bench's client failed: {complaint.decode().strip()}")
        return Times(_split(lanes, data, WARM_UP))

    def run_blocks(
        self, lanes: Sequence[Lane], blocks: int, rounds: int, prepare: Callable[[int], None]
    ) -> list[Times]:
        """Time blocks of rounds, with something done before each.

        Args:
            prepare: called with the number of the block that comes.
        """
        client = self._start(lanes, blocks * rounds, rounds)
        assert client.stdin is not None
        assert client.stdout is not None
        size = 4 * rounds * sum(_columns(lane) for lane in lanes)
        found = []
        try:
            for block in range(blocks):
                prepare(block)
                client.stdin.write(b".")
                client.stdin.flush()
                data = client.stdout.read(size)
                if len(data) < size:
                    complaint = client.communicate()[1].decode().strip()
                    raise KubesockError(f"the bench's client failed: {complaint}")
                found.append(Times(_split(lanes, data, 0)))
        finally:
            client.kill()
            client.communicate()
        return found

    def _start(self, lanes: Sequence[Lane], rounds: int, block: int = 0) -> subprocess.Popen[bytes]:
        lab = self._lab
        words = [str(self._binary), str(rounds), str(block)]
        words += [str(cgroup / "cgroup.procs") for cgroup in (lab.hooked, lab.plain)]
        words += [_text(lane, lane.place or lab.pods) for lane in lanes]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe)


def _text(lane: Lane, place: Place) -> str:
    words = (
        lane.operation,
        "hooked" if lane.hooked else "plain",
        f"{place.client};{place.server}",
        lane.protocol,
        lane.address,
        str(lane.addresses),
        str(lane.port),
        lane.answerer,
    )
    return ",".join(words)


def _columns(lane: Lane) -> int:
    return len(COLUMNS.get(lane.operation, ("",)))


def _split(lanes: Sequence[Lane], data: bytes, skip: int) -> dict[str, list[int]]:
    """Times by lane; of operations with several columns also by `name, column`, the lane being their sum."""
    numbers = array("I")
    numbers.frombytes(data)
    if numbers.itemsize != 4 or sys.byteorder not in ("little", "big"):
        raise KubesockError("this machine has no 32-bit array")
    width = sum(_columns(lane) for lane in lanes)
    found: dict[str, list[int]] = {}
    first = skip * width
    for lane in lanes:
        parts = [numbers[first + i :: width].tolist() for i in range(_columns(lane))]
        first += len(parts)
        found[lane.name] = [sum(times) for times in zip(*parts, strict=True)]
        if len(parts) > 1:
            names = COLUMNS[lane.operation]
            found.update(
                {f"{lane.name}, {column}": times for column, times in zip(names, parts, strict=True)}
            )
    return found
