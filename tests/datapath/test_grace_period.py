"""After a grace period no program runs that had begun before: what it may have read can be given out anew."""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from contextlib import closing

import pytest

from pyagent.kernel import bpf_syscall as bpf
from pyagent.kernel.bpf_syscall import address_of
from pyagent.kernel.grace import GracePeriod

pytestmark = pytest.mark.kernel

ARRAY, MMAPABLE, SOCKET_FILTER, TEST_RUN = 2, 1 << 10, 1, 10
TURNS = 20_000
"""Of the program's loop: some hundred microseconds."""

ROUNDS = 30
PATIENCE = 60.0


def long_program(array: int) -> bytes:
    """Adds one to the first word, takes its time, adds one to the second."""

    def op(code: int, registers: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("<BBhi", code, registers, offset, value)

    def add_one(offset: int) -> bytes:
        load, add, store = op(0x79, 0x61, offset), op(0x07, 0x01, 0, 1), op(0x7B, 0x16, offset)
        return load + add + store

    return b"".join(
        (
            op(0x18, 0x26, 0, array) + op(0),  # r6 = the array's memory (BPF_PSEUDO_MAP_VALUE)
            add_one(0),
            op(0xB7, 0x07, 0, TURNS),
            op(0x85, 0, 0, 5),  # bpf_ktime_get_ns()
            op(0x17, 0x07, 0, 1),
            op(0x55, 0x07, -3, 0),
            add_one(8),
            op(0xB7, 0, 0, 0),
            op(0x95),
        )
    )


class Runs:
    """A thread in which the program runs again and again."""

    def __init__(self) -> None:
        self._array = bpf.map_create("runs", ARRAY, 4, 16, 1, MMAPABLE)
        self._program = bpf.program_load(bpf.ProgramKind(SOCKET_FILTER, 0), long_program(self._array), "long")
        self._memory = mmap.mmap(self._array, mmap.PAGESIZE, mmap.MAP_SHARED)
        self._words = memoryview(self._memory).cast("Q")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def begun(self) -> int:
        return self._words[0]

    @property
    def ended(self) -> int:
        return self._words[1]

    def under_way(self) -> int:
        """The number of a run that has not ended a moment ago."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            begun = self.begun
            if self.ended < begun:
                return begun
        raise AssertionError("no program runs")

    def _run(self) -> None:
        packet = bytearray(64)
        while not self._stopping.is_set():
            attributes = bytearray(64)
            struct.pack_into(
                "=IIIIQQI", attributes, 0, self._program, 0, len(packet), 0, address_of(packet), 0, 100
            )
            bpf.bpf(TEST_RUN, attributes, "run a program")

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._words.release()
        self._memory.close()
        os.close(self._program)
        os.close(self._array)


def test_a_program_that_ran_at_its_beginning_has_ended_at_its_end() -> None:
    with closing(Runs()) as runs, closing(GracePeriod()) as period:
        for _ in range(ROUNDS):
            begun = runs.under_way()
            period.wait()
            assert runs.ended >= begun
