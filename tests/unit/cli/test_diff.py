"""What `kubesock diff` ends with, by what answers on the agent's socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyagent.demo.agent_process import run_verb
from pyagent.view.agent_socket import FOLDER_HEADER

Answering = Callable[[bytes], Path]
DIFFERENCE = {"subject": "frontend 10.96.0.1:80/TCP", "kernel": "nothing", "desired": "set 1"}


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Answering]:
    """A state directory in which somebody answers every request with these bytes."""
    listener = socket.socket(socket.AF_UNIX)
    (tmp_path / "state").mkdir()
    listener.bind(str(tmp_path / "state" / "agent.sock"))

    def serve(answer: bytes) -> None:
        try:
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(4096)
                    client.sendall(answer)
        except OSError:
            return  # the test is over

    def start(answer: bytes) -> Path:
        listener.listen()
        threading.Thread(target=serve, args=(answer,), daemon=True).start()
        return tmp_path / "state"

    yield start
    listener.close()


def http(status: str, body: bytes, folder: Path) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{FOLDER_HEADER}: {folder}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def diff(state: Path, bpffs: Path) -> tuple[int, str, str]:
    return run_verb("diff", f"--state-dir={state}", f"--bpffs={bpffs}")


@pytest.mark.parametrize(("found", "code"), [([], 0), ([DIFFERENCE], 1)], ids=["same", "differs"])
def test_the_code_tells_whether_the_maps_differ(
    answering: Answering, tmp_path: Path, found: list[dict[str, str]], code: int
) -> None:
    body = json.dumps({"differences": found, "count": len(found)}).encode()
    ended, out, err = diff(answering(http("200 OK", body, tmp_path)), tmp_path)
    assert (ended, err) == (code, "")
    assert out == "".join(
        f"{one['subject']}: the kernel has {one['kernel']}, and should have {one['desired']}\n"
        for one in found
    )


def test_without_an_agent_it_is_3(tmp_path: Path) -> None:
    code, out, err = diff(tmp_path, tmp_path)
    assert (code, out) == (3, "")
    assert "only the agent knows" in err


@pytest.mark.parametrize("status", ["200 OK", "503 Service Unavailable", "no HTTP at all"])
def test_an_answer_that_is_none_is_5_and_one_printable_line(
    answering: Answering, tmp_path: Path, status: str
) -> None:
    answer = http(status, b"\x1b[2Jnonsense", tmp_path) if status[0].isdigit() else b"\x00\xff\n\n"
    code, out, err = diff(answering(answer), tmp_path)
    assert (code, out) == (5, "")
    assert err.startswith("kubesock: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
