"""What the kernel tells about a process: CPU time, memory; and when an agent was ready."""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from pathlib import Path

from pyagent.demo.children import started_at
from pyagent.model.failures import KubesockError


def wait_ready(pid: int, port: int, seconds: float) -> float | None:
    """CLOCK_BOOTTIME of the first 200 of /readyz; None: not in time, or the agent ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and started_at(pid) is not None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
        with contextlib.suppress(OSError, http.client.HTTPException):  # not listening yet
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return time.clock_gettime(time.CLOCK_BOOTTIME)
        connection.close()
        time.sleep(0.005)
    return None


def start_of(pid: int) -> float:
    """CLOCK_BOOTTIME of a process's start, to 10 ms."""
    ticks = started_at(pid)
    if ticks is None:
        raise KubesockError("the agent ended while it was measured")
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_share(pid: int, seconds: float) -> float:
    """Of one core."""
    began, spent = time.perf_counter(), cpu_nanoseconds(pid)
    time.sleep(seconds)
    return (cpu_nanoseconds(pid) - spent) / 1e9 / (time.perf_counter() - began)


def cpu_nanoseconds(pid: int) -> int:
    """CPU time of all threads; finer than /proc/PID/stat, which counts in 10 ms."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def pages(pid: int, kind: str) -> int:
    """Bytes of one line of smaps_rollup."""
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), kind) * 1024


def most_resident(pid: int) -> int:
    """The most bytes that it ever had in memory."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM") * 1024


def _kilobytes(path: Path, wanted: str) -> int:
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == wanted:
            return int(value.split()[0])
    raise KubesockError(f"the kernel tells no {wanted} of a process")
