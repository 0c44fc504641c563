"""Run one Python callable somewhere else (network namespace, cgroup) and have its result here."""

from __future__ import annotations

import os
import pickle
import select
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyagent.demo.children import Child, spawn
from pyagent.model.failures import KubesockError

T = TypeVar("T")

_HEADER = 8  # bytes of the length before the pickled answer


class CallFailed(KubesockError):
    """The callable ended without an answer: killed, timed out, or its answer cannot be pickled."""


def call(
    work: Callable[[], T], *, netns: Path | None = None, cgroup: Path | None = None, timeout: float = 10.0
) -> T:
    """What `work()` returns in a fork that entered a network namespace and a cgroup first.

    The callable may be a closure; only its result or exception crosses, pickled. A raised exception is
    raised here with the fork's traceback as a note.

    Args:
        timeout: seconds until the fork is killed.

    Raises:
        CallFailed: no answer came.
        SpawnFailed: the namespace or the cgroup cannot be entered.
    """
    answer_in, answer_out = os.pipe()
    try:
        label = getattr(work, "__name__", "callable")
        child = spawn(lambda: _answer(work, answer_in, answer_out), netns=netns, cgroup=cgroup, label=label)
    except BaseException:
        os.close(answer_in)
        raise
    finally:
        os.close(answer_out)
    try:
        succeeded, value = pickle.loads(_receive(answer_in, child, timeout))
    finally:
        os.close(answer_in)
        child.kill()
    if succeeded:
        return value  # type: ignore[no-any-return]
    raise value


def _answer(work: Callable[[], object], answer_in: int, answer_out: int) -> None:
    os.close(answer_in)
    try:
        payload = pickle.dumps((True, work()))
    except BaseException as error:  # noqa: BLE001 - raised again in the parent
        trace = traceback.format_exc()
        error.add_note(f"in the fork:\n{trace}")
        payload = _pickled_failure(error, trace)
    data = memoryview(len(payload).to_bytes(_HEADER) + payload)
    while data:
        data = data[os.write(answer_out, data) :]


def _pickled_failure(error: BaseException, trace: str) -> bytes:
    try:
        payload = pickle.dumps((False, error))
        pickle.loads(payload)  # an exception with its own __init__ may fail only here
    except Exception:  # noqa: BLE001 - any pickling failure; the text always crosses
        payload = pickle.dumps((False, CallFailed(trace)))
    return payload


def _receive(source: int, child: Child, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    poller = select.poll()
    poller.register(source, select.POLLIN)
    data = b""
    while len(data) < _HEADER or len(data) < _HEADER + int.from_bytes(data[:_HEADER]):
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            child.kill()
            raise CallFailed(f"{child.label}: no answer after {timeout:g} s")
        chunk = os.read(source, 1 << 16)
        if not chunk:
            raise CallFailed(f"{child.label}: ended without an answer, exit code {child.wait(5.0)}")
        data += chunk
    return data[_HEADER:]
