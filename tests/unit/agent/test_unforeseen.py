"""An exception that leaves a thread ends the agent, by name."""

from __future__ import annotations

import logging
import threading

import pytest

from pyagent.agent.unforeseen import ThreadEnded, threads_watched


def run_in_thread(name: str, error: BaseException) -> None:
    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail, name=name)
    thread.start()
    thread.join()


def test_a_thread_that_ends_by_an_exception_is_told_with_its_name_and_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[ThreadEnded] = []
    with threads_watched(ended.append), caplog.at_level(logging.CRITICAL):
        run_in_thread("grace-period", KeyError("sets"))
    assert "thread grace-period ended: KeyError: 'sets'" in str(ended[0])
    assert "test_unforeseen.py" in caplog.text


def test_a_thread_that_ends_as_it_should_is_not_told() -> None:
    ended: list[ThreadEnded] = []
    with threads_watched(ended.append):
        run_in_thread("done", SystemExit())
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
    assert ended == []


def test_afterwards_threads_are_nobodys_business_again() -> None:
    before = threading.excepthook
    with threads_watched(lambda error: None):
        assert threading.excepthook is not before
    assert threading.excepthook is before
