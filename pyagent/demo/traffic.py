"""What clients do: dial a Service, ask who is there, and whether every answer is the right one."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Collection, Iterable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from pyagent.demo import dns
from pyagent.demo.children import close_inherited
from pyagent.demo.objects import Target
from pyagent.demo.sandbox import Sandbox
from pyagent.model.failures import KubesockError

DIAL_SECONDS = 2.0
ROUND_SECONDS = 60.0
DNS_NAME = "web.shop.svc.cluster.local"


class Answer(NamedTuple):
    """What came of one dial. `error` is an errno; 0: answered."""

    target: Target
    pod: str = ""
    peer: tuple[str, int] = ("", 0)  # TCP: getpeername(); UDP: the answer's source
    seen_client: str = ""  # the client's address as the server saw it; "" if the protocol does not tell
    error: int = 0
    trouble: str = ""  # what the error does not say
    dial_ms: float = 0.0  # connect() or sendto() alone


class Client:
    """A forked process in a client's namespace and cgroup that dials what it is told.

    It was in its cgroup before it made its first socket, so each of them is below the hooks.
    """

    def __init__(
        self, sandbox: Sandbox, name: str, netns: Path, cgroup: Path, addresses: tuple[str, ...]
    ) -> None:
        self.name = name
        self.addresses = addresses  # what servers must see; empty: anything
        self._orders, theirs = Pipe()
        self.process = sandbox.spawn(lambda: _obey(theirs), netns=netns, cgroup=cgroup, label=name)
        theirs.close()

    def dial(self, targets: Sequence[Target]) -> list[Answer]:
        """Dial each target once, in order.

        Raises:
            KubesockError: the client's process is gone or stuck.
        """
        try:
            self._orders.send(list(targets))
            if self._orders.poll(ROUND_SECONDS):
                answers: list[Answer] = self._orders.recv()
                return answers
        except (EOFError, OSError) as error:
            raise KubesockError(f"client {self.name} is gone: {error}") from error
        raise KubesockError(f"client {self.name} does not come back from {len(targets)} dials")


def _obey(orders: Connection) -> None:
    close_inherited(orders.fileno())
    while True:
        try:
            targets = orders.recv()
        except EOFError:
            return
        orders.send([dial(target) for target in targets])


def dial(target: Target) -> Answer:
    """Dial a target once, from where this process is: UDP and port 53 as DNS, other TCP as HTTP."""
    started = time.perf_counter()
    try:
        if target.protocol == "UDP":
            return _ask_udp(target)
        with socket.create_connection((target.address, target.port), timeout=DIAL_SECONDS) as sock:
            dial_ms = (time.perf_counter() - started) * 1000
            peer = sock.getpeername()[:2]
            if target.port == 53:
                sock.sendall(dns.framed(dns.query(os.getpid() & 0xFFFF, DNS_NAME)))
                answer = dns.decode(_received(sock)[2:])
                return Answer(target, answer.served_by, peer, dial_ms=dial_ms)
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {target.service}\r\n\r\n".encode())
            said = json.loads(_received(sock, whole=True).partition(b"\r\n\r\n")[2])
            return Answer(target, said["pod"], peer, said["client"][0], dial_ms=dial_ms)
    except TimeoutError as error:
        return Answer(target, error=errno.ETIMEDOUT, trouble=str(error))
    except OSError as error:
        dial_ms = (time.perf_counter() - started) * 1000
        return Answer(target, error=error.errno or errno.EIO, trouble=str(error), dial_ms=dial_ms)
    except ValueError as error:  # no JSON, no DNS message
        return Answer(target, error=errno.EPROTO, trouble=str(error))


def _ask_udp(target: Target) -> Answer:
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(DIAL_SECONDS)
        started = time.perf_counter()
        sock.sendto(dns.query(os.getpid() & 0xFFFF, DNS_NAME), (target.address, target.port))
        dial_ms = (time.perf_counter() - started) * 1000
        message, source = sock.recvfrom(4096)
        return Answer(target, dns.decode(message).served_by, source[:2], dial_ms=dial_ms)


def _received(sock: socket.socket, whole: bool = False) -> bytes:
    """One read, or everything until the server closes."""
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
        if not whole:
            break
    return received


def complaint(answer: Answer, states: Iterable[Collection[str]], client_addresses: Collection[str]) -> str:
    """What is wrong with an answer; empty: nothing.

    Args:
        states: the pods that may answer, once for each state that the Service is in (two while a change is
            on its way). Without any pod the only right answer is ECONNREFUSED.
        client_addresses: one of these the server must have seen; empty: not checked.
    """
    target, possible = answer.target, list(states)
    if answer.error:
        if answer.error == errno.ECONNREFUSED and any(not pods for pods in possible):
            return ""
        name = errno.errorcode.get(answer.error, str(answer.error))
        return f"{target} at {target.dialled}: {name} ({answer.trouble})"
    if not any(answer.pod in pods for pods in possible):
        allowed = ", ".join(sorted(set().union(*possible))) or "nobody"
        return f"{target}: answered by {answer.pod!r}, allowed: {allowed}"
    if answer.peer != (target.address, target.port):
        what = "the answer came from" if target.protocol == "UDP" else "getpeername() shows"
        return f"{target}: {what} {answer.peer}, not the Service's {target.dialled}"
    if client_addresses and answer.seen_client and answer.seen_client not in client_addresses:
        return (
            f"{target}: the server saw client {answer.seen_client}, not one of {', '.join(client_addresses)}"
        )
    return ""
