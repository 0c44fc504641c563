"""Asking the living agent: one GET over its socket in the state directory."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pyagent.model.failures import KubesockError, NoPermission, sanitized

SOCKET = "agent.sock"
ANSWER_SECONDS = 15.0
MAX_ANSWER = 64 << 20
CHUNK = 1 << 18
FOLDER_HEADER = "Kubesock-Bpffs"
"""Which pins the agent keeps: a state directory may be another agent's."""

T = TypeVar("T")


class NoAgent(KubesockError):
    """No agent answers there."""

    exit_code = 3


class AgentFailed(KubesockError):
    """An agent answered, but not with what was asked for."""


def ask(state_dir: Path, bpffs: Path, path: str, kind: type[T], seconds: float = ANSWER_SECONDS) -> T:
    """The agent's answer to a path, decoded as `kind`.

    Args:
        bpffs: whose agent is meant.

    Raises:
        NoAgent: nobody listens there, or it is the agent of other pins.
        NoPermission: the socket is not for us.
        AgentFailed: no usable answer in time.
    """
    head, body = _exchange(state_dir, path, seconds)
    _check(head, body, state_dir, bpffs)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise AgentFailed(
            f"the agent's answer to {path} cannot be read ({error}); is it of this version?"
        ) from None


def ask_plain(state_dir: Path, bpffs: Path, path: str) -> dict[str, Any]:
    """As `ask`, for an answer that is only shown."""
    return ask(state_dir, bpffs, path, dict[str, Any])


def listen(
    state_dir: Path, bpffs: Path, path: str, seconds: float = ANSWER_SECONDS
) -> tuple[socket.socket, bytes]:
    """The connection of an answer that does not end, behind its head, and what came of it already.

    Raises:
        NoAgent, NoPermission, AgentFailed: as `ask`.
    """
    answer = bytearray()
    with _failures(state_dir, seconds), contextlib.ExitStack() as held:
        client = _connect(state_dir, seconds)
        held.callback(client.close)
        client.sendall(_request(path))
        while b"\r\n\r\n" not in answer and (chunk := client.recv(CHUNK)):
            answer += chunk
        head, _, rest = bytes(answer).partition(b"\r\n\r\n")
        status = _head(head, state_dir)
        if status[0] != 200:
            while chunk := client.recv(CHUNK):
                rest += chunk
        _check(status, rest, state_dir, bpffs)
        held.pop_all()
    return client, rest


Head = tuple[int, dict[str, str]]
"""Status and header fields."""


def _request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n".encode()


def _check(head: Head, body: bytes, state_dir: Path, bpffs: Path) -> None:
    """Whether the right agent has answered what was asked for."""
    status, headers = head
    folder = headers.get(FOLDER_HEADER.lower(), "")
    if folder != str(bpffs.resolve()):
        raise NoAgent(
            f"the agent at {state_dir / SOCKET} is that of {sanitized(folder)}, not of {bpffs};"
            " give its --state-dir"
        )
    if status != 200:
        text = body.decode("utf-8", "replace").strip()
        raise AgentFailed(f"the agent cannot answer: {sanitized(text, 500)}")


def _exchange(state_dir: Path, path: str, seconds: float) -> tuple[Head, bytes]:
    deadline = time.monotonic() + seconds
    answer = bytearray()
    with _failures(state_dir, seconds), _connect(state_dir, seconds) as client:
        client.sendall(_request(path))
        while chunk := client.recv(CHUNK):
            answer += chunk
            client.settimeout(max(0.001, deadline - time.monotonic()))
            if len(answer) > MAX_ANSWER:
                raise AgentFailed(f"the agent's answer to {path} is longer than {MAX_ANSWER} bytes")
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    return _head(head, state_dir), body


@contextlib.contextmanager
def _failures(state_dir: Path, seconds: float) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise NoPermission(f"{state_dir / SOCKET}: permission denied; run as root") from None
    except TimeoutError:
        raise AgentFailed(f"the agent did not answer within {seconds:g} s; its log may tell why") from None
    except OSError as error:
        reason = f"no agent answers at {state_dir / SOCKET} ({error.strerror})"
        raise NoAgent(f"{reason}; start `kubesock run`, or give its --state-dir") from None


def _head(head: bytes, state_dir: Path) -> Head:
    first, *rest = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) < 2 or not words[1].isdigit():
        raise AgentFailed(f"{state_dir / SOCKET} does not answer as an agent does")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    return int(words[1]), headers


def _connect(state_dir: Path, seconds: float) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.settimeout(seconds)
        with in_folder(state_dir) as path:
            client.connect(path)
    except BaseException:
        client.close()
        raise
    return client


@contextlib.contextmanager
def in_folder(state_dir: Path) -> Iterator[str]:
    """A short way to the socket: addresses of sockets hold 107 bytes, paths are longer (unix(7))."""
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{SOCKET}"
    finally:
        os.close(folder)
